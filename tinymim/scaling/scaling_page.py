"""The analysis of a table of runs as sections of a page, with tables and figures beside it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from tinymim.errors import TinymimError
from tinymim.report.document import Document, Section, Table
from tinymim.report.finding import VERDICTS
from tinymim.report.finding import table as findings_table
from tinymim.scaling import scaling_figures, table
from tinymim.scaling.laws import CHOICE, Law, laws
from tinymim.scaling.loss_accuracy import LEAST, RESAMPLES, Correlation, correlations
from tinymim.scaling.overfit import Sign, records, signs
from tinymim.scaling.paper_findings import findings, next_length
from tinymim.scaling.saturation import Saturation, saturation
from tinymim.scaling.table import Row, write_records

PAPER = 'the paper is "On Data Scaling in Masked Image Modeling" (arXiv 2206.04664)'


def write(rows: list[Row], out: Path, title: str, extra_sections: Iterable[Section] = ()) -> Path:
    """Analyse runs and write the page, ``out/index.html``, and the same as Markdown.

    Args:
        rows: the runs.
        out: a folder; tables and figures go there too.
        title: of the page.
        extra_sections: what comes after the analysis.

    Returns:
        The page.
    """
    document = Document(title, [*analyse(rows, out), *extra_sections], about=_about(rows))
    document.write(out / "index.md")
    document.write(out / "index.html")
    return out / "index.html"


def analyse(rows: list[Row], out: Path) -> list[Section]:
    """Write ``flags.csv``, ``correlations.csv``, ``laws.csv``, ``saturation.csv`` and figures into ``out``.

    Losses of two objectives are never compared: each has sections of its own.

    Returns:
        The sections of a page in that folder.

    Raises:
        TinymimError: no run is done.
    """
    found = signs(rows)
    if not found:
        raise TinymimError(f"table: none of {len(rows)} runs is done, so there is nothing to analyse")
    flat, fitted, correlated = saturation(rows), laws(found), correlations(found)
    for name, lines in (
        ("flags", records(found)),
        ("correlations", [asdict(one) for one in correlated]),
        ("laws", [law.record() for law in fitted]),
        ("saturation", [one.record() for one in flat]),
    ):
        if lines:
            write_records(out / f"{name}.csv", lines)
    sections = []
    objectives = list(dict.fromkeys(sign.row.objective for sign in found))
    for objective in objectives:
        some = [sign for sign in found if sign.row.objective == objective]
        own = [
            _overfitting(some, out),
            _saturated([one for one in flat if one.rows[0].objective == objective]),
            _accuracy(some, [one for one in correlated if one.objective == objective], out),
            _laws([law for law in fitted if law.objective == objective], out),
            _agreement(some),
        ]
        for section in own:
            section.title = f"{objective}: {section.title}" if len(objectives) > 1 else section.title
        sections += own
    if failed := [row for row in rows if row.status == "failed"]:
        sections.append(Section("Failed runs", [f"{row.name}: {row.error or 'unknown why'}" for row in failed]))
    return sections


def _about(rows: list[Row]) -> str:
    runs = table.done(rows)
    seeds = {row.seed for row in runs} - {None}
    counts = [
        f"{len(runs)} runs of {len({row.model for row in runs})} models",
        f"{len({row.data for row in runs})} sets of images",
        f"{len({row.iterations for row in runs})} lengths",
        f"seeds: {len(seeds) or 'not told'}",
    ]
    return f"{', '.join(counts)}; {PAPER}."


def _overfitting(found: list[Sign], out: Path) -> Section:
    rose = [sign for sign in found if sign.rose]
    told = [sign.training_fell for sign in rose if sign.training_fell is not None]
    exceeds = [sign for sign in found if sign.exceeds]
    noise = [sign.row.noise for sign in found if sign.row.noise is not None]
    measured = f"here {min(noise):.5f} to {max(noise):.5f}" if noise else "none here"
    fell = f"; of the {len(told)} with training losses, that is lower in {sum(told)}: the classic sign" if told else ""
    text = [
        f"In {len(rose)} of {len(found)} runs the validation loss is above the best of the shorter runs of the same "
        f"model and data{fell}.",
        f"Apart from that, {len(exceeds)} runs have a higher loss than the run on the next larger set of images, "
        f"{sum(sign.rose for sign in exceeds)} of the first among them: more data helped, which is no overfitting by "
        "itself.",
        "A difference counts where it is larger than its own standard deviation over seeds of the masks, which runs "
        f"share (of a run alone: {measured}).",
    ]
    lines = [
        [
            sign.row.name,
            f"{sign.row.validation_loss:.4f}",
            _signed(sign.rise),
            {True: "fell", False: "rose", None: "-"}[sign.training_fell],
            _signed(sign.gap),
            _signed(sign.excess),
        ]
        for sign in rose
    ]
    heads = [
        "overfit run",
        "validation loss",
        "over a shorter run",
        "training loss",
        "validation - training",
        "over more data",
    ]
    return Section(
        "Does it overfit?",
        text,
        [Table(heads, lines, text="Gap: validation less training loss. All runs:", files=["flags.csv"])],
        scaling_figures.losses(found, out),
    )


def _saturated(found: list[Saturation]) -> Section:
    if not found:
        return Section("Would more data help?", ["No model and length ran on two sets of images."])
    lines = [
        [
            f"{one.rows[-1].model}, {one.rows[-1].iterations:,} iterations{one.rows[-1].of_seed}",
            f"{one.rows[-2].data} to {one.rows[-1].data}",
            f"{one.fall:+.4f}",
            f"{one.noise:.5f}" if one.noise else "-",
            "-" if one.flat_from is one.rows[-1] else one.flat_from.data,
        ]
        for one in found
    ]
    noisy = " by more than noise" if any(one.noise for one in found) else ", by however little, as no noise is known,"
    text = (
        f"From the second largest set of images to the largest the loss fell{noisy} in "
        f"{sum(one.falls for one in found)} of {len(found)} cases. Flat from a set on: no larger one has a lower loss."
    )
    heads = ["model", "data", "fall of the loss", "noise", "flat from"]
    return Section("Would more data help?", [text], [Table(heads, lines, files=["saturation.csv"])])


def _accuracy(found: list[Sign], correlated: list[Correlation], out: Path) -> Section:
    title = "Does the loss predict accuracy?"
    pictures = scaling_figures.accuracy(found, out)
    if not pictures:
        return Section(title, ["No accuracy after fine-tuning is known."])
    known = [sign for sign in found if sign.row.accuracy is not None]
    lines = [
        [
            f"{one.loss} loss, {one.runs}",
            str(one.count),
            _with_interval(one.pearson, one.pearson_low, one.pearson_high),
            _with_interval(one.spearman, one.spearman_low, one.spearman_high),
            "-" if one.slope is None else f"{one.slope:+.2f}",
        ]
        for one in correlated
        if one.runs == "all" or (one.pearson is not None and one.count < len(known))
    ]
    heads = ["correlation with accuracy", "runs", "Pearson", "Spearman", "points per 0.01"]
    text = (
        f"Intervals: 95 %, percentiles over {RESAMPLES} draws of runs, as if runs were independent of each other. "
        f"Parts of fewer than {LEAST} runs or of one accuracy, and those that are all runs, are in the file alone."
    )
    return Section(
        title,
        [next_length([sign.row for sign in found])],
        [Table(heads, lines, text=text, files=["correlations.csv"])],
        pictures,
    )


def _laws(found: list[Law], out: Path) -> Section:
    lines = []
    for law in found:
        ends = [law.interval(name) for name in ("a", "b", "c")]
        shown = ["-" if one is None else f"{one[0]:.3g} [{one[1]:.3g}, {one[2]:.3g}]" for one in ends]
        rmse = "-" if law.rmse is None else f"{law.rmse:.5f}"
        lines.append([f"{law.axis} ({law.unit})", str(len(law.points)), *shown, rmse])
    text = (
        f"L = a·x^-b + c of the validation loss. Points: {CHOICE}. The paper publishes no law: these are fits of ours, "
        "and what lies beyond the points is not in evidence."
    )
    intervals = (
        "Intervals: 95 %, percentiles over fits to resampled residuals. On synthetic laws of 5 to 12 points they hold "
        "the truth in 83 to 91 % of cases: take them for the least that is uncertain."
    )
    return Section(
        "Power laws",
        [text],
        [Table(["along", "points", "a", "b", "c", "rmse"], lines, text=intervals, files=["laws.csv"])],
        scaling_figures.laws(found, out),
        [f"{law.axis}: {'; '.join(law.remarks)}." for law in found if law.remarks],
    )


def _agreement(found: list[Sign]) -> Section:
    answers = findings(found)
    counts = ", ".join(f"{verdict}: {sum(one.verdict == verdict for one in answers)}" for verdict in VERDICTS)
    return Section("Against the paper", [f"Of {len(answers)} findings: {counts}."], [findings_table(answers)])


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.4f}"


def _with_interval(value: float | None, low: float | None, high: float | None) -> str:
    return "-" if value is None else f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"
