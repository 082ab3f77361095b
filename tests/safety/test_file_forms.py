"""Files that stand where an image, a shard or weights were meant."""

import gzip
import io
import lzma
import zipfile
from tarfile import TarInfo

import numpy as np
import pytest

from tinymim.safety.file_forms import form


def made(write) -> bytes:
    stream = io.BytesIO()
    write(stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b"../.git/annex/objects/x", "git annex get"),
        (b"\n <!DOCTYPE html><html>404", "web page"),
        (b"<HTML>", "web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied', "XML text"),
        (b'{"message": "Not Found"}', "JSON text"),
        (gzip.compress(b"x", mtime=0), "gunzip it"),
        (lzma.compress(b"x"), "xz -d"),
        (made(lambda stream: zipfile.ZipFile(stream, "w").close()), "unzip it"),
        (made(lambda stream: zipfile.ZipFile(stream, "w").writestr("a", "b")), "unzip it"),
        (TarInfo("a").tobuf(), "tar archive"),
        (made(lambda stream: np.save(stream, np.zeros(3))), "NumPy array"),
        (b"PAR1\x15\x04", "HFData"),
        (b"\x00\x00\x00\x18ftypheic", "HEIC"),
        (b"\x00\x00\x00\x18ftypmp42", "video"),
        (b"%PDF-1.7", "pages"),
        (b"\xef\xbb\xbf<!DOCTYPE html>", "web page"),
        ("<html>".encode("utf-16"), "web page"),
        (b"\x1f\x9d\x90", "uncompress it"),
        (b"%!PS-Adobe-3.0", "pages"),
        (bytes(128) + b"DICM" + bytes(400), "DICOM"),
        (b"\x5c\1\0\0" + bytes(340) + b"n+1\0", "NIfTI"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X", "a note of a desktop"),
        (b"SQLite format 3\0", "a database"),
        (b"\x7fELF\2\1", "a program"),
        (b"OggS\0\2", "a video"),
        (b"RIFF\x24\x08\0\0WAVE", "a sound"),
        (bytes(300) + b"iso image", ""),
        (bytes(600), "zeros"),
        (b"hello", "text"),
        (b"", ""),
        (b"\x01\x02\xfe\xff", ""),
    ],
)
def test_form__by_the_first_bytes(content, words):
    assert words in form(content)
    assert bool(words) == bool(form(content))
