"""Kinds of faults found in use, and the tests that keep each of them closed.

``python -m tests.robustness`` counts their inputs, as pytest collects them, into ``docs/robustness.md``, in tens, as
some are named by the installed libraries; ``tests/safety/test_robustness_page.py`` fails where there are fewer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

DATA = "docs/robustness.md"
BEGIN, END = "<!-- counted by tests/robustness.py: -->", "<!-- end of kinds -->"


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Args:
        name: of it.
        refused: what is refused, or named, in a line.
        survives: what goes on all the same.
        tests: patterns of their places, without ``tests/`` and ``test_``; each matches one at least.
    """

    name: str
    refused: str
    survives: str
    tests: tuple[str, ...]


KINDS = (
    Kind(
        "1. passed over in silence",
        "files of other endings, pipes, empty class folders, splits of other names, masks and rows without a label, "
        "samples without an image, averages beside weights, runs of no step",
        "splits under any of their usual names, hidden files, what a listing was not meant to take",
        (
            "data/passed_over::*",
            "data/folder::listing__*",
            "data/folder::layout__*",
            "data/segmentation_data::folder__masks_without*",
            "data/segmentation_data::folder__names_what*",
            "data/segmentation_data::folder__names_that*",
            "data/shards::samples__without*",
            "data/shards::samples__other_names*",
            "data/hf_data::labels*",
            "teachers/weights::read__says_that_there_is_an_average*",
            "training/lightning_surface::no_step__*",
            "tasks/classification::classes__*",
        ),
    ),
    Kind(
        "2. Lightning's whole surface",
        "flags, callbacks, plugins and strategies that contradict a run; metrics that no module logs; packages that "
        "are not installed",
        "each other flag and public part of Lightning, by short name, class path, `+=` and dotted options; `max_time`, "
        "`overfit_batches`",
        ("training/lightning_surface::*", "training/messages::*"),
    ),
    Kind(
        "3. nominal for actual",
        "batches that would make a smaller last step, fewer images than processes, another total batch on resuming",
        "accumulation, few images, several processes and their changes",
        (
            "methods/optim::total_batch__*",
            "methods/optim::lr__*",
            "data/sampler::*",
            "training/exact_resume::fit__accumulated*",
            "training/exact_resume::resume__another_total*",
            "training/measurement::seconds__*",
            "experiments/grid::too_small__*",
            "experiments/plan::changes__the_total*",
            "experiments/plan::gpus__*",
        ),
    ),
    Kind(
        "4. one list of checks",
        "options out of range, sizes that disagree, batches of one under BatchNorm, empty shares of a process, devices "
        "that are not here, parts of plans that do not fit each other",
        "chains, studies and programs as shipped",
        (
            "e2e/command::check__lists*",
            "training/lightning_surface::numbers__*",
            "training/checkpoints::saving__*",
            "data/folder::problems__*",
            "data/segmentation_data::problems__*",
            "data/shards::problems*",
            "data/hf_data::problems",
            "data/torchvision_refused::*",
            "data/data_module::workers__more*",
            "data/data_module::shares__*",
            "methods/*::problems__*",
            "methods/distillation_options::options__*",
            "tasks/*::problems__*",
            "tasks/classification::probe__steps*",
            "tasks/classification::classes__images*",
            "experiments/plan::load__*",
            "experiments/plan_check::check__*",
            "experiments/plan_check::chains__*",
            "experiments/study_file::*",
            "experiments/program::load__*",
            "experiments/search::*mistakes*",
            "device::refused__*",
            "cli/predict_command::mistakes",
            "cli/analyze_command::mistakes__*",
        ),
    ),
    Kind(
        "5. wrong file, right words",
        "pointers of Git LFS and git-annex, web pages, archives, compressed shards, other networks, programs in "
        "pickles, weights that are not finite, files cut short, texts in no known encoding",
        "published forms of weights under any ending, texts in UTF-8, UTF-16 and UTF-32",
        (
            "safety/signatures::*",
            "safety/encodings::*",
            "teachers/weights::read__*",
            "teachers/weights::fill__*",
            "teachers/weights::load__*",
            "teachers/formats::fill__what*",
            "teachers/formats::fill__another*",
            "teachers/formats::read__*",
            "teachers/safe_pickle::*",
            "data/shards::damage__*",
            "data/torchvision_refused::idx__*",
            "data/hf_data::a_folder*",
            "scaling/scaling_table::*",
        ),
    ),
    Kind(
        "6. documented means run",
        "–",
        "each command, recipe and block of code in README, recipes/README, the documents, the help and the Makefile",
        ("documented::*", "documents/code::*", "cli::*", "experiments/program::load__the_shipped*"),
    ),
    Kind(
        "7. bounded by what is needed",
        "images above `max_pixels`, archives and records that claim more than they hold, tables and texts of more than "
        "anyone reads, servers that trickle",
        "strips of 65,000 x 1 pixels, masks far larger than a crop, checks of recipes for larger machines",
        (
            "data/transforms::plain_view__*",
            "data/image_files::broken__larger*",
            "data/fast_views::view__of_a_large*",
            "data/segmentation_data::mask__is_read*",
            "data/segmentation_data::mask__of_another*",
            "tasks/segmentation::upsampled__*",
            "tasks/segmentation::validation__in_bands*",
            "training/measurement::growth__*",
            "training/measurement::check__*",
            "training/lightning_surface::check__ends*",
            "safety/schemas::bombs__*",
            "safety/captures::sizes__*",
            "safety/captures::captures__*",
            "safety/cases::zip__*",
            "safety/cases::tensors__*",
            "safety/cases::record__asks*",
            "teachers/download::download__that_trickles*",
        ),
    ),
    Kind(
        "8. equal to the source",
        "–",
        "first weights, positions, losses, layer decay, augmentation, public checkpoints and exports as the published "
        "code, timm, transformers and torchvision have them; runs and files of before as they were",
        (
            "vit/initialise::*",
            "vit/conventions::*",
            "vit/positions::*",
            "teachers/formats::fill__a_published*",
            "teachers/formats::fill__timms*",
            "teachers/huggingface_forms::*",
            "methods/optim::groups__*",
            "methods/optim::layer_decay__*",
            "methods/optim::schedule__*",
            "methods/mae::loss__*",
            "methods/simmim::loss__*",
            "data/fast_views::*",
            "export/export_forms::crop_share__*",
            "export/export_forms::hf__*",
        ),
    ),
    Kind(
        "9. lost nothing",
        "signals before there is anything to save, full disks, folders that move, checkpoints that are damaged or lack "
        "a part, other images or classes on resuming",
        "signals to a process and to its group, twice or ignored; kills at any moment; dead ranks and workers; changed "
        "bits, damaged neighbours, folders that were copied",
        (
            "training/preemption::*",
            "training/exact_resume::*",
            "training/checkpoints::*",
            "training/lock::*",
            "training/run_folder::*",
            "training/processes::*",
            "training/nonfinite_guard::*",
            "cli/stopping::*",
            "data/data_module::resume__*",
            "data/image_files::broken__*",
            "data/broken_training::*",
            "data/torchvision_resume::*",
            "experiments/runner::run__*",
            "e2e/torture::*",
            "e2e/ddp::*",
            "report/run_report::a_damaged*",
            "export/export_forms::full_disk*",
            "teachers/weights::write*",
        ),
    ),
)


