"""Taps as a program gives them: a list, of taps or of pairs."""

from __future__ import annotations

from typing import Any

import pytest

from tinymim.errors import TinymimError
from tinymim.vit.taps import Tap, as_taps


@pytest.mark.parametrize("given", [[Tap(5, "v")], [(5, "v")], {(5, "v"), Tap(5, "v")}, iter([Tap(5, "v")])])
def test_as_taps__pairs_are_taps(given: Any) -> None:
    (tap,) = as_taps(given)
    assert (tap.block, tap.name) == (5, "v")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (Tap(5, "v"), r"^taps: Tap\(block=5, name='v'\) is no list; give one, such as \[tinymim.Tap\(6, 'q'\)\]"),
        ("v", "^taps: 'v' is no list"),
        (5, "^taps: 5 is no list"),
        (["v"], "^taps: 'v' is no number of a block with a name"),
        ([Tap("6", "q")], "^taps: Tap.block='6'.* is no number of a block with a name"),  # type: ignore[arg-type]
        ([(5, "v", 1)], "is no number of a block with a name"),
    ],
)
def test_as_taps__of_other_types(given: Any, says: str) -> None:
    with pytest.raises(TinymimError, match=says):
        as_taps(given)
