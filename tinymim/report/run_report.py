"""The report of a run: its figures, curves, pictures of what it does, other runs beside it, and how to repeat it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import yaml

from tinymim import extras
from tinymim.report import against, completions, confusion, curves
from tinymim.report.attention_figure import gallery
from tinymim.report.document import Document, Section, Table
from tinymim.report.runs import Run
from tinymim.report.shown_images import ShownImages
from tinymim.teachers import card
from tinymim.training.run_schemas import Results

SIZES = ("image_size", "batch_size")
"""Options shown of a run's data beside its class and folder."""

ATTENTION = (
    "Attention to the patches, softmax(q·k / √d). Each map's colours go from its least value to its greatest, which "
    "stand below it: 1 x uniform is attention to all patches alike."
)


@dataclass
class Seen:
    """Sections of what a checkpoint shows on images, and the licence of its weights."""

    sections: list[Section]
    licence: str | None


def seen(run: Run, images: Path | None = None, count: int = 4, trust: bool = False) -> Seen:
    """Look at images with the newest checkpoint of a run; the arguments are those of :class:`ShownImages`."""
    shown = ShownImages(run, images, count, trust)
    maps = gallery(run, shown)
    tables = [Table(["image", *maps.captions], maps.rows, text=ATTENTION, prose=True)] if maps.rows else []
    looks = Section("Where they look", tables=tables)
    made = [looks, *filter(None, (completions.strip(run, shown), confusion.mistakes(run, shown)))]
    made[-1].remarks += shown.notes
    return Seen([part for part in made if part.tables or part.remarks], maps.licence)


def render(run: Run, others: list[Run], looked: Seen, out: Path | None = None, again: int = 0) -> str:
    """The report of a run, compared with ``others``, as one HTML page.

    Args:
        run: of the page.
        others: what lies beside it.
        looked: at its images.
        out: the page's folder; the run's by default.
        again: seconds after which a browser reads the page anew; 0 is never.
    """
    licence, near = looked.licence, against.ranked(run, others)
    cards = {
        curves.title_of(name): against.value(name, run.metrics[name])
        for name in against.FIGURES
        if name in run.metrics and curves.says(run, name)
    }
    chosen = curves.headline(run)
    missing = extras.missing("curves need", "matplotlib")
    headline = [curves.chart(chosen, run, near[: against.MOST], wide=True)] if chosen and not missing else []
    recipe = yaml.safe_dump(run.recipe, sort_keys=False)
    name = str(run.recipe.get("name") or run.name)
    return Document(
        name if name == run.name else f"{name}: {run.name}",
        [
            Section("", tables=[Table(list(cards), [list(cards.values())], cards=True)] if cards else []),
            Section("", missing, pictures=headline),
            *([Section("Curves", pictures=drawn)] if (drawn := curves.charts(run, others, chosen)) else []),
            *looked.sections,
            against.section(run, others, out or run.place),
            Section("What was trained", facts=_facts(run)),
            Section("To repeat it", facts=_origin(run), listings=[("The resolved recipe", recipe)]),
        ],
        f"{run.kind}, {run.state}.",
        f"Licence {card.terms(licence)}." if licence and card.restriction(licence) else "",
        again=again,
    ).html()


def _facts(run: Run) -> list[tuple[str, str]]:
    results = run.results
    facts = [("teacher" if run.taught else "starts from", run.source or "scratch")]
    if backbone := msgspec.convert(results, Results).backbone:
        architecture: Any = backbone.architecture
        options = ", ".join(f"{name} {value}" for name, value in architecture.options.items())
        facts.append(("network", f"{architecture.arch} with {options}" if options else architecture.arch))
        if heads := architecture.heads:
            facts.append(("heads", ", ".join(map(str, heads if isinstance(heads, list) else [heads]))))
        facts.append(("features", f"of block {backbone.output_block}, the last that was trained whole"))
    if parameters := results.get("parameters"):
        facts.append(("parameters", f"{parameters:,}"))
    sizes = [f"{name} {run.data_options[name]}" for name in SIZES if run.data_options.get(name)]
    facts.append(("data", ", ".join([run.data, *sizes])))
    if skipped := results.get("skipped_steps"):
        facts.append(("passed over", f"steps {', '.join(map(str, skipped))}: not finite"))
    return facts


def _origin(run: Run) -> list[tuple[str, str]]:
    environment: dict[str, Any] = run.environment
    git = environment.get("git") or {}
    revision = "unknown"
    if git.get("revision"):
        revision = git["revision"][:12] + (" with changes" if git.get("changed") else "")
    packages = (environment.get("packages") or {}).items()
    weights = str(run.results.get("weights") or "").removeprefix("weights ")
    return [
        *([("the teacher's weights" if run.taught else "first weights", weights)] if weights else []),
        ("command", environment.get("command", "unknown")),
        ("revision", revision),
        ("packages", ", ".join(f"{name} {version}" for name, version in packages)),
        ("device", environment.get("device", "unknown")),
        ("begun", environment.get("date", "unknown")),
        ("seed", str(run.recipe.get("seed_everything"))),
    ]
