"""Summaries of the tables of an analysis, and the sentences computed from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import pandas as pd
from pandas import DataFrame, Series

from tinymim.analysis.results import AnalysisResults

LOCAL = 0.5
"""Heads are called local whose distance is below this share of uniform attention's."""

VISIBLE = 0.05
"""A change of distance in pixels that shows in one decimal."""

ALIKE = 0.9
"""Blocks are called nearly alike from this CKA on: the range that the paper's masked and contrastive models keep to."""

LOCAL_SHARES = (
    "Of the heads in the last third of the blocks, these look less than {limit:g} times as far as uniform attention: "
    "{shares}; {extremes}."
)
DISTANCE_MOVES = "From the first third to the last the distance {moves}."
ENTROPY_SPREAD = (
    "In the last third of the blocks the entropies of a block's heads spread by {shares} of uniform attention's "
    "(standard deviation); {extremes}."
)
ENTROPY_LEVEL = "Their mean there, as a share of uniform attention's, is {shares}; {extremes}."
DIVERSITY_LAST = "In the last third of the blocks heads differ by {values}; {extremes}."
DIVERSITY_KEPT = "That is, of the greatest mean of any block, {shares}."
ONE_HEAD = "Blocks of a single head have nothing to differ from."
LEAST_CKA = "The least CKA of two blocks of one network: {pairs}."
NEARLY_ALIKE = "All blocks are nearly alike ({limit:g} or more) in {networks}."
CKA_BETWEEN = "Between two networks, their most alike blocks reach {values}: most for {best}."
AT_DISTILLED = (
    "At the distilled pair of {student} (teacher's block {teacher_block}, student's {student_block}) {relation} is "
    "this far from the teacher's, in nats and as a share of what a uniform relation would be: {values}; {extremes}."
)
PREFIX_MASS = "Of the attention of patches, CLS and other tokens that are no patches get {shares}."

COLUMNS: dict[str, dict[str, Callable[[Series], str]]] = {
    "distance_px": {
        "first third (px)": lambda row: f"{row.distance_px_first:.1f}",
        "last third (px)": lambda row: f"{row.distance_px_last:.1f}",
        "last / uniform": lambda row: f"{row.distance_ratio_last:.2f}",
        "local heads, last third": lambda row: f"{row.local:.0%}",
    },
    "entropy_nats": {
        "first third (nats)": lambda row: f"{row.entropy_nats_first:.2f}",
        "last third (nats)": lambda row: f"{row.entropy_nats_last:.2f}",
        "last / uniform": lambda row: f"{row.entropy_ratio_last:.2f}",
        "sd of a block's heads, last third": lambda row: f"{row.spread:.1%}",
    },
    "diversity_kl": {
        "greatest block (nats)": lambda row: f"{row.greatest:.3g}",
        "its number": lambda row: str(int(row.greatest_block)),
        "last third (nats)": lambda row: f"{row.diversity_kl_last:.3g}",
        "last / greatest": lambda row: f"{row.kept:.0%}" if math.isfinite(row.kept) else "-",
        "JS, last third (nats)": lambda row: f"{row.diversity_js_last:.3g}",
    },
}
"""Columns of the table of each measure, from a row of :func:`summary`."""


