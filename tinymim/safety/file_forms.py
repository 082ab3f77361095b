"""The form of a file by its first bytes: what stands where an image, a shard or weights were meant, and the remedy."""

from __future__ import annotations

import re

HEAD = 512
"""First bytes of a file that tell its form."""

_PAGE = rb"(\xef\xbb\xbf)?\s*(<!doctype html|<html|<head|<body|<!--)|(\xff\xfe|\xfe\xff)[\s\0]*<"
_VIDEO = "a video: write its frames as images"
_FORMS = {
    rb"version https://git-lfs": "a Git LFS pointer: `git lfs pull` fetches what it stands for",
    rb"(\.\./)*(\.git)?/annex/objects/": "a git-annex pointer: `git annex get` fetches what it stands for",
    _PAGE: "a web page, perhaps of an error or a login: fetch the file itself",
    rb"\s*(<\?xml.*)?<svg": "an SVG drawing: draw it as PNG",
    rb"\s*<\?xml": "XML text, perhaps a server's error: fetch the file itself",
    rb'\s*\{\s*"': "JSON text, perhaps a server's answer",
    rb"\x1f\x8b": "compressed by gzip: gunzip it",
    rb"\x28\xb5\x2f\xfd": "compressed by zstd: unpack it with zstd -d",
    rb"\x1f[\x9d\xa0]": "compressed by compress: uncompress it",
    rb"LZIP": "compressed by lzip: unpack it with lzip -d",
    rb"BZh[1-9]": "compressed by bzip2: bunzip2 it",
    rb"\xfd7zXZ": "compressed by xz: unpack it with xz -d",
    rb"\x04\x22\x4d\x18": "compressed by lz4: unpack it with lz4 -d",
    rb"PK(\x03\x04|\x05\x06)": "a zip archive (unzip it)",
    rb"7z\xbc\xaf|Rar!|MSCF|xar!": "an archive: unpack it",
    rb".{257}ustar": "a tar archive: unpack it, or, where it is WebDataset's, take tinymim.data.ShardsData",
    rb"PAR1|ARROW1|OBJ\x01": "a table of columns: tinymim.data.HFData reads Parquet and Arrow",
    rb"\x89HDF": "an HDF5 file: write its images as files",
    rb"\x93NUMPY": "a NumPy array: write its images as files",
    rb"\x80[\x02-\x05]": "a pickle, which may hold code and is not read",
    rb"%PDF": "a PDF: write its pages as images",
    rb"%!PS": "PostScript: write its pages as images",
    rb".{128}DICM": "a DICOM image: write it as PNG",
    rb"SIMPLE  =": "a FITS image: write it as PNG",
    rb"\x5c\x01\0\0.{340}n[+i]1\0": "a NIfTI volume: write its slices as images",
    rb"8BPS|gimp xcf|v/1\x01|AT&TFORM": "an image of a drawing program or of another kind: write it as PNG",
    rb"\0\0\0\x01Bud1|\0\x05\x16[\0\x07]|L\0\0\0\x01\x14\x02|bplist": "a note of a desktop, not the file beside it",
    rb"SQLite format|\xd0\xcf\x11\xe0": "a database or a document: write its images as files",
    rb"\x7fELF|MZ.\0|\xca\xfe\xba\xbe|\xcf\xfa\xed\xfe": "a program",
    rb".{4}ftyp(heic|heix|mif1|avif|avis|hevc)": "a HEIC or AVIF image that this Pillow does not read: convert it",
    rb".{4}ftyp|.{4}moov|RIFF.{4}AVI |\x1aE\xdf\xa3": _VIDEO,
    rb"OggS|FLV\x01|\0\0\x01[\xb3\xba]": _VIDEO,
    rb"ID3|RIFF.{4}WAVE|fLaC": "a sound",
    rb"\xff\x0a|.{4}JXL ": "a JPEG XL image: convert it",
    rb"\0{32,}\Z": "nothing but zeros: a download or copy that broke off; fetch it again",
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
