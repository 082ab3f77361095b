"""Verdicts on "Revealing the Dark Secrets of Masked Image Modeling" (arXiv 2205.13543), from a masked and a supervised
network.

The paper's figures are of ViT-B, and its findings are in words; each is put into numbers here, as its text says.
"""

from __future__ import annotations

import math

from pandas import DataFrame

from tinymim.analysis import findings
from tinymim.analysis.results import Results
from tinymim.errors import TinymimError
from tinymim.report.finding import AGREES, DISAGREES, OPEN, Finding, together

DISTANCE_HERE = (
    "From the first third to the last, as a share of uniform attention's: {mim} {a:+.2f}, {supervised} {b:+.2f}."
)
LOCAL_HERE = (
    "Heads that look less than half as far as uniform attention, in the last third of the blocks: {mim} {a:.0%}, "
    "{supervised} {b:.0%}."
)
SPREAD_HERE = (
    "Standard deviation of the entropies of a block's heads in the last third of the blocks, as a share of uniform "
    "attention's: {mim} {a:.1%}, {supervised} {b:.1%}."
)
KEPT_HERE = (
    "KL between heads in the last third of the blocks, as a share of the greatest of any block: {mim} {a:.0%}, "
    "{supervised} {b:.0%}."
)
CKA_HERE = "Least CKA of two blocks: {mim} {a:.2f}, {supervised} {b:.2f}."


def answers(results: Results, mim: str, supervised: str) -> list[Finding]:
    """The paper's findings beside what was measured.

    Args:
        results: of an analysis.
        mim: title of the network that learnt by masked image modelling.
        supervised: title of the one that learnt by labels.

    Raises:
        TinymimError: a title that is none of the analysis's.
    """
    for title in (mim, supervised):
        if title not in results.titles:
            raise TinymimError(f"analysis: no network {title!r}; there are {', '.join(results.titles)}")
    answered = []
    if len(results.heads):
        answered += _heads(findings.summary(results), mim, supervised)
    if len(results.cka):
        answered.append(_likeness(results, mim, supervised))
    return answered


def _heads(ends: DataFrame, mim: str, supervised: str) -> list[Finding]:
    change = ends["distance_ratio_last"] - ends["distance_ratio_first"]
    measures = {"change": change, "local": ends["local"], "spread": ends["spread"], "kept": ends["kept"]}
    names = {"mim": mim, "supervised": supervised}
    values = {name: {"a": column[mim], "b": column[supervised]} for name, column in measures.items()}
    more = {name: verdict(pair["a"] - pair["b"]) for name, pair in values.items()}
    return [
        Finding(
            "Does attention reach farther with depth?",
            "In supervised networks it does; in masked ones it falls slightly.",
            DISTANCE_HERE.format(**names, **values["change"]),
            together([verdict(change[supervised]), verdict(-change[mim])]),
            "1",
        ),
        Finding(
            "Are there local heads in the last blocks?",
            "Masked networks mix local and global heads in every block, supervised ones are global at the top.",
            LOCAL_HERE.format(**names, **values["local"]),
            more["local"],
            "1",
        ),
        Finding(
            "Are the last blocks' heads focused and broad side by side?",
            "Masked networks keep a wide spread of entropies; supervised heads are nearly all broad at the top.",
            SPREAD_HERE.format(**names, **values["spread"]),
            more["spread"],
            "1",
        ),
        Finding(
            "Do the heads of the last blocks differ?",
            "In masked networks as much as below; in supervised ones hardly, in the last three of twelve blocks.",
            KEPT_HERE.format(**names, **values["kept"]),
            more["kept"],
            "1",
        ),
    ]


def _likeness(results: Results, mim: str, supervised: str) -> Finding:
    a, b = (findings.least_alike(results, title) for title in (mim, supervised))
    here, said = "CKA is not defined for one of them.", OPEN
    if a is not None and b is not None:
        here = CKA_HERE.format(mim=mim, a=a.cka, supervised=supervised, b=b.cka)
        said = together([verdict(a.cka - findings.ALIKE), verdict(a.cka - b.cka)])
    return Finding(
        "Do a network's blocks resemble each other?",
        "Masked networks' do, from about 0.9 to 1; supervised ones differ, from about 0.5 to 1.",
        here,
        said,
        "1",
    )


def verdict(difference: float) -> str:
    """Whether a difference that the paper has above 0 is so; one that does not show in two decimals tells nothing."""
    if math.isnan(difference) or abs(difference) < 0.005:
        return OPEN
    return AGREES if difference > 0 else DISAGREES
