"""Names near a misspelt one, for the end of a message: the one place that says what is near."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

LIKE = 0.75
"""Least likeness, in [0, 1]: a letter too many, missing or wrong in four; ``train`` and ``chain`` have 0.6."""

AS_NEAR = 0.15
"""Likeness that others may fall short of the best one's."""

SHORTEST = 3
"""Letters with which a name may be begun; fewer must be a whole part of it."""

MOST = 8
"""Wrong names that are told at once."""


def nearest(word: str, words: Iterable[str], most: int = 3) -> list[str]:
    """The names that a misspelt word may have meant, best first; none that is only the least far.

    These differ from it in few letters, in their order, in case or in signs between them, or have it as a part:
    ``epochs`` is near ``max_epochs``.

    Args:
        word: that is none of ``words``.
        words: the names there are.
        most: so many at most.
    """
    given = _folded(word)
    ranked = {name: _likeness(given, _folded(name)) for name in dict.fromkeys(map(str, words))}
    least = max(LIKE, max(ranked.values(), default=0) - AS_NEAR)
    matches = [name for name, likeness in ranked.items() if likeness >= least]
    return sorted(matches, key=lambda name: (-ranked[name], len(name)))[:most]


def near(word: str, words: Iterable[str]) -> str:
    """The end of a message on a ``word`` that is none of ``words``: a near one, or all there are."""
    known = list(dict.fromkeys(map(str, words)))
    if names := meant(word, known):
        return f"; did you mean {names}?"
    return f"; there {'is' if len(known) == 1 else 'are'} {', '.join(sorted(known))}"


def meant(word: str, words: Iterable[str]) -> str:
    """The nearest name to a ``word`` that is none of ``words``, or the first two that are as near as each other, in
    their order: ``base_lr or min_lr`` of ``lr``. Empty where none is near."""
    known = list(dict.fromkeys(map(str, words)))
    names = nearest(word, known, len(known))
    likeness = [_likeness(_folded(word), _folded(name)) for name in names]
    alike = [name for name, its in zip(names, likeness, strict=True) if its == likeness[0]]
    return " or ".join(sorted(alike, key=known.index)[:2])


def strangers(words: Iterable[str], known: Iterable[str]) -> str:
    """The ``words``, which are none of ``known``, in quotes, each with the near one; or all there are."""
    wrong, names = list(words), list(known)
    more, wrong = len(wrong) - MOST, wrong[:MOST]
    if len(wrong) == 1:
        return f"{wrong[0]!r}{near(wrong[0], names)}"
    meant = {word: nearest(word, names, 1) for word in wrong}
    told = ", ".join(repr(word) + (f" (did you mean {near[0]}?)" if near else "") for word, near in meant.items())
    told += f" and {more} more" if more > 0 else ""
    return told if all(meant.values()) else f"{told}; there are {', '.join(sorted(names))}"


def _folded(name: str) -> str:
    """A name in small letters, its parts joined by ``_``: ``DigitsData`` is ``digits_data``."""
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", str(name)[:200]).lower()).strip("_")


def _likeness(word: str, name: str) -> float:
    """Likeness of two folded names in [0, 1]; :data:`LIKE` at least where one has the other as a part."""
    short, long = sorted((word, name), key=len)
    whole = f"_{short}_" in f"_{long}_"
    begun = len(short) >= SHORTEST and f"_{short}" in f"_{long}"
    # a name within a longer word is near if it is most of it, as `distill` of `distillation`
    part = (whole or begun) and short and (short == word or 2 * len(short) >= len(long))
    headed = begun and long.startswith(short) and short == word
    turned = len(word) >= SHORTEST and sorted(word) == sorted(name)
    matcher = difflib.SequenceMatcher(None, name, word)
    if not part and not turned and matcher.real_quick_ratio() < LIKE:
        return 0.0
    return max(matcher.ratio(), LIKE if part else 0.0, 0.9 if turned or headed else 0.0)
