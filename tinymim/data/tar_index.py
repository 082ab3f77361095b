"""Index of a WebDataset shard: places and labels of its samples, read once from the tar's headers and then kept."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinymim.errors import TinymimError
from tinymim.files import write_atomically
from tinymim.safety import text
from tinymim.safety.signatures import HEAD, form
from tinymim.system import disk

IMAGES = ("jpg", "jpeg", "png", "webp")
FORMAT = 2  # of the files that keep an index
LABEL_BYTES = 1000  # of the longest label; an index has as many for each sample
JSON_BYTES = 1 << 24  # of the JSON beside an image
MOST = 1 << 30  # bytes of an index: of a shard of ten million samples
BLOCK = 512  # bytes of a tar's headers, and what its members are padded to


class Index(NamedTuple):
    """The samples of one shard that have an image, in the tar's order.

    Args:
        offset: of each image in the file, ``(M,)``.
        length: of each image, in bytes, ``(M,)``.
        label: as the shard has it, in fixed-width bytes, empty where there is none, ``(M,)``.
        passed: names of the first few samples without an image that is read, and then how many there are.
    """

    offset: NDArray[np.int64]
    length: NDArray[np.int64]
    label: NDArray[np.bytes_]
    passed: NDArray[np.str_]


def index(shard: Path, label_key: str, folder: Path) -> Index:
    """A shard's index.

    Args:
        shard: a tar file.
        label_key: field of a sample's JSON that is its label, where it has no ``cls``.
        folder: that indexes are kept in; one is good as long as its shard has the same size and time of change. One
            that cannot be written there is made anew each time.

    Raises:
        TinymimError: the shard is no tar, or is cut short or damaged.
    """
    stat = shard.stat()
    state = np.array([json.dumps([FORMAT, str(shard.resolve()), stat.st_size, stat.st_mtime_ns, label_key])])
    name = hashlib.sha256(os.fsencode(shard.resolve())).hexdigest()[:24]
    kept = folder / f"{name}.npz"
    try:
        if not kept.is_file():
            raise FileNotFoundError
        with np.load(kept) as arrays:  # this project compresses none
            if sum(arrays.zip.getinfo(f"{name}.npy").file_size for name in arrays.files) > kept.stat().st_size:
                raise ValueError("more than the file has")
            if np.array_equal(arrays["shard"], state):
                stored = Index(*(arrays[name] for name in Index._fields))
                if _lies_in(stored, stat.st_size):
                    return stored
    except Exception:  # none yet, or not what was written: zipfile, zlib and numpy have errors of a dozen kinds
        pass
    made = read_index(shard, label_key)

    def write(path: Path) -> None:
        with path.open("wb") as stream:
            np.savez(stream, shard=state, **made._asdict())

    with suppress(OSError):
        write_atomically(kept, write)
    return made


def _lies_in(index: Index, size: int) -> bool:
    """Whether an index is of a shard of ``size`` bytes: of the right types, and with nothing outside of it."""
    offset, length, label, passed = index
    if (offset.dtype, length.dtype, label.dtype.kind, passed.dtype.kind) != (np.int64, np.int64, "S", "U"):
        return False
    if passed.ndim != 1 or not len(passed) or not passed[-1].isdecimal():
        return False
    if not offset.ndim == length.ndim == label.ndim == 1 or not len(offset) == len(length) == len(label):
        return False
    return bool(
        (offset >= 0).all() and (length >= 0).all() and (length <= size).all() and (offset <= size - length).all()
    )


def read_index(shard: Path, label_key: str) -> Index:
    """Read a shard's index from the shard itself, as :func:`index`."""
    passed: list[str] = []
    try:
        with shard.open("rb") as stream:
            head = stream.read(HEAD)
            if (words := form(head)) and not head[257:].startswith(b"ustar"):
                raise TinymimError(f"{shard} is no plain tar file: it is {words} (samples are read at their place)")
            stream.seek(0)
            samples = list(_samples(stream, label_key, passed))
    except MemberError as error:
        raise TinymimError(f"{shard}: {error}") from error
    except (tarfile.TarError, OSError, ValueError) as error:
        raise TinymimError(
            f"{shard} is damaged, or no plain tar file: {error}; make it again, or move it away and "
            "have it fetched again"
        ) from error
    offset, length, label = ([sample[part] for sample in samples] for part in range(3))
    names = np.array([*passed[:3], str(len(passed))])
    return Index(np.array(offset, np.int64), np.array(length, np.int64), np.array(label, np.bytes_), names)


class MemberError(Exception):
    """A file in a shard that is not what its name says; the shard itself is in order."""


def member_name(shard: Path, offset: int) -> str:
    """The name of the member at ``offset``, for people: what the header before it says, perhaps shortened."""
    with shard.open("rb") as stream:
        stream.seek(offset - BLOCK)
        return stream.read(100).rstrip(b"\0").decode(errors="replace")


def _samples(stream: BinaryIO, label_key: str, passed: list[str]) -> Iterator[tuple[int, int, bytes]]:
    """Offset and length of each sample's image, and its label; ``passed`` takes the names of those without one."""
    for key, files in groupby(_files(stream), key=lambda file: file[0]):
        members = {extension: member for _, extension, member in files}
        image = next((members[extension] for extension in IMAGES if extension in members), None)
        if image:
            yield image.offset_data, image.size, _label(stream, key, members, label_key)
        else:
            passed.append(f"{key}.{next(iter(members))}")


def _files(stream: BinaryIO) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """Key, extension and header of each file, as WebDataset splits names: at the first dot of the last part."""
    with tarfile.open(fileobj=stream, mode="r:") as tar:
        for member in tar:
            tar.members = []  # type: ignore[attr-defined]  # or it would keep them all
            name = re.fullmatch(r"((?:.*/|)[^./]+)[.]([^/]*)", member.name)
            if name and member.isreg():
                yield name[1], name[2].lower(), member
        end = tar.offset
    stream.seek(end)
    if stream.read(BLOCK) != bytes(BLOCK):  # tarfile takes a damaged header, or the end of the file, for the tar's end
        raise ValueError(f"it ends or breaks off at byte {end}, without a tar's end mark")


def _label(stream: BinaryIO, key: str, members: dict[str, tarfile.TarInfo], label_key: str) -> bytes:
    def content(kind: str, most: int) -> str:
        member = members[kind]
        if member.size > most:
            raise MemberError(f"{key}.{kind} has {member.size} bytes, more than the {most} that hold a label")
        try:
            return text.decoded(disk.read_at(stream.fileno(), member.size, member.offset_data))
        except ValueError as error:
            raise MemberError(f"{key}.{kind} is not text: {error}") from None

    label = ""
    if "cls" in members:
        label = content("cls", LABEL_BYTES).strip()
    elif "json" in members:
        try:
            fields = json.loads(content("json", JSON_BYTES))
        except (ValueError, RecursionError) as error:
            raise MemberError(f"{key}.json is not JSON: {error}") from None
        if isinstance(fields, dict) and fields.get(label_key) is not None:
            label = str(fields[label_key])
    if len(encoded := label.encode()) > LABEL_BYTES:
        raise MemberError(f"{key}: a label of {len(encoded):,} bytes, and {LABEL_BYTES:,} are taken")
    return encoded
