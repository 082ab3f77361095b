"""The page: what is said of a run, put into HTML that needs no other file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tinymim.config.spec import differences
from tinymim.report.attention_figure import gallery
from tinymim.report.curves import charts, title_of
from tinymim.report.document import rendered
from tinymim.report.runs import Run
from tinymim.teachers import card

FIGURES = ("val/top1", "val/top5", "val/knn_top1", "val/miou", "val/map", "val/loss")
"""What stands at the top and in the table, in this order."""

SIZES = ("image_size", "batch_size")
"""What is said of a run's data beside its class and folder."""

ASIDE = ("run_dir", "name", "ckpt_path", "overwrite", "compare")
"""Keys of a recipe that say nothing about the training."""


def render(run: Run, others: list[Run], images: Path | None = None, count: int = 4, trust: bool = False) -> str:
    """The page of a run.

    Args:
        run: the one it is about.
        others: what it is compared with.
        images: a folder of images for the attention maps; ``None`` takes the run's own held-out ones.
        count: how many of them.
        trust: see :func:`gallery`.

    Returns:
        HTML.
    """
    shown = gallery(run, images, count, trust)
    return rendered(
        "tinymim.report",
        "page.html",
        run=run,
        warning=_warning(shown.licence),
        headline=list(_figures(run).items()),
        facts=_facts(run),
        charts=charts(run, others),
        table=_table(run, others),
        gallery=shown,
        origin=_origin(run),
        recipe=yaml.safe_dump(run.recipe, sort_keys=False),
    )


def _warning(licence: str | None) -> str | None:
    """What stands against using the weights, in a sentence."""
    return f"Licence {card.terms(licence)}." if licence and card.restriction(licence) else None


def _figures(run: Run) -> dict[str, str]:
    return {_title(name): _value(name, run.metrics[name]) for name in FIGURES if name in run.metrics}


def _title(name: str) -> str:
    return title_of(name.removeprefix("val/"))


def _value(name: str, value: float) -> str:
    return f"{value:.4f}" if name.endswith("loss") else f"{value:.1%}"


def _facts(run: Run) -> list[tuple[str, str]]:
    results = run.results
    facts = [("starts from", results.get("weights") or run.source or "from scratch")]
    if backbone := results.get("backbone"):
        architecture = backbone["architecture"]
        options = ", ".join(f"{name} {value}" for name, value in architecture["options"].items())
        facts.append(("network", f"{architecture['arch']} with {options}" if options else architecture["arch"]))
        facts.append(("heads", ", ".join(map(str, architecture["heads"]))))
        facts.append(("features", f"of block {backbone['output_block']}, the last that was trained whole"))
    if "parameters" in results:
        facts.append(("parameters", f"{results['parameters']:,}"))
    given = run.data_options
    facts.append(("data", ", ".join([run.data, *(f"{name} {given[name]}" for name in SIZES if given.get(name))])))
    if skipped := results.get("skipped_steps"):
        facts.append(("passed over", f"steps {', '.join(map(str, skipped))}: not finite"))
    return facts


def _table(run: Run, others: list[Run]) -> dict[str, Any]:
    """Every run's figures, ``run`` first, and how each one's recipe differs from it."""
    runs = [run, *others]
    names = sorted((n for n in FIGURES if any(n in one.metrics for one in runs)), key=lambda n: n not in run.metrics)
    rows = []
    for one in runs:
        figures = [_value(name, one.metrics[name]) if name in one.metrics else "-" for name in names]
        sizes = f"{one.results['parameters']:,}" if "parameters" in one.results else "-"
        rows.append(
            {
                "name": one.name,
                "start": f"{one.kind} {one.start}, {one.data}",
                "figures": [*figures, str(one.results.get("epochs", "-")), sizes],
                "differences": _differences(run, one),
            }
        )
    same = len({(one.kind, one.data) for one in runs}) == 1
    note = "one seed each" if same else "of several kinds or data: what is not of the same cannot be compared"
    return {"columns": [*(_title(name) for name in names), "epochs", "parameters"], "rows": rows, "note": note}


def _differences(run: Run, other: Run) -> list[str]:
    ours, theirs = ({k: v for k, v in one.recipe.items() if k not in ASIDE} for one in (run, other))
    return [line.replace(", now ", ", there ") for line in differences(ours, theirs)]


def _origin(run: Run) -> list[tuple[str, str]]:
    environment = run.environment
    git = environment.get("git") or {}
    revision = (
        f"{git['revision'][:12]}{' with changes' if git.get('changed') else ''}" if git.get("revision") else "unknown"
    )
    packages = ", ".join(f"{name} {version}" for name, version in (environment.get("packages") or {}).items())
    found = [("command", environment.get("command", "unknown")), ("revision", revision), ("packages", packages)]
    found += [("device", environment.get("device", "unknown")), ("begun", environment.get("date", "unknown"))]
    return [*found, ("seed", str(run.recipe.get("seed_everything")))]
