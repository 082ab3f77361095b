"""Files that are something else than weights, named by what they are."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from tinymim.errors import TinymimError
from tinymim.safety import signatures
from tinymim.teachers import locate, weights


def zipped(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/"), content)
    return stream.getvalue()


def tarred() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.pth"))
    return stream.getvalue()


def arrays(*, many: bool) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, a=np.zeros(2)) if many else np.save(stream, np.zeros(2))
    return stream.getvalue()


WEIGHTS = io.BytesIO()
torch.save({"blocks.0.norm1.weight": torch.zeros(3)}, WEIGHTS)

FILES = {
    "pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 9\n",
        "a Git LFS pointer.*git lfs pull",
    ),
    "annex": (b"/annex/objects/SHA256E-s12--ab.pth\n", "a git-annex pointer.*git annex get"),
    "page": (b"\n <!DOCTYPE html><html>404</html>", "a web page or an error of a server"),
    "error": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "a web page or an error of a server"),
    "gzip": (gzip.compress(WEIGHTS.getvalue(), mtime=0), "compressed with gzip; .*gunzip --keep"),
    "bzip2": (bz2.compress(b"x"), "compressed with bzip2"),
    "xz": (lzma.compress(b"x"), "compressed with xz"),
    "zstd": (b"\x28\xb5\x2f\xfd\0\0", "compressed with zstd"),
    "tar": (tarred(), "a tar archive; .*tar -xf"),
    "zip": (zipped(models__a_pth=WEIGHTS.getvalue()), "a zip archive of models/a_pth; unpack it"),
    "script": (zipped(m__constants_pkl=b"", **{"m/constants.pkl": b"", "m/data.pkl": b""}), "a program of TorchScript"),
    "program": (zipped(**{"m/archive_format": b"pt2", "m/models/model.json": b""}), "a program of torch.export"),
    "npz": (arrays(many=True), "arrays of NumPy"),
    "npy": (arrays(many=False), "an array of NumPy"),
    "keras": (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    "onnx": (b"\x08\x0a\x12\x07pytorch\x1a\x03", "an ONNX graph"),
    "image": (b"\x89PNG\r\n\x1a\n", "an image"),
    "json": (b'{"error": "Repository not found"}', "a text, which begins .*Repository not found"),
    "empty": (b"", "empty: it has no bytes"),
}


@pytest.mark.parametrize("ending", [".pth", ".safetensors", ".ckpt"])
@pytest.mark.parametrize("name", FILES)
def test_read__names_what_is_no_file_of_weights(name: str, ending: str, tmp_path: Path) -> None:
    content, words = FILES[name]
    path = tmp_path / f"{name}{ending}"
    path.write_bytes(content)
    with pytest.raises(TinymimError, match=rf"^{path} is {words}") as caught:
        weights.read(path)
    assert not {"delete", "remove", "rm"} & {*str(caught.value).split()}
    assert path.read_bytes() == content


@pytest.mark.parametrize(("ending", "words"), [(".gz", "compressed with gzip"), (".txt", "no file of weights")])
def test_locate__other_endings(ending: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.pth{ending}"
    path.write_bytes(FILES["gzip"][0] if ending == ".gz" else bytes(range(256)))
    with pytest.raises(TinymimError, match=rf"teacher: {path} is {words}"):
        locate.locate(str(path))


def test_named__is_none_of_weights_and_of_noise(tmp_path: Path) -> None:
    for content in (WEIGHTS.getvalue(), bytes(range(256)) * 9, b"\x80\x02}q\0."):
        (tmp_path / "x").write_bytes(content)
        assert signatures.named(tmp_path / "x") is None
    assert signatures.named(tmp_path / "absent") is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b"../.git/annex/objects/x", "git annex get"),
        (b"\n <!DOCTYPE html><html>404", "web page"),
        (b"<HTML>", "web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied', "error of a server"),
        (b'<?xml version="1.0"?>\n<svg xmlns="">', "an SVG drawing; draw it as PNG"),
        (b'{"message": "Not Found"}', "a text, which begins .*Not Found"),
        (gzip.compress(b"x", mtime=0), "gunzip"),
        (lzma.compress(b"x"), "unxz"),
        (zipped(), "a zip archive; unpack it"),
        (zipped(a=b"b"), "a zip archive; unpack it"),
        (tarred(), "a tar archive; .*ShardsData"),
        (arrays(many=False), "an array of NumPy; write its images"),
        (b"PAR1\x15\x04", "HFData"),
        (b"\x00\x00\x00\x18ftypheic", "HEIC"),
        (b"\x00\x00\x00\x18ftypmp42", "video"),
        (b"%PDF-1.7", "pages"),
        (b"\xef\xbb\xbf<!DOCTYPE html>", "web page"),
        ("<html>".encode("utf-16"), "web page"),
        (b"\x1f\x9d\x90", "compressed with compress"),
        (b"%!PS-Adobe-3.0", "pages"),
        (bytes(128) + b"DICM" + bytes(400), "a DICOM"),
        (b"\x5c\1\0\0" + bytes(340) + b"n+1\0", "a NIfTI"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X", "a note of a desktop"),
        (b"SQLite format 3\0", "a database"),
        (b"\x7fELF\2\1", "a program"),
        (b"OggS\0\2", "a video"),
        (b"RIFF\x24\x08\0\0WAVE", "a sound"),
        (bytes(300) + b"\xffiso image", "$"),
        (bytes(600), "zeros"),
        ("Größe".encode()[:-1] + "ß".encode()[:1], "a text"),
        (b"\x89PNG\r\n\x1a\n", "$"),
        (b"", "$"),
        (b"\x01\x02\xfe\xff", "$"),
    ],
)
def test_form__of_what_stands_where_images_were_meant(content: bytes, words: str) -> None:
    assert re.match(rf".*{words}" if words != "$" else words, signatures.form(content))
