"""Files that are something else than they were taken for: named by their first bytes, with what to do about each."""

from __future__ import annotations

import codecs
import re
import zipfile
from pathlib import Path
from typing import NamedTuple

from tinymim.errors import first_few
from tinymim.safety.text import brief, printable

HEAD = 1024
"""First bytes of a file that tell what it is."""


SAME = "the same"


class Signature(NamedTuple):
    """Beginning of a file.

    Args:
        pattern: that it matches, in either case.
        name: of the file, to follow "is".
        remedy: what to do; ``None`` where such a file may hold weights.
        images: the remedy where images were meant, or a table or shard of them; ``None`` where it may be one.
    """

    pattern: bytes
    name: str
    remedy: str | None = ""
    images: str | None = SAME


PYTORCHS = "have the weights saved by PyTorch, or as safetensors"
SOURCE = "name the checkpoint that it was made from"
INNER, FILES = "unpack it, and name the file in it", "write its images as files"

SIGNATURES = (
    Signature(rb"version https://(git-lfs|hawser)", "a Git LFS pointer", "`git lfs pull` fetches what it stands for"),
    Signature(rb"[\w./-]*/annex/objects/", "a git-annex pointer", "`git annex get` fetches what it stands for"),
    Signature(rb"(\xef\xbb\xbf)?\s*(<\?xml.*)?<svg", "an SVG drawing", "", "draw it as PNG"),
    Signature(
        rb"(\xef\xbb\xbf)?\s*<(!doctype|html|head|body|\?xml|!--)|(\xff\xfe|\xfe\xff)[\s\0]*<",
        "a web page or an error of a server",
        "fetch the file by its own address, logged in if need be",
    ),
    Signature(rb"\x1f\x8b", "compressed with gzip", "unpack it with `gunzip --keep`"),
    Signature(rb"BZh[1-9]", "compressed with bzip2", "unpack it with `bunzip2 --keep`"),
    Signature(rb"\xfd7zXZ\0", "compressed with xz", "unpack it with `unxz --keep`"),
    Signature(rb"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it with `unzstd --keep`"),
    Signature(rb"\x04\x22\x4d\x18", "compressed with lz4", "unpack it with `unlz4`"),
    Signature(rb"\x1f[\x9d\xa0]", "compressed with compress", "unpack it with `uncompress`"),
    Signature(rb"LZIP", "compressed with lzip", "unpack it with `lzip -d`"),
    Signature(rb"MSCF|xar!", "an archive", INNER, "unpack it"),
    Signature(rb"7z\xbc\xaf\x27\x1c", "a 7z archive", INNER, "unpack it"),
    Signature(rb"Rar!\x1a\x07", "a RAR archive", INNER, "unpack it"),
    Signature(rb"PK(\x03\x04|\x05\x06)", "a zip archive", None, "unpack it"),
    Signature(
        rb".{257}ustar", "a tar archive", "unpack it with `tar -xf`, and name the file in it",
        "unpack it, or, where it is WebDataset's, take tinymim.data.ShardsData",
    ),
    Signature(rb"\x89HDF", "an HDF5 file", f"Keras writes such; {PYTORCHS}", FILES),
    Signature(rb"\x93NUMPY", "an array of NumPy", PYTORCHS, FILES),
    Signature(rb"GGUF", "a GGUF file", SOURCE, ""),
    Signature(rb".{4}TFL3", "a TensorFlow Lite graph", SOURCE, ""),
    Signature(rb"\x08[\x03-\x20]\x12.{0,2}(pytorch|onnx|tf2onnx)", "an ONNX graph", SOURCE, ""),
    Signature(rb"\x80[\x02-\x05]", "a pickle, which may hold code and is not read", None, ""),
    Signature(rb"PAR1|ARROW1|OBJ\x01", "a table of columns", "", "tinymim.data.HFData reads Parquet and Arrow"),
    Signature(rb"%PDF-", "a PDF", "", "write its pages as images"),
    Signature(rb"%!PS", "PostScript", "", "write its pages as images"),
    Signature(rb".{128}DICM", "a DICOM image", "", "write it as PNG"),
    Signature(rb"SIMPLE  =", "a FITS image", "", "write it as PNG"),
    Signature(rb"\x5c\x01\0\0.{340}n[+i]1\0", "a NIfTI volume", "", "write its slices as images"),
    Signature(
        rb"8BPS|gimp xcf|v/1\x01|AT&TFORM", "an image of a drawing program or of another kind", "", "write it as PNG"
    ),
    Signature(
        rb"\0\0\0\x01Bud1|\0\x05\x16[\0\x07]|L\0\0\0\x01\x14\x02|bplist",
        "a note of a desktop, not the file beside it",
    ),
    Signature(rb"SQLite format|\xd0\xcf\x11\xe0", "a database or a document", "", FILES),
    Signature(rb".{4}ftyp(hei[cx]|mif1|avi[fs]|hevc)", "a HEIC or AVIF image that this Pillow lacks", "", "convert it"),
    Signature(rb"\xff\x0a|.{4}JXL ", "a JPEG XL image", "", "convert it"),
    Signature(rb"\x89PNG\r\n|\xff\xd8\xff|GIF8[79]a|RIFF.{4}WEBP|BM.{4}\0{4}|II\x2a\0|MM\0\x2a", "an image", "", None),
    Signature(
        rb".{4}(ftyp|moov)|RIFF.{4}AVI |\x1aE\xdf\xa3|OggS|FLV\x01|\0\0\x01[\xb3\xba]", "a video", "",
        "write its frames as images"
    ),
    Signature(rb"ID3|RIFF.{4}WAVE|fLaC", "a sound"),
    Signature(rb"\x7fELF|MZ.\0|\xca\xfe\xba\xbe|\xcf\xfa\xed\xfe", "a program"),
    Signature(
        rb"\0{32,}\Z", "zeros where its beginning belongs",
        "as a broken download or disk leaves them; fetch or copy it again",
    ),
)  # fmt: skip

