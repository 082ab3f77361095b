"""The findings of "On Data Scaling in Masked Image Modeling" (arXiv 2206.04664) beside those of a table of runs.

Every sentence is computed from the rows, with counts; where they cannot tell, it says so.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

from pandas import DataFrame

from tinymim.report.finding import AGREES, DISAGREES, OPEN, Finding
from tinymim.scaling.correlations import LEAST, correlate, parts, spearman_text
from tinymim.scaling.table import RunRow

INVISIBLE = 0.00005
"""A difference of losses that does not show in four decimals, where nobody measured their noise."""

RISES_HERE = "It rose in {rose} of the {longer} runs that have a shorter one ({by_data})."
CLASSIC_HERE = "Of {rose} runs whose held-out loss rose, {known} have training losses; it fell in {fell} of them."
BIG_HERE = "Pairs of models, longest training, in which the bigger one has the worse {figure}: {by_data}."
SPEARMAN_HERE = "Spearman's correlation: {parts}."
LATER_HERE = (
    "Fall of the held-out loss over the last step of data that all models have, longest training: {falls}.{correlation}"
)
SHORT_HERE = "Mean of those falls: {shortest:+.4f} in the shortest training, {longest:+.4f} in the longest."
NEXT_LENGTH = (
    "From one length to the next of the same model and data, the loss fell {fell} times, and accuracy rose in "
    "{fell_better} of them; it rose {rose} times, and accuracy still rose in {rose_better} of them."
)


def findings(runs: DataFrame) -> list[Finding]:
    """The paper's questions, answered from the runs of one objective, as
    :func:`tinymim.scaling.overfitting.flagged` gives them."""
    questions = overfitting, classic, big_on_small, prediction, training_prediction, larger_later, short_training
    seeds = str(runs["seed"].nunique() or "")
    return [replace(question(runs), seeds=seeds) for question in questions]


def overfitting(runs: DataFrame) -> Finding:
    """Longer training on little data."""
    longer = runs[runs["loss_increase"].notna()].sort_values("images", kind="stable")
    by_data = longer.groupby("data", sort=False)["is_overfit"].agg(["sum", "count"])
    here, verdict = "No run has a shorter one.", OPEN
    if len(longer):
        counts = ", ".join(f"{data}: {row['sum']} of {row['count']}" for data, row in by_data.iterrows())
        here = RISES_HERE.format(rose=int(longer["is_overfit"].sum()), longer=len(longer), by_data=counts)
    if len(by_data) > 1:
        shares = by_data["sum"] / by_data["count"]
        verdict = AGREES if shares.iloc[0] > shares.iloc[-1] else DISAGREES
    question = "Does the held-out loss rise with longer training?"
    return Finding(
        question, "On small data it does, for the largest models even at half of ImageNet-1K.", here, verdict
    )


def classic(runs: DataFrame) -> Finding:
    """Whether the training loss fell where the held-out loss rose."""
    fell = runs["training_loss_fell"].dropna().astype(bool)
    rose = int(runs["is_overfit"].sum())
    here = "No run's held-out loss rose."
    if rose:
        here = CLASSIC_HERE.format(rose=rose, known=len(fell), fell=int(fell.sum()))
    verdict = OPEN if not len(fell) else AGREES if fell.mean() > 0.5 else DISAGREES
    return Finding("Does the training loss fall meanwhile?", "It keeps dropping.", here, verdict)


def big_on_small(runs: DataFrame) -> Finding:
    """Whether bigger models end below smaller ones on little data, and not on much."""
    figure = "accuracy" if len(runs) and runs["accuracy"].notna().all() else "held-out loss"
    longest = runs[runs["iterations"] == runs["iterations"].max()].sort_values(["images", "parameters"], kind="stable")
    counts: dict[str, tuple[int, int]] = {}
    for data, group in longest.groupby("data", sort=False):
        pairs = [
            (small, big)
            for small, big in combinations(group["row"], 2)
            if small.parameters < big.parameters and small.seed == big.seed
        ]
        if pairs:
            counts[str(data)] = sum(_is_worse(big, small) for small, big in pairs), len(pairs)
    verdict = OPEN
    if len(counts) > 1:
        *smaller, (last, of_last) = counts.values()
        share = sum(worse for worse, _ in smaller) / sum(pairs for _, pairs in smaller)
        verdict = AGREES if share > last / of_last else DISAGREES
    by_data = ", ".join(f"{data}: {worse} of {pairs}" for data, (worse, pairs) in counts.items()) or "none"
    return Finding(
        "Do big models on small data end below smaller ones?",
        "They do: the huge model on 20 % of ImageNet-1K ends below the small one.",
        BIG_HERE.format(figure=figure, by_data=by_data),
        verdict,
    )


def _is_worse(run: RunRow, other: RunRow) -> bool:
    if run.accuracy is not None and other.accuracy is not None:
        return run.accuracy < other.accuracy
    return run.validation_loss > other.validation_loss


def prediction(runs: DataFrame) -> Finding:
    """Whether the held-out loss goes with accuracy, among all runs, overfit ones and the others."""
    measured = _correlations("validation", runs, "all", "not overfit", "overfit")
    return Finding(
        "Does the held-out loss predict accuracy after fine-tuning?",
        "It does, overfit or not: the lower the loss, the higher the accuracy.",
        SPEARMAN_HERE.format(parts="; ".join(map(_shown, measured))),
        _joint_sign([(correlation, True) for correlation in measured]),
    )


def training_prediction(runs: DataFrame) -> Finding:
    """Whether the training loss stops doing so among overfit runs."""
    calm, overfit = _correlations("training", runs, "not overfit", "overfit")
    here = "The table has no training losses."
    if runs["training_loss"].notna().any():
        here = SPEARMAN_HERE.format(parts=f"{_shown(calm)}; {_shown(overfit)}")
    return Finding(
        "Does the training loss?",
        "Only without overfitting: among overfit runs it goes up with accuracy.",
        here,
        _joint_sign([(calm, True), (overfit, False)]),
    )


def _correlations(loss: str, runs: DataFrame, *names: str) -> list[dict[str, Any]]:
    named = parts(runs)
    return [correlate(name, loss, named[name]) for name in names]


def _shown(correlation: dict[str, Any]) -> str:
    if correlation["spearman"] is not None:
        return "{runs} {spearman:+.2f} [{spearman_low:+.2f}, {spearman_high:+.2f}] ({count} runs)".format(**correlation)
    why = "too few runs" if correlation["count"] < LEAST else "all alike"
    return f"{correlation['runs']}: {why}, {correlation['count']}"


def _joint_sign(expected: list[tuple[dict[str, Any], bool]]) -> str:
    """Whether correlations are below 0 (true) or above (false) as expected: an interval with 0 in it tells nothing."""
    verdicts = set()
    for correlation, negative in expected:
        low, high = correlation["spearman_low"], correlation["spearman_high"]
        if low is None or low <= 0 <= high:
            verdicts.add(OPEN)
        else:
            verdicts.add(AGREES if (high < 0) == negative else DISAGREES)
    return next(verdict for verdict in (DISAGREES, OPEN, AGREES) if verdict in verdicts)


def larger_later(runs: DataFrame) -> Finding:
    """Whether bigger models gain more from the last step of data that all have."""
    falls = _falls(runs, runs["iterations"].max()).sort_values("parameters", kind="stable")
    correlation, verdict = "", OPEN
    if falls["parameters"].nunique() > 1:
        trend = spearman_text(falls["parameters"], falls["fall"])
        correlation = f" Spearman's correlation with size: {trend}."
        verdict = _beyond_noise(falls["fall"].iloc[-1] - falls["fall"].iloc[0], runs)
    shown = ", ".join(f"{model} {fall:+.4f}" for model, fall in zip(falls["model"], falls["fall"], strict=True))
    here = LATER_HERE.format(falls=shown or "-", correlation=correlation)
    return Finding("Do larger models saturate later with data?", "They do.", here, verdict)


def short_training(runs: DataFrame) -> Finding:
    """Whether that gain is less than half as large in the shortest training as in the longest."""
    lengths = runs["iterations"]
    here, verdict = "The table has one length alone.", OPEN
    shortest, longest = (_falls(runs, length)["fall"].mean() for length in (lengths.min(), lengths.max()))
    if lengths.nunique() > 1 and shortest == shortest and longest == longest:
        here = SHORT_HERE.format(shortest=shortest, longest=longest)
        verdict = _beyond_noise(longest - shortest, runs)
        verdict = DISAGREES if verdict == AGREES and shortest > longest / 2 else verdict
    return Finding("Does more data help short training?", "Hardly.", here, verdict)


def _beyond_noise(difference: float, runs: DataFrame) -> str:
    """Whether a difference of losses that the paper has above 0 is so, by more than the masks alone could make it."""
    if abs(difference) <= max(INVISIBLE, runs["noise"].fillna(0).max()):
        return OPEN
    return AGREES if difference > 0 else DISAGREES


def _falls(runs: DataFrame, iterations: float) -> DataFrame:
    """Loss reduction (``fall``) between the two largest datasets common to all models at this length: a line for each
    ``model`` and seed, with its ``parameters``."""
    groups = runs[runs["iterations"] == iterations].groupby(["model", "seed"], sort=False, dropna=False)["row"]
    by_images = [{row.images: row for row in group} for _, group in groups]
    common = sorted(set.intersection(*map(set, by_images))) if by_images else []
    pairs = [(rows[common[-2]], rows[common[-1]]) for rows in by_images] if len(common) > 1 else []
    falls = [(last.model, last.parameters, before.validation_loss - last.validation_loss) for before, last in pairs]
    return DataFrame(falls, columns=["model", "parameters", "fall"])


def next_length(runs: DataFrame) -> str:
    """A sentence on the change of loss and accuracy from one length to the next; empty without accuracies."""
    known = runs[runs["accuracy"].notna()].sort_values("iterations", kind="stable")
    steps = known.groupby(["model", "data", "seed"], dropna=False)[["validation_loss", "accuracy"]].diff().dropna()
    if not len(steps):
        return ""
    rose, better = steps["validation_loss"] > 0, steps["accuracy"] > 0
    return NEXT_LENGTH.format(
        fell=(~rose).sum(), fell_better=(~rose & better).sum(), rose=rose.sum(), rose_better=(rose & better).sum()
    )
