"""What the tables of an analysis say, in numbers and in sentences; each is computed, and none is known before."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tinymim.analysis.analysis_figures import distilled, means, of_model
from tinymim.analysis.results import Results, Row

LOCAL = 0.5
"""Heads are called local whose distance is below this share of uniform attention's."""

SEEN = 0.05
"""A change of distance in pixels that shows in one decimal."""

ALIKE = 0.9
"""Blocks are called nearly alike from this CKA on: the range that the paper's masked and contrastive models keep to."""


@dataclass
class Ends:
    """The rows of one network's heads in the first and in the last third of its measured blocks (one at least)."""

    rows: list[Row]

    def __post_init__(self) -> None:
        blocks = sorted({row["block"] for row in self.rows})
        count = max(1, len(blocks) // 3)
        self.first = [row for row in self.rows if row["block"] in blocks[:count]]
        self.last = [row for row in self.rows if row["block"] in blocks[-count:]]

    def change(self, column: str) -> float:
        """How much more the last third has than the first."""
        return mean(self.last, column) - mean(self.first, column)

    def local(self) -> float:
        """Share of local heads in the last third."""
        return sum(row["distance_ratio"] < LOCAL for row in self.last) / len(self.last)

    def spread(self) -> float:
        """Standard deviation of the entropies of a block's heads, as a share of uniform attention's, mean over the last
        third of the blocks."""
        blocks: dict[int, list[float]] = {}
        for row in self.last:
            blocks.setdefault(row["block"], []).append(row["entropy_ratio"])
        return statistics.fmean(statistics.pstdev(heads) for heads in blocks.values())

    def greatest(self) -> tuple[int, float]:
        """The block whose heads differ most, and by how much on average."""
        return max(means(self.rows, "diversity_kl").items(), key=lambda item: item[1])

    def kept(self) -> float:
        """Diversity in the last third as a share of the greatest of any block."""
        most = self.greatest()[1]
        return mean(self.last, "diversity_kl") / most if most else math.nan


Columns = dict[str, Callable[[Ends], str]]
"""Heads of a table, and what stands under each for a network."""

DISTANCE_COLUMNS: Columns = {
    "first third (px)": lambda one: f"{mean(one.first, 'distance_px'):.1f}",
    "last third (px)": lambda one: f"{mean(one.last, 'distance_px'):.1f}",
    "last / uniform": lambda one: f"{mean(one.last, 'distance_ratio'):.2f}",
    "local heads, last third": lambda one: f"{one.local():.0%}",
}
ENTROPY_COLUMNS: Columns = {
    "first third (nats)": lambda one: f"{mean(one.first, 'entropy_nats'):.2f}",
    "last third (nats)": lambda one: f"{mean(one.last, 'entropy_nats'):.2f}",
    "last / uniform": lambda one: f"{mean(one.last, 'entropy_ratio'):.2f}",
    "sd of a block's heads, last third": lambda one: f"{one.spread():.1%}",
}
DIVERSITY_COLUMNS: Columns = {
    "greatest block (nats)": lambda one: f"{one.greatest()[1]:.3g}",
    "its number": lambda one: str(one.greatest()[0]),
    "last third (nats)": lambda one: f"{mean(one.last, 'diversity_kl'):.3g}",
    "last / greatest": lambda one: f"{one.kept():.0%}" if math.isfinite(one.kept()) else "-",
    "JS, last third (nats)": lambda one: f"{mean(one.last, 'diversity_js'):.3g}",
}


def ends(results: Results) -> dict[str, Ends]:
    """Both ends of every network."""
    return {title: Ends(of_model(results, title)) for title in results.titles}


def mean(rows: list[Row], column: str) -> float:
    """Over heads."""
    return sum(row[column] for row in rows) / len(rows)


def distance(found: dict[str, Ends]) -> list[str]:
    """Of attention distance."""
    local = {title: one.local() for title, one in found.items()}
    change = {title: one.change("distance_px") for title, one in found.items()}
    trend = {
        word: {title: f"{value:+.1f} px" for title, value in change.items() if toward(value)}
        for word, toward in (
            ("rises", lambda value: value >= SEEN),
            ("falls", lambda value: value <= -SEEN),
            ("stays", lambda value: abs(value) < SEEN),
        )
    }
    moves = together([f"{word} in {listed(shown)}" for word, shown in trend.items() if shown])
    return [
        f"Of the heads in the last third of the blocks, these look less than {LOCAL:g} times as far as uniform "
        f"attention: {listed({title: f'{share:.0%}' for title, share in local.items()})}; {_extremes(local, 'most')}.",
        f"From the first third to the last the distance {moves}.",
    ]


def entropy(found: dict[str, Ends]) -> list[str]:
    """Of entropy."""
    spread = {title: one.spread() for title, one in found.items()}
    level = {title: mean(one.last, "entropy_ratio") for title, one in found.items()}
    return [
        "In the last third of the blocks the entropies of a block's heads spread by "
        f"{listed({title: f'{value:.1%}' for title, value in spread.items()})} of uniform attention's (standard "
        "deviation); "
        f"{_extremes(spread, 'widest')}.",
        "Their mean there, as a share of uniform attention's, is "
        f"{listed({title: f'{value:.0%}' for title, value in level.items()})}; {_extremes(level, 'broadest')}.",
    ]


def diversity(found: dict[str, Ends]) -> list[str]:
    """Of the KL between heads."""
    last = {title: mean(one.last, "diversity_kl") for title, one in found.items()}
    kept = {title: one.kept() for title, one in found.items()}
    finite = {title: value for title, value in kept.items() if math.isfinite(value)}
    if not finite:
        return ["Blocks of a single head have nothing to differ from."]
    return [
        "In the last third of the blocks heads differ by "
        f"{listed({title: f'{last[title]:.3g} nats' for title in finite})}; "
        f"{_extremes({title: last[title] for title in finite}, 'most')}.",
        "That is, of the greatest mean of any block, "
        f"{listed({title: f'{value:.0%}' for title, value in finite.items()})}.",
    ]


def least_alike(results: Results, title: str) -> Row | None:
    """The two blocks of a network that CKA finds least alike."""
    own = [row for row in results.cka if row["model_a"] == row["model_b"] == title and row["block_a"] < row["block_b"]]
    return min((row for row in own if math.isfinite(row["cka"])), key=lambda row: row["cka"], default=None)


def likeness(results: Results) -> list[str]:
    """Of CKA, within each network and between two."""
    least = {title: row for title in results.titles if (row := least_alike(results, title))}
    shown = {title: f"{row['cka']:.2f}, blocks {row['block_a']} and {row['block_b']}" for title, row in least.items()}
    alike = [title for title, row in least.items() if row["cka"] >= ALIKE]
    if not least:
        return []
    text = [f"The least CKA of two blocks of one network: {listed(shown)}."]
    text += [f"All blocks are nearly alike ({ALIKE:g} or more) in {together(alike) if alike else 'none of them'}."]
    pairs: dict[tuple[str, str], float] = {}
    for row in results.cka:
        pair = (row["model_a"], row["model_b"])
        if pair[0] != pair[1] and math.isfinite(row["cka"]):
            pairs[pair] = max(row["cka"], pairs.get(pair, -1.0))
    if pairs:
        named = {f"{a} and {b}": f"{value:.2f}" for (a, b), value in pairs.items()}
        best = max(pairs, key=lambda pair: pairs[pair])
        text += [
            f"Between two networks, their most alike blocks reach {listed(named)}: most for {together(list(best))}."
        ]
    return text


def nearest(rows: list[Row]) -> Row:
    """The pair of blocks whose relations are nearest, measured by what a uniform relation would come to."""
    return min(rows, key=relative)


def relative(row: Row) -> float:
    """The KL of a pair as a share of the teacher's from a uniform relation."""
    return row["kl"] / row["kl_uniform"] if row["kl_uniform"] else math.inf


def agreement(results: Results) -> list[str]:
    """Of relations: at the pair that was distilled, the student beside every other network."""
    text = []
    students = list(dict.fromkeys(row["student"] for row in results.relations))
    for student in students:
        for pair in distilled(results, student):
            for relation in dict.fromkeys(row["relation"] for row in results.relations):
                there = {
                    row["student"]: row
                    for row in results.relations
                    if (row["relation"], row["teacher_block"], row["student_block"]) == (relation, *pair)
                }
                if student in there:
                    shown = {name: f"{row['kl']:.3g} nats, {relative(row):.0%}" for name, row in there.items()}
                    text.append(
                        f"At the distilled pair of {student} (teacher's block {pair[0]}, student's {pair[1]}) "
                        f"{relation} is this far from the teacher's, in nats and as a share of what a uniform relation "
                        f"would be: {listed(shown)}; "
                        f"{_extremes({name: row['kl'] for name, row in there.items()}, 'farthest', 'nearest')}."
                    )
    return text


def prefix_mass(results: Results) -> str:
    """The attention that patches give to CLS and its like; empty where there are none."""
    shares = {model["title"]: of_model(results, model["title"]) for model in results.models if model["prefix_tokens"]}
    mass = {title: f"{mean(rows, 'prefix_mass'):.1%}" for title, rows in shares.items()}
    return f"Of the attention of patches, CLS and other tokens that are no patches get {listed(mass)}." if mass else ""


def listed(values: Mapping[str, str]) -> str:
    """``a (1), b (2) and c (3)``."""
    return together([f"{name} ({value})" for name, value in values.items()])


def together(names: list[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _extremes(values: dict[str, float], most: str, least: str = "least") -> str:
    """Which have the greatest value and which the smallest; as one where all are the same."""
    high, low = max(values.values()), min(values.values())
    if high == low:
        return "there is no difference" if len(values) > 1 else "there is no other to compare it with"
    at = ([name for name, value in values.items() if value == end] for end in (high, low))
    return ", ".join(f"{word} in {together(names)}" for word, names in zip((most, least), at, strict=True))
