"""What `make test-newest` tells, of rows, versions and calls made up here."""

from __future__ import annotations

import warnings
from collections import Counter
from types import SimpleNamespace

import pytest

from tests import newest

PAGE = "| 1 | a guess | the truth | timm 1 | - | `tests/behaviours/test_a.py::test_b` |\n| 2 | - | - | - | - | `x` |\n"


def test_moved__names_the_rows_of_failed_tests() -> None:
    assert newest.moved(["tests/behaviours/test_a.py::test_b", "tests/c.py::test_d"], PAGE) == [PAGE.splitlines()[0]]


def test_changed__compares_with_what_is_installed() -> None:
    own = newest.metadata.version("pytest")
    assert newest.changed(f"pytest=={own}\n") == []
    assert newest.changed("pytest==0.1\nnowhere==2\n") == [f"pytest 0.1 -> {own}", "nowhere 2 -> not installed"]


def test_warn__keeps_what_a_line_of_ours_led_to(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: Counter[str] = Counter()
    monkeypatch.setattr(newest, "deprecated", seen)
    library = {"warn": newest.warn}
    exec(compile("def old():\n    warn('old() will go', FutureWarning, 2)", "library.py", "exec"), library)
    ours = SimpleNamespace(filename=f"{newest.OURS}/made_up.py")
    called = {"old": library["old"]}
    between = {"old": library["old"]}
    exec(compile("def use():\n    old()", "/packages/between/use.py", "exec"), between)
    called["use"] = between["use"]
    exec(compile("\n\ndef call():\n    old()\n    use()", ours.filename, "exec"), called)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        called["call"]()
        library["old"]()
    assert dict(seen) == {
        "tinymim/made_up.py:4: FutureWarning: old() will go": 1,
        "tinymim/made_up.py:5, by way of packages/between/use.py: FutureWarning: old() will go": 1,
    }
    assert [warning.filename for warning in caught] == [ours.filename, "/packages/between/use.py", __file__]
