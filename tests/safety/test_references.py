"""References of recipes: values of the environment are not shown, and references to references are counted."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.safety.places import SECONDS
from tinymim.config import recipe, references
from tinymim.errors import TinymimError


@pytest.mark.parametrize(
    "value", ["postgres://user:hunter2@host/db", "/tmp//hunter2/./x/", "/tmp/a/../hunter2", "hunter2//"]
)
def test_hidden__in_paths_too(value: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KEY", value)
    found = list(references.places({"teacher": "${oc.env:KEY}/x.safetensors"}))
    for shown in (value, f"{value}/x", str(Path(value)), str(Path(value) / "x"), str(Path(f"{value}/x").resolve())):
        said = references.hidden(f"no weights file at {shown}", found)
        assert "hunter2" not in said
        assert "${oc.env:KEY}" in said
    results = {"weights": f"weights t: {Path(value) / 'x'}, sha256 0", "steps": [1, 2.5, None]}
    assert "hunter2" not in str(references.without_values(results, found))


def test_hidden__a_link_that_was_followed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "hunter2").mkdir()
    (tmp_path / "link").symlink_to("hunter2")
    monkeypatch.setenv("KEY", str(tmp_path / "link"))
    found = list(references.places("${oc.env:KEY}/x"))
    assert "hunter2" not in references.hidden(f"at {(tmp_path / 'link/x').resolve()}", found)


def _resolved(tmp_path: Path, content: Any) -> dict[str, Any]:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(content))
    return recipe.resolve(["--config", str(path)])[0]


def _grown(form: str, name: str = "a") -> dict[str, Any]:
    """Ten references to ten references, seven times."""
    levels = {f"{name}{n}": form.replace("@", f"vars.{name}{n - 1}") * 10 for n in range(1, 8)}
    return {"vars": {f"{name}0": "x" * 100, **levels, "k": "a0"}}


THROUGH = {
    "a0": {"x": "y" * 100},
    **{f"r{n}": f"${{vars.a{n}}}" for n in range(6)},
    **{f"a{n + 1}": {"x": f"${{vars.r{n}.x}}" * 10} for n in range(6)},
}


@pytest.mark.parametrize(
    "content",
    [
        *(_grown(form) for form in ("${@}", "${ @ }", "${oc.select:@}", "${oc.select:none,${@}}", "${oc.env:NO,${@}}")),
        *(_grown(form) for form in ("${oc.select:'@'}", "${.${k}}", "${oc.create:${@}}", "${oc.decode:${@}}")),
        *(_grown("${@}", name) for name in ("a-", "", "é")),
        {"vars": THROUGH},
        {"vars": {f"a{n}": f"${{vars.a{n - 1}}}" * 10 if n else "x" for n in range(6)}},
        {"a": "${b}", "b": "${a}${a}"},
    ],
)
def test_references__to_references_are_counted_whatever_their_form(content: Any, tmp_path: Path) -> None:
    begun = time.process_time()
    with pytest.raises(TinymimError, match=r"written out, are|a reference is \$|refers to itself") as caught:
        _resolved(tmp_path, content)
    assert time.process_time() - begun < SECONDS
    assert "\n" not in str(caught.value)


def test_values__as_many_as_a_recipe_takes(tmp_path: Path) -> None:
    with pytest.raises(TinymimError, match=r"r.yaml cannot be read: it has more than 10,000 values"):
        _resolved(tmp_path, {"pairs": ["qk"] * 10_000})


def test_references__of_honest_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCH", "8")
    content = {
        "a": {"b": 1, "c": "${.b}", "d": "${..e}", "f": ["${a.b}", "${a.f[0]}", "${a.f.1}", "${oc.select:none,5}"]},
        "e": {"x": "${oc.decode:${oc.env:BATCH}}", "y": "${ a.b }-${a.f.0}", "z": "${oc.env:NONE,${a.b}}"},
        "v": {"b": "${oc.env:BATCH}", "c": "${oc.decode:${v.b}}", "e-f": 3, "0": "${v.e-f}", "1": "${e.x}"},
    }
    found = _resolved(tmp_path, content)
    assert found["a"]["f"] == [1, 1, 1, 5]
    assert found["a"]["d"] == found["e"] == {"x": "${oc.decode:${oc.env:BATCH}}", "y": "1-1", "z": "${oc.env:NONE,1}"}
    assert found["v"]["c"] == found["v"]["1"] == "${oc.decode:${oc.env:BATCH}}"
    assert found["v"]["0"] == 3