def summary(results: AnalysisResults) -> DataFrame:
    """First-third and last-third statistics for every network, one row each, by title.

    Columns: the means over heads of each measure in the first third of the measured blocks (one at least) and in the
    last (``_first``, ``_last``); of the last third the share of ``local`` heads, and the ``spread``: the standard
    deviation of the entropies of a block's heads as a share of uniform attention's, mean over blocks; the
    ``greatest_block`` by the mean diversity of its heads, that mean (``greatest``), and the share of it that is
    ``kept`` in the last third.
    """
    rows = {}
    for title in results.titles:
        heads = results.heads_of(title)
        blocks = sorted(heads["block"].unique())
        count = max(1, len(blocks) // 3)
        first, last = (heads[heads["block"].isin(part)] for part in (blocks[:count], blocks[-count:]))
        diversity = heads.groupby("block")["diversity_kl"].mean()
        greatest = diversity.max()
        ends = [part.mean(numeric_only=True).add_suffix(end) for part, end in ((first, "_first"), (last, "_last"))]
        more = {
            "local": (last["distance_ratio"] < LOCAL).mean(),
            "spread": last.groupby("block")["entropy_ratio"].std(ddof=0).mean(),
            "greatest": greatest,
            "greatest_block": blocks[0] if math.isnan(greatest) else diversity.idxmax(),
            "kept": last["diversity_kl"].mean() / greatest if greatest else math.nan,
        }
        rows[title] = pd.concat([*ends, Series(more)])
    return DataFrame(rows).T


def distance(ends: DataFrame) -> list[str]:
    """Sentences on attention distance."""
    change = ends["distance_px_last"] - ends["distance_px_first"]
    trends = {
        "rises": change[change >= VISIBLE],
        "falls": change[change <= -VISIBLE],
        "stays": change[change.abs() < VISIBLE],
    }
    moves = [f"{word} in {listed(part, '{:+.1f} px')}" for word, part in trends.items() if len(part)]
    local = ends["local"]
    return [
        LOCAL_SHARES.format(limit=LOCAL, shares=listed(local, "{:.0%}"), extremes=extremes(local, "most")),
        DISTANCE_MOVES.format(moves=together(moves)),
    ]


def entropy(ends: DataFrame) -> list[str]:
    """Sentences on entropy."""
    spread, level = ends["spread"], ends["entropy_ratio_last"]
    return [
        ENTROPY_SPREAD.format(shares=listed(spread, "{:.1%}"), extremes=extremes(spread, "widest")),
        ENTROPY_LEVEL.format(shares=listed(level, "{:.0%}"), extremes=extremes(level, "broadest")),
    ]


def diversity(ends: DataFrame) -> list[str]:
    """Sentences on the KL between heads."""
    finite = ends[ends["kept"].map(math.isfinite)]
    if not len(finite):
        return [ONE_HEAD]
    last = finite["diversity_kl_last"]
    return [
        DIVERSITY_LAST.format(values=listed(last, "{:.3g} nats"), extremes=extremes(last, "most")),
        DIVERSITY_KEPT.format(shares=listed(finite["kept"], "{:.0%}")),
    ]


def least_alike(results: AnalysisResults, title: str) -> Series | None:
    """The row of the two blocks of a network that CKA finds least alike; ``None`` where CKA is undefined."""
    rows = results.cka
    inner = rows[(rows["model_a"] == title) & (rows["model_b"] == title) & (rows["block_a"] < rows["block_b"])]
    inner = inner.dropna(subset="cka")
    return inner.loc[inner["cka"].idxmin()] if len(inner) else None


def likeness(results: AnalysisResults) -> list[str]:
    """Sentences on CKA, within each network and between two."""
    least = {title: row for title in results.titles if (row := least_alike(results, title)) is not None}
    if not least:
        return []
    pairs = [f"{title} ({row.cka:.2f}, blocks {row.block_a} and {row.block_b})" for title, row in least.items()]
    alike = [title for title, row in least.items() if row.cka >= ALIKE]
    sentences = [
        LEAST_CKA.format(pairs=together(pairs)),
        NEARLY_ALIKE.format(limit=ALIKE, networks=together(alike) if alike else "none of them"),
    ]
    between = results.cka[results.cka["model_a"] != results.cka["model_b"]].dropna(subset="cka")
    if len(between):
        most = between.groupby(["model_a", "model_b"], sort=False)["cka"].max()
        named = {f"{a} and {b}": value for (a, b), value in most.items()}
        best = together(list(most.idxmax()))
        sentences.append(CKA_BETWEEN.format(values=listed(named, "{:.2f}"), best=best))
    return sentences


def relative(rows: DataFrame) -> Series:
    """The KL of pairs of blocks as shares of the teacher's from a uniform relation."""
    return (rows["kl"] / rows["kl_uniform"]).where(rows["kl_uniform"] != 0, math.inf)


def agreement(results: AnalysisResults) -> list[str]:
    """Sentences on relations: at the pair that was distilled, the student beside every other network."""
    rows, sentences = results.relations.assign(share=relative(results.relations)), []
    for student in rows["student"].unique():
        for teacher_block, student_block in results.distilled_blocks(student):
            at_pair = rows[(rows["teacher_block"] == teacher_block) & (rows["student_block"] == student_block)]
            for relation, pair in at_pair.groupby("relation", sort=False):
                if student not in set(pair["student"]):
                    continue
                values = [f"{row.student} ({row.kl:.3g} nats, {row.share:.0%})" for row in pair.itertuples()]
                sentences.append(
                    AT_DISTILLED.format(
                        student=student,
                        teacher_block=teacher_block,
                        student_block=student_block,
                        relation=relation,
                        values=together(values),
                        extremes=extremes(pair.set_index("student")["kl"], "farthest", "nearest"),
                    )
                )
    return sentences


def prefix_mass(results: AnalysisResults) -> str:
    """A sentence on the attention that patches give to CLS and its like; empty where no network has such tokens."""
    with_prefix = [model["title"] for model in results.models if model["prefix_tokens"]]
    mass = {title: results.heads_of(title)["prefix_mass"].mean() for title in with_prefix}
    return PREFIX_MASS.format(shares=listed(mass, "{:.1%}")) if mass else ""


def listed(values: Mapping[str, float] | Series, form: str) -> str:
    """``a (1), b (2) and c (3)``."""
    return together([f"{name} ({form.format(value)})" for name, value in values.items()])


def together(names: list[str]) -> str:
    """``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def extremes(values: Series, most: str, least: str = "least") -> str:
    """Which have the greatest value and which the smallest; as one where all are the same."""
    high, low = values.max(), values.min()
    if high == low:
        return "there is no difference" if len(values) > 1 else "there is no other to compare it with"
    highest, lowest = (together(list(values.index[values == end])) for end in (high, low))
    return f"{most} in {highest}, {least} in {lowest}"
