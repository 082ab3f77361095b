"""What studies and chains share."""

from __future__ import annotations

from tinymim.config import spec


def test_differences__names_what_changed_came_and_went() -> None:
    old = {"a": {"x": 1, "y": [1]}, "b": 2}
    assert spec.differences(old, old) == []
    assert spec.differences(old, {"a": {"x": 2, "y": [1], "z": 3}}) == [
        "a.x: 1, now 2",
        'a.z: "nothing", now 3',
        'b: 2, now "nothing"',
    ]
