"""The form of a file by its first bytes: what stands where an image, a shard or weights were meant, and the remedy."""

from __future__ import annotations

import re

HEAD = 512
"""First bytes of a file that tell its form."""

_PAGE = rb"\s*(<!doctype html|<html|<head|<body|<!--)"
_FORMS = {
    rb"version https://git-lfs": "a Git LFS pointer: `git lfs pull` fetches what it stands for",
    rb"(\.\./)*(\.git)?/annex/objects/": "a git-annex pointer: `git annex get` fetches what it stands for",
    _PAGE: "a web page, perhaps of an error or a login: fetch the file itself",
    rb"\s*(<\?xml.*)?<svg": "an SVG drawing: draw it as PNG",
    rb"\s*<\?xml": "XML text, perhaps a server's error: fetch the file itself",
    rb'\s*\{\s*"': "JSON text, perhaps a server's answer",
    rb"\x1f\x8b": "compressed by gzip: gunzip it",
    rb"\x28\xb5\x2f\xfd": "compressed by zstd: unpack it with zstd -d",
    rb"BZh[1-9]": "compressed by bzip2: bunzip2 it",
    rb"\xfd7zXZ": "compressed by xz: unpack it with xz -d",
    rb"\x04\x22\x4d\x18": "compressed by lz4: unpack it with lz4 -d",
    rb"PK(\x03\x04|\x05\x06)": "a zip archive (unzip it)",
    rb"7z\xbc\xaf|Rar!": "an archive: unpack it",
    rb".{257}ustar": "a tar archive: unpack it, or, where it is WebDataset's, take tinymim.data.ShardsData",
    rb"PAR1|ARROW1|OBJ\x01": "a table of columns: tinymim.data.HFData reads Parquet and Arrow",
    rb"\x89HDF": "an HDF5 file: write its images as files",
    rb"\x93NUMPY": "a NumPy array: write its images as files",
    rb"\x80[\x02-\x05]": "a pickle, which may hold code and is not read",
    rb"%PDF": "a PDF: write its pages as images",
    rb".{4}ftyp(heic|heix|mif1|avif|avis|hevc)": "a HEIC or AVIF image that this Pillow does not read: convert it",
    rb".{4}ftyp|.{4}moov|RIFF.{4}AVI |\x1aE\xdf\xa3": "a video: write its frames as images",
    rb"\xff\x0a|.{4}JXL ": "a JPEG XL image: convert it",
    rb"\x00{32}": "nothing but zeros: a download or copy that broke off; fetch it again",
}


def form(head: bytes) -> str:
    """What a file with these first bytes is, and what to do; empty where that is not known.

    Args:
        head: the first :data:`HEAD` bytes, or more.
    """
    head = head[:HEAD]
    for pattern, words in _FORMS.items():
        if re.match(pattern, head, re.IGNORECASE | re.DOTALL):
            return words
    printable = all(byte >= 32 or byte in b"\t\r\n\f" for byte in head) and b"\x7f" not in head
    return "text" if head and printable and head.isascii() else ""
