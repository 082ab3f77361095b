"""``tinymim analyze MODEL [MODEL ...] --data WHAT``: attention distance, entropy, diversity, CKA, relations."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tinymim import files
from tinymim.analysis import analysis_page, cka, networks, sample_images
from tinymim.analysis.agreement import RelationOptions
from tinymim.analysis.heads import HeadOptions
from tinymim.analysis.measure import MeasureOptions, measure
from tinymim.analysis.results import ABOUT, TABLES, AnalysisResults
from tinymim.cli.network_command_options import analyze as parser
from tinymim.device import usable_device
from tinymim.errors import TinymimError
from tinymim.log import say
from tinymim.near_names import strangers
from tinymim.safety.console import PlainConsole
from tinymim.targets.relation import check_pairs

OURS = {ABOUT, analysis_page.NAME, *(f"{name}.csv" for name in TABLES)}
"""Files of an analysis in its folder, beside figures."""


def main(arguments: list[str]) -> int:
    """Run ``tinymim analyze``."""
    args = parser().parse_args(arguments)
    _check_out(args.out)
    if "cka" in args.measures and args.batch_size < cka.LEAST:
        raise TinymimError(
            f"batch_size: {args.batch_size} is not {cka.LEAST} or more, which CKA needs; take more, or "
            "leave CKA out with --measures heads,relations"
        )
    check_pairs(args.relations, "relations")
    device = usable_device(args.device)
    models = networks.load(args.models, args.seed, args.init, args.image_size)
    titles = [model.title for model in models]
    if args.teacher and args.teacher not in titles:
        raise TinymimError(f"teacher: none of the models is {strangers([args.teacher], titles)}")
    options = MeasureOptions(
        args.measures,
        args.batch_size,
        HeadOptions(**({"cls": args.cls} if args.cls else {}), kl=args.kl),
        args.tokens,
        RelationOptions(args.relations, **({"cls": args.cls} if args.cls else {})),
        args.teacher or titles[0],
    )
    side = max(side for model in models for side in model.network.image_size)
    shown = sample_images.find(args.data, args.images, side, args.trust)
    say(f"{shown.what}, {len(models)} models: {', '.join(titles)}")
    measured = with_bar(len(shown.chosen), partial(measure, models, shown, options, device))
    measured.about["options"] |= {"data": args.data, "images": args.images, "seed": args.seed, "device": str(device)}
    measured.about["options"] |= {"image_size": args.image_size} if args.image_size else {}
    for note in measured.about["notes"]:
        say(f"- {note}")
    write(measured, args.out)
    print(f"wrote {args.out / analysis_page.NAME}: open it in a browser; the tables and figures lie beside it")
    return 0


def with_bar(whole: int, work: Callable[[Callable[[int], None]], AnalysisResults]) -> AnalysisResults:
    """Do ``work``, which reports the images of each step, under a progress bar of ``whole`` images."""
    columns = (TextColumn("images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = PlainConsole(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=whole)
        return work(lambda count: bar.advance(task, count))


def write(results: AnalysisResults, out: Path) -> None:
    """Tables, figures and page into a folder, which appears whole or not at all.

    Raises:
        TinymimError: it cannot be written.
    """

    def fill(folder: Path) -> None:
        results.write(folder)
        analysis_page.document(folder).write(folder / analysis_page.NAME)

    with files.writing("out", out):
        files.write_folder(out, fill)


def _check_out(out: Path) -> None:
    """Raise where results would take the place of something else, or cannot be written."""
    files.check_writable("out", out)
    if not out.exists():
        return
    if not out.is_dir():
        raise TinymimError(f"out: {out} is a file; give a folder")
    present = [path.relative_to(out) for path in out.rglob("*") if path.is_file()]
    known = (out / ABOUT).is_file()
    figures = [
        path for path in present if str(path.parent) == analysis_page.FIGURES and path.suffix in (".png", ".svg")
    ]
    if strange := [path for path in present if not known or (str(path) not in OURS and path not in figures)]:
        raise TinymimError(f"out: {out} holds {sorted(strange)[0]}, which no analysis wrote; give another folder")
