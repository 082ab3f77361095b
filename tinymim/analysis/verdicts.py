"""What "Revealing the Dark Secrets of Masked Image Modeling" (arXiv 2205.13543) found of networks, and what is found of
two here: one that learnt by masked image modelling, and one by labels.

The paper's figures are of ViT-B, and its findings are in words; each is put into numbers here, as its text says.
"""

from __future__ import annotations

from tinymim.analysis import findings
from tinymim.analysis.results import Results
from tinymim.errors import TinymimError
from tinymim.report.finding import AGREES, DISAGREES, OPEN, Finding, together

LAST = "in the last third of the blocks"


def answers(results: Results, mim: str, supervised: str) -> list[Finding]:
    """Of what was measured.

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
    found = []
    if results.heads:
        found += _heads(findings.ends(results), mim, supervised)
    if results.cka:
        found += _likeness(results, mim, supervised)
    return found


def _heads(ends: dict[str, findings.Ends], mim: str, supervised: str) -> list[Finding]:
    a, b = ends[mim], ends[supervised]
    change, other = a.change("distance_ratio"), b.change("distance_ratio")
    local = (a.local(), b.local())
    spread = (a.spread(), b.spread())
    kept = (a.kept(), b.kept())
    return [
        Finding(
            "Does attention reach farther with depth?",
            "In supervised networks it does; in masked ones it falls slightly.",
            f"From the first third to the last, as a share of uniform attention's: {mim} {change:+.2f}, {supervised} "
            f"{other:+.2f}.",
            together([_verdict(other), _verdict(-change)]),
            "1",
        ),
        Finding(
            "Are there local heads in the last blocks?",
            "Masked networks mix local and global heads in every block, supervised ones are global at the top.",
            f"Heads that look less than half as far as uniform attention, {LAST}: {mim} {local[0]:.0%}, {supervised} "
            f"{local[1]:.0%}.",
            _verdict(local[0] - local[1]),
            "1",
        ),
        Finding(
            "Are the last blocks' heads focused and broad side by side?",
            "Masked networks keep a wide spread of entropies; supervised heads are nearly all broad at the top.",
            f"Standard deviation of the entropies of a block's heads {LAST}, as a share of uniform attention's: {mim} "
            f"{spread[0]:.1%}, {supervised} {spread[1]:.1%}.",
            _verdict(spread[0] - spread[1]),
            "1",
        ),
        Finding(
            "Do the heads of the last blocks differ?",
            "In masked networks as much as below; in supervised ones hardly, in the last three of twelve blocks.",
            f"KL between heads {LAST}, as a share of the greatest of any block: {mim} {kept[0]:.0%}, {supervised} "
            f"{kept[1]:.0%}.",
            _verdict(kept[0] - kept[1]),
            "1",
        ),
    ]


def _likeness(results: Results, mim: str, supervised: str) -> list[Finding]:
    a, b = (findings.least_alike(results, title) for title in (mim, supervised))
    here = "CKA is not defined for one of them."
    if a and b:
        here = f"Least CKA of two blocks: {mim} {a['cka']:.2f}, {supervised} {b['cka']:.2f}."
    return [
        Finding(
            "Do a network's blocks resemble each other?",
            "Masked networks' do, from about 0.9 to 1; supervised ones differ, from about 0.5 to 1.",
            here,
            together([_verdict(a["cka"] - findings.ALIKE), _verdict(a["cka"] - b["cka"])]) if a and b else OPEN,
            "1",
        )
    ]


def _verdict(difference: float) -> str:
    """Of a difference that the paper has above 0; one that does not show in two decimals tells nothing."""
    if abs(difference) < 0.005 or difference != difference:
        return OPEN
    return AGREES if difference > 0 else DISAGREES
