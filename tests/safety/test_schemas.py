"""Whatever stands in a file of others: it is read, or refused in a few words, soon and in little memory."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.safety import places
from tinymim.config import recipe
from tinymim.errors import TinymimError
from tinymim.experiments import chain, state, study
from tinymim.experiments import settings as chosen
from tinymim.report import runs
from tinymim.safety import text
from tinymim.scaling import table
from tinymim.teacher_cache.storage import entries
from tinymim.teachers import card, infer_architecture, record_schemas
from tinymim.training import inspection

LONGEST, BYTES = 4096, 300 << 20
"""Of a text; memory that it may take."""

Read = Callable[[Path, str], Any]


def _put(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    return path


def _run_folder(folder: Path, name: str, content: str) -> Any:
    _put(folder / "config.yaml", yaml.safe_dump(places.RECIPE))
    _put(folder / name, content)
    read = runs.read(folder)
    return read.state, read.metrics, read.data


def _chain_state(folder: Path, content: str) -> Any:
    _put(folder / state.NAME, content)
    return state.load(folder)


def _config(folder: Path, content: str) -> Any:
    return infer_architecture.beside(_put(folder / "config.json", content).parent / "model.safetensors")


KINDS: dict[str, tuple[Any, Read]] = {
    "card": (places.CARD, lambda folder, t: card.read(_put(folder / "c.yaml", t))),
    "config.json": (places.CONFIG, _config),
    "record": ({}, lambda folder, t: record_schemas.record(text.json_data(t, "record"), "record")),
    "captured recipe": (places.RECIPE, lambda folder, t: inspection.checked(t, "recipe")),
    "saved recipe": (places.RECIPE, lambda folder, t: recipe.resolve(["--config", str(_put(folder / "r.yaml", t))])),
    "results": (places.RESULTS, lambda folder, t: _run_folder(folder, "results.json", t)),
    "environment": (places.ENVIRONMENT, lambda folder, t: _run_folder(folder, "environment.json", t)),
    "chain": (places.CHAIN, lambda folder, t: chain.load(str(_put(folder / "chain.yaml", t)))),
    "chain.json": ({"form": 1, "launch": "", "stages": {}, "chain": {"name": "c", "stages": {}}}, _chain_state),
    "study": (places.STUDY, lambda folder, t: study.load(str(_put(folder / "study.yaml", t)))),
    "settings": (places.SETTINGS, lambda folder, t: chosen.load(str(_put(folder / "settings.yaml", t)))),
    "cache key": (places.KEY, lambda folder, t: entries(_put(folder / "0_1/key.json", t).parents[1])),
    "table": (places.TABLE, lambda folder, t: table.read(_put(folder / "table.csv", t))),
}  # fmt: skip

ODD = [2**64, -1, 1e308, "${oc.env:NO_SUCH_KEY}", "${a.b}", "../x", "/", "\x1b]0;x\x07", "\u200b", "=1+1", "digits_mae"]
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=40), st.sampled_from(ODD))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=4),
    max_leaves=12,
)
SIGNS = "&*!{}[]:,-?|>'\"%@#\n ~<=0a1.\t\\"
WORDS = ["- ", ": ", "&a ", "*a", "<<: ", "!!int ", "!!set ", "? ", "0x", "2001-01-01"]
YAML = st.lists(st.sampled_from([*SIGNS, *WORDS]) | st.text(max_size=3), max_size=60).map("".join)


@st.composite
def _texts(draw: st.DrawFn, honest: Any) -> str:
    """YAML or JSON of anything; an honest file with anything in one of its places; or no such text at all."""
    kind = draw(st.integers(0, 2))
    if kind == 0:
        return draw(YAML)[:LONGEST]
    value = draw(VALUES)
    if kind == 1:
        value = places.planted(honest, draw(st.sampled_from(list(places.nodes(honest)))), value)
    try:
        return json.dumps(value)[:LONGEST]
    except (TypeError, ValueError):
        return str(value)[:LONGEST]


@pytest.mark.parametrize("name", KINDS)
def test_texts__are_read_or_refused_in_a_few_words(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest, read = KINDS[name]
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "kept"
    folder.mkdir()
    (folder / "model.safetensors").touch()

    def tried(content: str) -> None:
        try:
            read(folder, content)
        except TinymimError as error:
            str(error).encode()

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True)
    @given(content=_texts(honest))
    def check(content: str) -> None:
        begun = time.process_time()
        tracemalloc.start()
        try:
            tried(content)
            assert tracemalloc.get_traced_memory()[1] < BYTES
        finally:
            tracemalloc.stop()
        assert time.process_time() - begun < places.SECONDS

    check()


BOMBS = {
    "aliases of aliases": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"b{n}: &b{n} [{','.join([f'*b{n - 1}' if n else '*a'] * 9)}]\n" for n in range(9)),
    "merges of merges": "a: &a {x: 1, y: 2}\n"
    + "".join(f"b{n}: &b{n} {{<<: [{','.join([f'*b{n - 1}' if n else '*a'] * 9)}]}}\n" for n in range(9)),
    "aliases of a long text": f"a: &a '\u200b{'x' * 100_000}'\nb: [{','.join(['*a'] * 9_000)}]",
    "depth": "[" * 2000,
    "a ring": "&a {b: *a}",
    "digits": "a: " + "9" * 4000,
}


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("name", ["card", "captured recipe", "saved recipe", "chain", "study", "settings"])
def test_bombs__are_refused(name: str, bomb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if (name, bomb) == ("saved recipe", "digits"):
        return  # a long number is no more than that in one's own recipe
    begun = time.process_time()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TinymimError) as caught:
        KINDS[name][1](tmp_path, BOMBS[bomb])
    assert "\n" not in str(caught.value)
    assert "omegaconf" not in str(caught.value).lower()
    assert time.process_time() - begun < places.SECONDS


def test_references_of_references__are_counted_before_they_are_written_out(tmp_path: Path) -> None:
    lines = ["a0: xxxxxxxxxx", *(f"a{n}: ${{a{n - 1}}}${{.a{n - 1}}}" for n in range(1, 60))]
    with pytest.raises(TinymimError, match="written out, are"):
        KINDS["saved recipe"][1](tmp_path, "\n".join(lines))


def test_plain__is_what_it_was() -> None:
    value = {"a": [1, 2.5, True, None, "text\n", {"b": (1, 2)}]}
    assert text.plain(value, "it") == {"a": [1, 2.5, True, None, "text\n", {"b": [1, 2]}]}
    for odd in ({"a": torch.zeros(1)}, {"a": {1}}, {(1,): 2}, [2**70]):
        with pytest.raises(TinymimError, match="it has"):
            text.plain(odd, "it")


def test_dates__are_texts() -> None:
    assert text.yaml_data("a: 2001-01-01", "it") == {"a": "2001-01-01"}
