"""Texts of users in the encodings that editors, spreadsheets and PowerShell write, read by all readers alike."""

from __future__ import annotations

import codecs
import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.safety import test_schemas
from tinymim.data import tar_index
from tinymim.errors import TinymimError
from tinymim.safety import text

READ = [name for name in test_schemas.KINDS if name not in ("record", "captured recipe", "chain.json")]

MARKED = {
    "a mark of UTF-8": lambda content: codecs.BOM_UTF8 + content.encode(),
    "UTF-16": lambda content: codecs.BOM_UTF16_LE + content.encode("utf-16-le"),
    "UTF-16, high byte first": lambda content: codecs.BOM_UTF16_BE + content.encode("utf-16-be"),
    "UTF-32": lambda content: codecs.BOM_UTF32_LE + content.encode("utf-32-le"),
}
REFUSED = {
    "UTF-16 without a mark": (lambda content: content.encode("utf-16-le"), "holds NUL, as UTF-16 without its mark"),
    "Latin-1": (lambda content: b"# \xe9\n" + content.encode(), "byte 2 is no UTF-8 text; save it as UTF-8"),
    "half a UTF-16": (lambda content: codecs.BOM_UTF16_LE + b"x", "is no UTF-16 text; save it as UTF-8"),
}


@pytest.mark.parametrize("name", READ)
def test_texts__in_any_encoding(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest, read = test_schemas.KINDS[name]
    content = honest if isinstance(honest, str) else json.dumps(honest)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.safetensors").touch()

    def outcome(encode: Any) -> str:
        def put(path: Path, content: str) -> Path:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if path.name == "config.yaml" else encode(content))
            return path

        monkeypatch.setattr(test_schemas, "_put", put)
        try:
            return re.sub(r"0x[0-9a-f]+|used=[\d.]+", "", repr(read(tmp_path, content)))
        except TinymimError as error:
            return str(error)

    expected = outcome(str.encode)
    assert {outcome(encode) for encode in MARKED.values()} == {expected}
    if name not in ("results", "environment", "cache key", "config.json"):  # without which a run or folder is read
        for encode, words in REFUSED.values():
            assert words in outcome(encode)


@pytest.mark.parametrize("content", ['{"label": "ärger"}', "ärger"])
def test_labels__of_shards(content: str, tmp_path: Path) -> None:
    kind = "json" if content.startswith("{") else "cls"
    for encode in MARKED.values():
        with tarfile.open(tmp_path / "x.tar", "w") as tar:
            for ending, data in (("png", b"x"), (kind, encode(content))):
                member = tarfile.TarInfo(f"a.{ending}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        assert tar_index.read_index(tmp_path / "x.tar", "label").label.tolist() == ["ärger".encode()]


def test_decoded__keeps_what_is_no_mark() -> None:
    assert text.decoded(b"a\xef\xbb\xbf") == "a\ufeff"
    assert text.decoded(b"") == ""