TEXT = re.compile(r"[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]+")


def form(head: bytes, weights: bool = False) -> str:
    """Name of a file with these first bytes, to follow "is", and what to do; empty where that is not known.

    Args:
        head: the first :data:`HEAD` bytes, or more.
        weights: those were meant, and not images.
    """
    head = head[:HEAD]
    for signature in SIGNATURES:
        remedy = signature.remedy if weights or signature.images == SAME else signature.images
        if remedy is not None and re.match(signature.pattern, head, re.IGNORECASE | re.DOTALL):
            return "; ".join(filter(None, (signature.name, remedy)))
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut
    except UnicodeDecodeError:
        return ""
    return f"a text, which begins {brief(text.strip()[:60])}" if TEXT.fullmatch(text) else ""


def named(path: Path) -> str | None:
    """Kind of a file that could not be read as weights, with the remedy; ``None`` where its bytes say none."""
    try:
        with path.open("rb") as stream:
            head = stream.read(HEAD)
        if not head:
            return "empty: it has no bytes; fetch or copy it again"
        return _of_zip(path) if head.startswith(b"PK") else form(head, weights=True) or None
    except (OSError, ValueError, zipfile.BadZipFile):
        return None


def _of_zip(path: Path) -> str | None:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    inner = {name.partition("/")[2] for name in names}
    if inner & {"archive_format", "archive_version"} and "data.pkl" not in inner:
        return f"a program of torch.export; {SOURCE}"
    if "constants.pkl" in inner:
        return f"a program of TorchScript; {SOURCE}"
    if "data.pkl" in inner:
        return None
    if all(name.endswith(".npy") for name in names):
        return f"arrays of NumPy; {PYTORCHS}"
    return f"a zip archive of {printable(first_few(names)) or 'nothing'}; {INNER}"
