"""Weights of others, the checksum beside them, and what a server answers: no traceback, whatever is in them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.conftest import tiny
from tinymim import files
from tinymim.errors import TinymimError
from tinymim.export import source
from tinymim.safety import escaping
from tinymim.teachers import download, infer_architecture, record_schemas, weights
from tinymim.vit.backbone import Backbone

TABLE = "blocks.0.attn.relative_position_bias_table"


@pytest.mark.parametrize("record", [torch.zeros(3), [torch.zeros(3)], {"backbone": torch.zeros(2)}, b"x", 2**70])
def test_record__of_a_checkpoint_is_plain_data(record: Any, tmp_path: Path) -> None:
    torch.save({"state_dict": {"x": torch.zeros(2)}, "tinymim": record}, tmp_path / "k.ckpt")
    with pytest.raises(TinymimError, match=r"the record of .*k\.ckpt") as caught:
        weights.read(tmp_path / "k.ckpt")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        *((TABLE, shape) for shape in [(3,), (), (2, 3), (0, 3), (9, 0), (9, 3, 1)]),
        *(("pos_embed", shape) for shape in [(192,), (), (17, 192), (1, 17), (1, 0, 192), (1, 17, 0), (2, 17, 192)]),
    ],
)
def test_positions__of_another_shape_are_named(key: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    state = {**Backbone(tiny(12, 3)).vit.state_dict(), key: torch.zeros(shape)}
    save_file(state, tmp_path / "f.safetensors")
    with pytest.raises(TinymimError) as caught:
        infer_architecture.card(tmp_path / "f.safetensors", weights.read(tmp_path / "f.safetensors"))
    assert key in str(caught.value)
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize("name", ["x" * 100_000, f"blocks.{'9' * 5000}.attn.qkv.weight"])
def test_names__of_tensors_are_short(name: str, tmp_path: Path) -> None:
    save_file({name: torch.zeros(1)}, tmp_path / "f.safetensors")
    torch.save({name: torch.zeros(1)}, tmp_path / "f.pth")
    for file in ("f.safetensors", "f.pth"):
        with pytest.raises(TinymimError, match="letters, and 500 are taken"):
            weights.read(tmp_path / file)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_classes__are_named_where_each_has_a_name(count: int) -> None:
    backbone = SimpleNamespace(classes=3)
    names = [str(number) for number in range(count)]
    known = source.Source("", backbone, None, {"classes": names}, None).classes  # type: ignore[arg-type]
    assert known == (names if count == 3 else None)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"", b"0" * 10_000_000])
def test_checksum__that_is_none(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    files.checksum_beside(path).write_bytes(content)
    with pytest.raises(TinymimError, match=r"x\.safetensors\.sha256 beside it says another"):
        files.noted(path, "0" * 64)


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    """A server that says the length that it is asked for, and sends four bytes."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", self.path[1:])
            self.end_headers()
            self.wfile.write(b"four")

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.mark.parametrize("length", ["abc", "-1", "1e9", "9" * 5000, "4"])
def test_download__whatever_length_the_server_says(length: str, server: HTTPServer, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{server.server_port}/{length}"
    download.download(url, tmp_path / "x.pth")
    assert (tmp_path / "x.pth").read_bytes() == b"four"


def test_address__is_one_of_the_network_and_shown_without_secrets(tmp_path: Path) -> None:
    assert escaping.address("https://me:secret@host/a/b.pth?token=secret#secret") == "https://...@host/a/b.pth?..."
    assert escaping.address("https://host/a@b.pth") == "https://host/a@b.pth"
    with pytest.raises(TinymimError) as caught:
        download.download("http://me:secret@127.0.0.1:9/x?token=secret", tmp_path / "x.pth")
    assert "secret" not in str(caught.value)
    with pytest.raises(TinymimError, match="an address, such as https://host/file"):
        record_schemas.fit({**CARD, "url": "file:///etc/passwd"}, record_schemas.CardFields, "card")


CARD = {
    "name": "a",
    "architecture": {"arch": "vit_tiny_patch16_224"},
    "file": "a.pth",
    **dict.fromkeys(("licence", "citation", "source"), "x"),
}
