"""What "On Data Scaling in Masked Image Modeling" (arXiv 2206.04664) found, and what a table of runs says of it.

Every sentence is computed from the rows, with counts; where they cannot tell, it says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations, pairwise

from tinymim.report.finding import AGREES, DISAGREES, OPEN, Finding
from tinymim.scaling.correlations import spearman
from tinymim.scaling.loss_accuracy import LEAST, Correlation, correlate, parts
from tinymim.scaling.overfit import Sign, grouped
from tinymim.scaling.table import Row

NOTHING = 0.00005
"""A difference of losses that does not show in four decimals, where nobody measured their noise."""


def findings(found: Iterable[Sign]) -> list[Finding]:
    """Of the runs of one objective."""
    found = list(found)
    rows = [sign.row for sign in found]
    answers = [
        overfitting(found),
        classic(found),
        big_on_small(rows),
        prediction(found),
        training_prediction(found),
        larger_later(rows),
        short_training(rows),
    ]
    seeds = str(len({row.seed for row in rows} - {None}) or "")
    return [replace(one, seeds=seeds) for one in answers]


def overfitting(found: list[Sign]) -> Finding:
    """Longer training on little data."""
    asked = [sign for sign in found if sign.rise is not None]
    rose = [sign for sign in asked if sign.rose]
    counts = [f"{data}: {sum(sign.rose for sign in some)} of {len(some)}" for data, some in _by_data(asked).items()]
    here = f"It rose in {len(rose)} of the {len(asked)} runs that have a shorter one ({', '.join(counts)})."
    if len(counts) < 2:
        verdict = OPEN
    else:
        shares = [sum(sign.rose for sign in some) / len(some) for some in _by_data(asked).values()]
        verdict = AGREES if shares[0] > shares[-1] else DISAGREES
    return Finding(
        "Does the held-out loss rise with longer training?",
        "On small data it does, for the largest models even at half of ImageNet-1K.",
        here if asked else "No run has a shorter one.",
        verdict,
    )


def classic(found: list[Sign]) -> Finding:
    """Whether the training loss fell where the held-out loss rose."""
    told = [sign.training_fell for sign in found if sign.training_fell is not None]
    rose = sum(sign.rose for sign in found)
    here = f"Of {rose} runs whose held-out loss rose, {len(told)} have training losses; it fell in {sum(told)} of them."
    verdict = OPEN if not told else AGREES if 2 * sum(told) > len(told) else DISAGREES
    here = here if rose else "No run's held-out loss rose."
    return Finding("Does the training loss fall meanwhile?", "It keeps dropping.", here, verdict)


def big_on_small(rows: list[Row]) -> Finding:
    """Whether bigger models end below smaller ones on little data, and not on much."""
    counts = {}
    for data, some in _longest_by_data(rows).items():
        pairs = [
            (small, big)
            for small, big in combinations(sorted(some, key=lambda row: row.parameters), 2)
            if small.parameters < big.parameters and small.seed == big.seed
        ]
        counts[data] = (sum(_worse(big, small) for small, big in pairs), len(pairs))
    counts = {data: count for data, count in counts.items() if count[1]}
    told = ", ".join(f"{data}: {worse} of {pairs}" for data, (worse, pairs) in counts.items())
    what = "accuracy" if rows and all(row.accuracy is not None for row in rows) else "held-out loss"
    here = f"Pairs of models, longest training, in which the bigger one has the worse {what}: {told or 'none'}."
    if len(counts) < 2:
        verdict = OPEN
    else:
        *less, (last, of_last) = counts.values()
        share = sum(worse for worse, _ in less) / sum(pairs for _, pairs in less)
        verdict = AGREES if share > last / of_last else DISAGREES
    return Finding(
        "Do big models on small data end below smaller ones?",
        "They do: the huge model on 20 % of ImageNet-1K ends below the small one.",
        here,
        verdict,
    )


def _worse(row: Row, other: Row) -> bool:
    if row.accuracy is not None and other.accuracy is not None:
        return row.accuracy < other.accuracy
    return row.validation_loss > other.validation_loss


def prediction(found: list[Sign]) -> Finding:
    """Whether the held-out loss goes with accuracy, among all runs, overfit ones and the others."""
    measured = [_correlation("validation", name, some) for name, some in _three(found).items()]
    return Finding(
        "Does the held-out loss predict accuracy after fine-tuning?",
        "It does, overfit or not: the lower the loss, the higher the accuracy.",
        f"Spearman's correlation: {'; '.join(map(_told, measured))}.",
        _signs([(one, True) for one in measured]),
    )


def training_prediction(found: list[Sign]) -> Finding:
    """Whether the training loss stops doing so among overfit runs."""
    _, calm, overfit = (_correlation("training", name, some) for name, some in _three(found).items())
    here = f"Spearman's correlation: {_told(calm)}; {_told(overfit)}."
    if not any(sign.row.training_loss is not None for sign in found):
        here = "The table has no training losses."
    return Finding(
        "Does the training loss?",
        "Only without overfitting: among overfit runs it goes up with accuracy.",
        here,
        _signs([(calm, True), (overfit, False)]),
    )


def _three(found: list[Sign]) -> dict[str, list[Sign]]:
    some = parts(found)
    return {name: some[name] for name in ("all", "not overfit", "overfit")}


def _correlation(loss: str, name: str, some: list[Sign]) -> Correlation:
    return correlate("", name, loss, some)


def _told(one: Correlation) -> str:
    if one.spearman is None:
        why = "too few runs" if one.count < LEAST else "all alike"
        return f"{one.runs}: {why}, {one.count}"
    return f"{one.runs} {one.spearman:+.2f} [{one.spearman_low:+.2f}, {one.spearman_high:+.2f}] ({one.count} runs)"


def _signs(expected: list[tuple[Correlation, bool]]) -> str:
    """Whether correlations are below 0 (true) or above (false) as expected: one whose interval has 0 in it tells
    nothing."""
    verdicts = set()
    for one, negative in expected:
        if one.spearman_low is None or one.spearman_high is None or one.spearman_low <= 0 <= one.spearman_high:
            verdicts.add(OPEN)
        else:
            verdicts.add(AGREES if (one.spearman_high < 0) == negative else DISAGREES)
    return next(verdict for verdict in (DISAGREES, OPEN, AGREES) if verdict in verdicts)


def larger_later(rows: list[Row]) -> Finding:
    """Whether bigger models gain more from the last step of data that all have."""
    falls = _falls(rows, max((row.iterations for row in rows), default=0))
    models = sorted(falls, key=lambda row: row.parameters)
    told = ", ".join(f"{row.model} {falls[row]:+.4f}" for row in models)
    here = (
        f"Fall of the held-out loss over the last step of data that all models have, longest training: {told or '-'}."
    )
    verdict = OPEN
    if len({row.parameters for row in models}) > 1:
        trend = spearman([row.parameters for row in models], [falls[row] for row in models])
        here += f" Spearman's correlation with size: {trend:+.2f}."
        verdict = _beyond_noise(falls[models[-1]] - falls[models[0]], rows)
    return Finding("Do larger models saturate later with data?", "They do.", here, verdict)


def short_training(rows: list[Row]) -> Finding:
    """Whether that gain is less than half as large in the shortest training as in the longest."""
    lengths = sorted({row.iterations for row in rows})
    means = [
        sum(falls.values()) / len(falls) for length in lengths[:1] + lengths[-1:] if (falls := _falls(rows, length))
    ]
    here, verdict = "The table has one length alone.", OPEN
    if len(lengths) > 1 and len(means) == 2:
        here = f"Mean of those falls: {means[0]:+.4f} in the shortest training, {means[1]:+.4f} in the longest."
        verdict = _beyond_noise(means[1] - means[0], rows)
        verdict = DISAGREES if verdict == AGREES and means[0] > means[1] / 2 else verdict
    return Finding("Does more data help short training?", "Hardly.", here, verdict)


def _beyond_noise(difference: float, rows: list[Row]) -> str:
    """Whether a difference of losses that the paper has above 0 is so, by more than the masks alone could make it."""
    if abs(difference) <= max(NOTHING, *(row.noise or 0.0 for row in rows)):
        return OPEN
    return AGREES if difference > 0 else DISAGREES


def _falls(rows: list[Row], iterations: int) -> dict[Row, float]:
    """Of the loss between the two largest sets of images that all models of a length ran on; by the run on the larger,
    one for each model and seed."""
    groups = grouped([row for row in rows if row.iterations == iterations], lambda row: (row.model, row.seed)).values()
    common = sorted(set.intersection(*({row.images for row in group} for group in groups))) if groups else []
    if len(common) < 2:
        return {}
    by_images = [{row.images: row for row in group} for group in groups]
    return {one[common[-1]]: one[common[-2]].validation_loss - one[common[-1]].validation_loss for one in by_images}


def _by_data(found: list[Sign]) -> dict[str, list[Sign]]:
    """By set of images, the smallest first."""
    some: dict[str, list[Sign]] = {}
    for sign in sorted(found, key=lambda sign: sign.row.images):
        some.setdefault(sign.row.data, []).append(sign)
    return some


def _longest_by_data(rows: list[Row]) -> dict[str, list[Row]]:
    longest = max((row.iterations for row in rows), default=0)
    ordered = sorted((row for row in rows if row.iterations == longest), key=lambda row: row.images)
    return {str(data): some for (data,), some in grouped(ordered, lambda row: (row.data,)).items()}


def next_length(rows: list[Row]) -> str:
    """What going on to the next length did to loss and accuracy, in a sentence; empty without accuracies."""
    ordered = sorted((row for row in rows if row.accuracy is not None), key=lambda row: row.iterations)
    groups = grouped(ordered, lambda row: (row.model, row.data, row.seed)).values()
    steps = [
        (after.validation_loss > before.validation_loss, (after.accuracy or 0) > (before.accuracy or 0))
        for group in groups
        for before, after in pairwise(group)
    ]
    if not steps:
        return ""
    fell, rose = ([better for worse, better in steps if worse == up] for up in (False, True))
    return (
        f"From one length to the next of the same model and data, the loss fell {len(fell)} times, and accuracy "
        f"rose in {sum(fell)} of them; it rose {len(rose)} times, and accuracy still rose in {sum(rose)} of them."
    )
