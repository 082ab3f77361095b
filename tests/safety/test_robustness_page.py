"""The table of the kinds of faults found in use has each kind, and the inputs that tests give it."""

import re
from pathlib import Path

import pytest

from tests import robustness


def test_kinds__are_counted_from_the_tests(request: pytest.FixtureRequest) -> None:
    nodeids = [item.nodeid for item in request.session.items]
    if missing := robustness.files() - {robustness.place(nodeid).partition("::")[0] for nodeid in nodeids}:
        pytest.skip(f"a part of the tests was asked for, without {min(missing)}")
    counted, rows = robustness.counts(nodeids), robustness.written(Path(robustness.DATA).read_text())
    told = {kind: int(number) for kind, number in re.findall(r"^\| (\d\. .*?) \| (\d+) or more", rows, re.MULTILINE)}
    assert {kind for kind in counted if counted[kind] < told[kind]} == set(), "`python -m tests.robustness` counts anew"
    assert rows == robustness.table(told)  # each kind, and its words