def place(nodeid: str) -> str:
    """``data/folder::listing__x`` of ``tests/data/test_folder.py::test_listing__x[1]``."""
    file, _, name = nodeid.partition("::")
    return f"{file.removeprefix('tests/').replace('test_', '', 1).removesuffix('.py')}::{name.partition('[')[0][5:]}"


def files() -> set[str]:
    """Places of files that hold such tests, without patterns."""
    return {
        pattern.partition("::")[0] for kind in KINDS for pattern in kind.tests if "*" not in pattern.partition("::")[0]
    }


def counts(nodeids: Iterable[str]) -> dict[str, int]:
    """Inputs by name of the kind, among all tests that were collected.

    Raises:
        AssertionError: a pattern that matches none.
    """
    places = [place(nodeid) for nodeid in nodeids]
    for pattern in (pattern for kind in KINDS for pattern in kind.tests):
        assert any(fnmatchcase(each, pattern) for each in places), f"no test matches {pattern}"
    return {
        kind.name: sum(any(fnmatchcase(each, pattern) for pattern in kind.tests) for each in places) for kind in KINDS
    }


def table(counted: dict[str, int]) -> str:
    """The table, with numbers rounded down to tens."""
    lines = ["| kind | inputs | refused or named | goes on |", "|---|---:|---|---|"]
    for kind in KINDS:
        lines.append(f"| {kind.name} | {counted[kind.name] // 10 * 10} or more | {kind.refused} | {kind.survives} |")
    return "\n".join(lines)


def written(text: str) -> str:
    """The table in a document."""
    match = re.search(f"{re.escape(BEGIN)}\n(.*?)\n{re.escape(END)}", text, re.DOTALL)
    assert match, f"{DATA} has no {BEGIN}"
    return match[1]


class _Collected:
    nodeids: tuple[str, ...] = ()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.nodeids = tuple(item.nodeid for item in session.items)


def main() -> None:
    """Count, and write."""
    collected = _Collected()
    assert pytest.main(["--collect-only", "-qq", "-p", "no:cacheprovider", "tests"], plugins=[collected]) == 0
    before, begin, rest = Path(DATA).read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    Path(DATA).write_text(f"{before}{begin}\n{table(counts(collected.nodeids))}\n{END}{after}")


if __name__ == "__main__":
    main()
