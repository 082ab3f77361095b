"""Verdicts on "Revealing the Dark Secrets of Masked Image Modeling" (arXiv 2205.13543), from a masked and a supervised
network.

The paper's figures are of ViT-B, and its findings are in words; each is put into numbers here, as its text says.
"""

from __future__ import annotations

import math

from pandas import DataFrame

from tinymim.analysis import findings
from tinymim.analysis.results import AnalysisResults
from tinymim.errors import TinymimError
from tinymim.near_names import near
from tinymim.report.finding import AGREES, DISAGREES, OPEN, Finding, together

LAST = "in the last third of the blocks"

HEADS = {
    "change": (
        "Does attention reach farther with depth?",
        "In supervised networks it does; in masked ones it falls slightly.",
        "From the first third to the last, as a share of uniform attention's: {mim} {a:+.2f}, {supervised} {b:+.2f}.",
    ),
    "local": (
        "Are there local heads in the last blocks?",
        "Masked networks mix local and global heads in every block, supervised ones are global at the top.",
        f"Heads that look less than half as far as uniform attention, {LAST}: {{mim}} {{a:.0%}}, {{supervised}} "
        "{b:.0%}.",
    ),
    "spread": (
        "Are the last blocks' heads focused and broad side by side?",
        "Masked networks keep a wide spread of entropies; supervised heads are nearly all broad at the top.",
        f"Standard deviation of the entropies of a block's heads {LAST}, as a share of uniform attention's: {{mim}} "
        "{a:.1%}, {supervised} {b:.1%}.",
    ),
    "kept": (
        "Do the heads of the last blocks differ?",
        "In masked networks as much as below; in supervised ones hardly, in the last three of twelve blocks.",
        f"KL between heads {LAST}, as a share of the greatest of any block: {{mim}} {{a:.0%}}, {{supervised}} "
        "{b:.0%}.",
    ),
}
"""Measures of heads: the question, the paper's answer, ours of the masked network (a) and the supervised one (b)."""

CKA_HERE = "Least CKA of two blocks: {mim} {a:.2f}, {supervised} {b:.2f}."


def answers(results: AnalysisResults, mim: str, supervised: str) -> list[Finding]:
    """The paper's findings beside what was measured of two networks, by their titles: ``mim`` learnt by masked image
    modelling, ``supervised`` by labels.

    Raises:
        TinymimError: a title that is none of the analysis's.
    """
    for title in (mim, supervised):
        if title not in results.titles:
            raise TinymimError(f"analysis: no network {title!r}{near(title, results.titles)}")
    answered = _heads(findings.summary(results), mim, supervised) if len(results.heads) else []
    return [*answered, _likeness(results, mim, supervised)] if len(results.cka) else answered


def _heads(ends: DataFrame, mim: str, supervised: str) -> list[Finding]:
    measured = ends.assign(change=ends["distance_ratio_last"] - ends["distance_ratio_first"])
    answered = []
    for measure, (question, paper, here) in HEADS.items():
        a, b = measured[measure][mim], measured[measure][supervised]
        agrees = together([verdict(b), verdict(-a)]) if measure == "change" else verdict(a - b)
        answered.append(Finding(question, paper, here.format(mim=mim, supervised=supervised, a=a, b=b), agrees, "1"))
    return answered


def _likeness(results: AnalysisResults, mim: str, supervised: str) -> Finding:
    a, b = (findings.least_alike(results, title) for title in (mim, supervised))
    here, agrees = "CKA is not defined for one of them.", OPEN
    if a is not None and b is not None:
        here = CKA_HERE.format(mim=mim, a=a.cka, supervised=supervised, b=b.cka)
        agrees = together([verdict(a.cka - findings.ALIKE), verdict(a.cka - b.cka)])
    return Finding(
        "Do a network's blocks resemble each other?",
        "Masked networks' do, from about 0.9 to 1; supervised ones differ, from about 0.5 to 1.",
        here,
        agrees,
        "1",
    )


def verdict(difference: float) -> str:
    """Whether a difference that the paper has above 0 is so; one that does not show in two decimals tells nothing."""
    if math.isnan(difference) or abs(difference) < 0.005:
        return OPEN
    return AGREES if difference > 0 else DISAGREES
