"""Names of files that are something else than they were taken for, by their first bytes, with what to do about each."""

from __future__ import annotations

import re
import tarfile
import zipfile
from pathlib import Path

from tinymim.errors import first_few
from tinymim.safety.text import brief, printable

LOOKED_AT = 1024  # bytes

SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (
        rb"version https://(git-lfs\.github\.com|hawser\.github\.com)/",
        "a Git LFS pointer, not the file that it stands for; `git lfs pull` in its repository fetches that",
    ),
    (rb"\.{0,2}/?[\w./-]*/?annex/objects/", "a git-annex pointer, not the file that it stands for; `git annex get` it"),
    (
        rb"(\xef\xbb\xbf)?\s*<(!doctype|html|head|body|\?xml|!--)",
        "a web page or an error of a server, not the file; fetch that by its own address, logged in if need be",
    ),
    (rb"\x1f\x8b", "compressed with gzip; unpack it with `gunzip --keep`"),
    (rb"BZh[1-9]", "compressed with bzip2; unpack it with `bunzip2 --keep`"),
    (rb"\xfd7zXZ\0", "compressed with xz; unpack it with `unxz --keep`"),
    (rb"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it with `unzstd --keep`"),
    (rb"\x04\x22\x4d\x18", "compressed with lz4; unpack it with `unlz4`"),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it, and name the file in it"),
    (rb"Rar!\x1a\x07", "a RAR archive; unpack it, and name the file in it"),
    (rb"\x89HDF\r\n", "an HDF5 file, as Keras writes them; have it saved by PyTorch, or as safetensors"),
    (rb"GGUF", "a GGUF file; have the weights that it was made from, in PyTorch's form or as safetensors"),
    (rb"....TFL3", "a TensorFlow Lite graph; have the weights that it was made from"),
    (rb"\x08[\x03-\x20]\x12.{0,2}(pytorch|onnx|tf2onnx)", "an ONNX graph; name the checkpoint that it was made from"),
    (rb"\x93NUMPY", "an array of NumPy; have the weights saved by PyTorch, or as safetensors"),
    (rb"PAR1", "a table in Parquet"),
    (rb"%PDF-", "a PDF"),
    (rb"\x7fELF", "a program"),
    (rb"\x89PNG\r\n|\xff\xd8\xff|GIF8[79]a|RIFF....WEBP|BM....\0\0\0\0|II\x2a\0|MM\0\x2a", "an image"),
)
"""Beginnings of files, and what follows "is"."""

TEXT = re.compile(r"[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*")


def named(path: Path) -> str | None:
    """Kind of a file that could not be read, to follow "is", with the remedy; ``None`` where its bytes say none."""
    try:
        with path.open("rb") as stream:
            start = stream.read(LOOKED_AT)
        if not start:
            return "empty: it has no bytes; fetch or copy it again"
        if not start.strip(b"\0"):
            return "zeros where its beginning belongs, as a broken download or disk leaves them; fetch or copy it again"
        if kind := next((kind for sign, kind in SIGNATURES if re.match(sign, start, re.IGNORECASE | re.DOTALL)), None):
            return kind
        if start[257:262] == b"ustar" and tarfile.is_tarfile(path):
            return "a tar archive; unpack it with `tar -xf`, and name the file in it"
        return _of_zip(path) if start.startswith(b"PK") else _of_text(start)
    except (OSError, ValueError, zipfile.BadZipFile):
        return None


def _of_zip(path: Path) -> str | None:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    inner = {name.partition("/")[2] for name in names}
    if inner & {"archive_format", "archive_version"} and "data.pkl" not in inner:
        return "a program of torch.export; name the checkpoint that it was made from"
    if "constants.pkl" in inner:
        return "a program of TorchScript; name the checkpoint that it was made from"
    if "data.pkl" in inner:
        return None
    if all(name.endswith(".npy") for name in names):
        return "arrays of NumPy; have the weights saved by PyTorch, or as safetensors"
    return f"a zip archive of {printable(first_few(names)) or 'nothing'}; unpack it, and name the file in it"


def _of_text(start: bytes) -> str | None:
    try:
        text = start[: -3 if len(start) == LOOKED_AT else None].decode()  # the last character may be cut
    except UnicodeDecodeError:
        return None
    return f"a text, which begins {brief(text.strip()[:60])}" if TEXT.fullmatch(text) else None
