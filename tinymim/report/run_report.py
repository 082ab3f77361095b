"""The report of a run: its figures, curves, other runs beside it, attention maps, and how to repeat it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import yaml

from tinymim import extras
from tinymim.config.spec import differences
from tinymim.report.attention_figure import gallery
from tinymim.report.curves import charts, title_of
from tinymim.report.document import Document, Section, Table
from tinymim.report.runs import Run
from tinymim.teachers import card
from tinymim.training.run_schemas import Results

FIGURES = ("val/top1", "val/top5", "val/knn_top1", "val/miou", "val/map", "val/loss")
"""Figures at the top and in the table, in this order."""

SIZES = ("image_size", "batch_size")
"""Options shown of a run's data beside its class and folder."""

ASIDE = ("run_dir", "name", "ckpt_path", "overwrite", "compare")
"""Keys of a recipe that do not change the training."""

ALONE = "There is no other finished run beside this one. Name some: tinymim report RUN OTHER ..."
COMPARED = "Figures of the last weights on each run's own held-out images; {note}."
ATTENTION = "Attention to the patches, softmax(q·k / √d); each map's own greatest value is brightest."


def render(run: Run, others: list[Run], images: Path | None = None, count: int = 4, trust: bool = False) -> str:
    """The report of a run, compared with ``others``, as one HTML page; the rest is as for :func:`gallery`."""
    maps = gallery(run, images, count, trust)
    licence = maps.licence
    headline = {title_of(name): _value(name, run.metrics[name]) for name in FIGURES if name in run.metrics}
    missing = extras.missing("curves need", "matplotlib")
    recipe = yaml.safe_dump(run.recipe, sort_keys=False)
    return Document(
        run.name,
        [
            Section("", tables=[Table(list(headline), [list(headline.values())])] if headline else []),
            Section("What was trained", facts=_facts(run)),
            *([Section("Curves", missing, pictures=drawn)] if (drawn := charts(run, others)) or missing else []),
            _against(run, others),
            Section(
                "Where they look",
                tables=[Table(["image", *maps.captions], maps.rows, text=ATTENTION, prose=True)] if maps.rows else [],
                remarks=maps.notes,
            ),
            Section("To repeat it", facts=_origin(run), listings=[("The resolved recipe", recipe)]),
        ],
        f"{run.kind}, {run.state}.",
        f"Licence {card.terms(licence)}." if licence and card.restriction(licence) else "",
    ).html()


def _value(name: str, value: float) -> str:
    return f"{value:.4f}" if name.endswith("loss") else f"{value:.1%}"


def _facts(run: Run) -> list[tuple[str, str]]:
    results = run.results
    facts = [("starts from", results.get("weights") or run.source or "from scratch")]
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


def _against(run: Run, others: list[Run]) -> Section:
    """Every run's figures, ``run`` first, and how each one's recipe differs from it."""
    title, runs = "Against other runs", [run, *others]
    if not others:
        return Section(title, [ALONE])
    logged = [name for name in FIGURES if any(name in each.metrics for each in runs)]
    names = sorted(logged, key=lambda name: name not in run.metrics)
    rows, listings = [], []
    for each in runs:
        figures = [_value(name, each.metrics[name]) if name in each.metrics else "-" for name in names]
        parameters = f"{each.results['parameters']:,}" if each.results.get("parameters") else "-"
        epochs = str(each.results.get("epochs") or "-")
        rows.append([each.name, *figures, epochs, parameters, f"{each.kind} {each.start}, {each.data}"])
        ours, theirs = ({k: v for k, v in compared.recipe.items() if k not in ASIDE} for compared in (run, each))
        if lines := [line.replace(", now ", ", there ") for line in differences(ours, theirs)]:
            listings.append((f"How {each.name} differs in its recipe ({len(lines)})", "\n".join(lines)))
    alike = len({(each.kind, each.data) for each in runs}) == 1
    note = "one seed each" if alike else "of several kinds or data: what is not of the same cannot be compared"
    heads = ["run", *(title_of(name) for name in names), "epochs", "parameters", "training"]
    return Section(title, tables=[Table(heads, rows, text=COMPARED.format(note=note))], listings=listings)


def _origin(run: Run) -> list[tuple[str, str]]:
    environment: dict[str, Any] = run.environment
    git = environment.get("git") or {}
    revision = "unknown"
    if git.get("revision"):
        revision = git["revision"][:12] + (" with changes" if git.get("changed") else "")
    packages = (environment.get("packages") or {}).items()
    return [
        ("command", environment.get("command", "unknown")),
        ("revision", revision),
        ("packages", ", ".join(f"{name} {version}" for name, version in packages)),
        ("device", environment.get("device", "unknown")),
        ("begun", environment.get("date", "unknown")),
        ("seed", str(run.recipe.get("seed_everything"))),
    ]
