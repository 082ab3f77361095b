"""The analysis of a table of runs as sections of a page, with tables and figures beside it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pandas import DataFrame

from tinymim.errors import TinymimError
from tinymim.report import csv_files
from tinymim.report.document import Document, Section, Table
from tinymim.report.finding import VERDICTS
from tinymim.report.finding import table as findings_table
from tinymim.scaling import scaling_figures, table
from tinymim.scaling.correlations import LEAST, RESAMPLES, correlations
from tinymim.scaling.laws import CHOICE, Law, laws
from tinymim.scaling.overfitting import CSV_NAMES, flagged
from tinymim.scaling.paper_findings import findings, next_length
from tinymim.scaling.saturation import saturation
from tinymim.scaling.table import RunRow

NAME = "index.html"

ABOUT = (
    "{runs} runs of {models} models, {sets} sets of images, {lengths} lengths, seeds: {seeds}; the paper is "
    '"On Data Scaling in Masked Image Modeling" (arXiv 2206.04664).'
)
OVERFIT = (
    "In {overfit} of {runs} runs the validation loss is above the best of the shorter runs of the same model and data"
    "{classic}."
)
CLASSIC = "; of the {known} with training losses, that is lower in {fell}: the classic sign"
MORE_DATA = (
    "Apart from that, {exceed} runs have a higher loss than the run on the next larger set of images, {both} of the "
    "first among them: more data helped, which is no overfitting by itself."
)
NOISE = (
    "A difference counts where it is larger than its own standard deviation over seeds of the masks, which runs share "
    "(of a run alone: {measured})."
)
SATURATED = (
    "From the second largest set of images to the largest the loss fell{noisy} in {falls} of {cases} cases. Flat from "
    "a set on: no larger one has a lower loss."
)
CORRELATED = (
    *(f"{{{name}:+.3f}} [{{{name}_low:+.3f}}, {{{name}_high:+.3f}}]" for name in ("pearson", "spearman")),
    "{slope:+.2f}",
)
INTERVALS = (
    f"Intervals: 95 %, percentiles over {RESAMPLES} draws of runs, as if runs were independent of each other. Parts of "
    f"fewer than {LEAST} runs or of one accuracy, and those that are all runs, are in the file alone."
)
LAWS = (
    f"L = a·x^-b + c of the validation loss. Points: {CHOICE}. The paper publishes no law: these are fits of ours, and "
    "what lies beyond the points is not in evidence."
)
LAW_INTERVALS = (
    "Intervals: 95 %, percentiles over fits to resampled residuals. On synthetic laws of 5 to 12 points they hold the "
    "truth in 83 to 91 % of cases: take them for the least that is uncertain."
)


def write(rows: list[RunRow], out: Path, title: str, extra_sections: Iterable[Section] = ()) -> Path:
    """Analyse runs into the folder ``out``, and write the page there, :data:`NAME` (which is returned) and the same as
    Markdown; ``extra_sections`` come after the analysis."""
    document = Document(title, [_cards(rows), *analyse(rows, out), *extra_sections], about=_about(rows))
    for page in (out / NAME).with_suffix(".md"), out / NAME:
        document.write(page)
    return page


def _cards(rows: list[RunRow]) -> Section:
    """The best runs of each objective, and how many overfit."""
    runs = flagged(rows)
    cards = {"runs above a shorter one": f"{runs['is_overfit'].sum()} of {len(runs)}"}
    for objective, group in runs.groupby("objective", sort=False):
        lowest = group.loc[group["validation_loss"].idxmin()]
        cards[f"lowest loss of {objective}: {_named(lowest)}"] = f"{lowest['validation_loss']:.4f}"
        if group["accuracy"].notna().any():
            best = group.loc[group["accuracy"].idxmax()]
            cards[f"best top-1 of {objective}: {_named(best)}"] = f"{best['accuracy']:.1%}"
    return Section("", tables=[Table(list(cards), [list(cards.values())], cards=True)])


def _named(run: Any) -> str:
    return f"{run['model']}, {run['data']}, {run['iterations']:,} iterations"


def analyse(rows: list[RunRow], out: Path) -> list[Section]:
    """Write ``flags.csv``, ``correlations.csv``, ``laws.csv``, ``saturation.csv`` and figures into ``out``.

    Losses of two objectives are never compared: each has sections of its own.

    Returns:
        The sections of a page in that folder.

    Raises:
        TinymimError: no run is done.
    """
    if not table.done(rows):
        raise TinymimError(f"table: none of {len(rows)} runs is done, so there is nothing to analyse")
    runs, saturated = flagged(rows), saturation(rows)
    fitted, correlated = laws(runs), correlations(runs)
    tables = {
        "flags": runs[[*CSV_NAMES]].rename(columns=CSV_NAMES).to_dict("records"),
        "correlations": correlated,
        "laws": [law.record() for law in fitted],
        "saturation": saturated.to_dict("records"),
    }
    for name, lines in tables.items():
        if lines:
            csv_files.write(out / f"{name}.csv", lines)
    sections = []
    objectives = list(runs["objective"].unique())
    for objective, stem in scaling_figures.stems(objectives, out / "figures").items():
        group = runs[runs["objective"] == objective]
        parts = [
            _overfitting(group, stem),
            _saturation(saturated[saturated["objective"] == objective] if len(saturated) else saturated),
            _accuracy(group, [line for line in correlated if line["objective"] == objective], stem),
            _laws([law for law in fitted if law.objective == objective], stem),
            _agreement(group),
        ]
        for section in parts:
            section.title = f"{objective}: {section.title}" if len(objectives) > 1 else section.title
        sections += parts
    if failed := [row for row in rows if row.status == "failed"]:
        sections.append(Section("Failed runs", [f"{row.name}: {row.error or 'unknown why'}" for row in failed]))
    return sections


def _about(rows: list[RunRow]) -> str:
    runs = table.done(rows)
    names = {"models": "model", "sets": "data", "lengths": "iterations", "seeds": "seed"}
    counts = {plural: len({getattr(row, name) for row in runs} - {None}) for plural, name in names.items()}
    return ABOUT.format(runs=len(runs), **{**counts, "seeds": counts["seeds"] or "not told"})


def _overfitting(runs: DataFrame, stem: Path) -> Section:
    overfit, noise = runs[runs["is_overfit"]], runs["noise"].dropna()
    fell = overfit["training_loss_fell"].dropna().astype(bool)
    classic = CLASSIC.format(known=len(fell), fell=fell.sum()) if len(fell) else ""
    text = [
        OVERFIT.format(overfit=len(overfit), runs=len(runs), classic=classic),
        MORE_DATA.format(exceed=runs["exceeds"].sum(), both=overfit["exceeds"].sum()),
        NOISE.format(measured=f"here {noise.min():.5f} to {noise.max():.5f}" if len(noise) else "none here"),
    ]
    lines = [
        [
            run.row.name,
            f"{run.validation_loss:.4f}",
            _signed(run.loss_increase),
            {True: "fell", False: "rose", None: "-"}[run.training_loss_fell],
            _signed(run.gap),
            _signed(run.excess),
        ]
        for run in overfit.itertuples()
    ]
    heads = ["overfit run", "validation loss", "over a shorter run", "training loss", "validation - training"]
    caption = "Gap: validation less training loss. All runs:"
    tables = [Table([*heads, "over more data"], lines, text=caption, files=["flags.csv"])]
    return Section("Does it overfit?", text, tables, scaling_figures.losses(runs, stem))


def _saturation(saturated: DataFrame) -> Section:
    if not len(saturated):
        return Section("Would more data help?", ["No model and length ran on two sets of images."])
    lines = [
        [
            f"{line.model}, {line.iterations:,} iterations" + ("" if line.seed is None else f", seed {line.seed}"),
            f"{line.second_largest} to {line.largest}",
            f"{line.fall:+.4f}",
            f"{line.noise:.5f}" if line.noise else "-",
            line.flat_from or "-",
        ]
        for line in saturated.itertuples()
    ]
    noisy = " by more than noise" if saturated["noise"].any() else ", by however little, as no noise is known,"
    text = SATURATED.format(noisy=noisy, falls=saturated["falls"].sum(), cases=len(saturated))
    heads = ["model", "data", "fall of the loss", "noise", "flat from"]
    return Section("Would more data help?", [text], [Table(heads, lines, files=["saturation.csv"])])


def _accuracy(runs: DataFrame, correlated: list[dict[str, Any]], stem: Path) -> Section:
    title = "Does the loss predict accuracy?"
    pictures = scaling_figures.accuracy(runs, stem)
    if not pictures:
        return Section(title, ["No accuracy after fine-tuning is known."])
    known = runs["accuracy"].notna().sum()
    lines = []
    for line in correlated:
        if line["runs"] == "all" or (line["pearson"] is not None and line["count"] < known):
            cells = ["-", "-", "-"]
            if line["pearson"] is not None:
                cells = [form.format(**line) for form in CORRELATED]
            lines.append([f"{line['loss']} loss, {line['runs']}", str(line["count"]), *cells])
    heads = ["correlation with accuracy", "runs", "Pearson", "Spearman", "points per 0.01"]
    tables = [Table(heads, lines, text=INTERVALS, files=["correlations.csv"])]
    return Section(title, [text] if (text := next_length(runs)) else [], tables, pictures)


def _laws(fitted: list[Law], stem: Path) -> Section:
    lines = []
    for law in fitted:
        cells = ["-", "-", "-", "-"]
        if law.curve is not None:
            cells = ["{:.3g} [{:.3g}, {:.3g}]".format(*law.interval(name)) for name in "abc"] + [f"{law.rmse:.5f}"]
        lines.append([f"{law.axis} ({law.unit})", str(len(law.points)), *cells])
    tables = [Table(["along", "points", "a", "b", "c", "rmse"], lines, text=LAW_INTERVALS, files=["laws.csv"])]
    remarks = [f"{law.axis}: {'; '.join(law.remarks)}." for law in fitted if law.remarks]
    return Section("Power laws", [LAWS], tables, scaling_figures.laws(fitted, stem), remarks)


def _agreement(runs: DataFrame) -> Section:
    answers = findings(runs)
    counts = ", ".join(f"{verdict}: {sum(answer.verdict == verdict for answer in answers)}" for verdict in VERDICTS)
    return Section("Against the paper", [f"Of {len(answers)} findings: {counts}."], [findings_table(answers)])


def _signed(value: float) -> str:
    return "-" if value != value else f"{value:+.4f}"
