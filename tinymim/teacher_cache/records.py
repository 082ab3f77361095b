"""A file of records of one size, and the checksum of each beside it: whatever happened to a record, it is whole or it
is not there.

``NAME.rec`` is as long as all records together from the beginning, and sparse: disks that can, give it blocks only for
what is written. ``NAME.crc`` has a little-endian uint32 a record: its CRC-32, with 1 in place of 0, or 0 where there is
no record. It is written after the record's bytes. So a record that was torn, by a kill, a full disk, or two writers
whose numbers differ in the last bit, does not have its checksum, and is as good as absent.

Read and written by position, never mapped: writing to a map of a file on a full disk, or reading one that somebody
cuts short, would end the process by a signal.
"""

from __future__ import annotations

import errno
import os
import stat
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinymim.system import disk

Numbers = NDArray[np.int64]
Bytes = NDArray[np.uint8]
SUM = np.dtype("<u4")
MOST = 1 << 26  # checksums of one file that are counted. ImageNet-21k has 14 million images


def opened(path: Path, make: bool = True) -> int:
    """A descriptor of a regular file: with ``make`` to read and write, where that is permitted, made where it is
    missing; else to read what is there.

    A pipe would wait for a writer that never comes, and a link lead out of the cache, where nothing is cut to length.

    Raises:
        OSError: it cannot be opened, or is a link, a pipe, or anything else than a regular file.
    """
    careful = disk.flags("O_CLOEXEC", "O_NONBLOCK", "O_NOFOLLOW")
    if path.is_symlink():  # said more clearly than O_NOFOLLOW would
        raise OSError(errno.EINVAL, f"{path.name} is a link", str(path))
    try:
        file = os.open(path, careful | (os.O_RDWR | os.O_CREAT if make else os.O_RDONLY), 0o644)
    except PermissionError:  # somebody else's: what is there can be read
        file = os.open(path, careful | os.O_RDONLY)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, f"{path.name} is no regular file", str(path))
    return file


def stored(path: Path, length: int = MOST) -> tuple[int, int]:
    """Records that a file of checksums has, and how many it has room for, of the first ``length``.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    file = opened(path, make=False)
    try:
        room = min(length, MOST, os.fstat(file).st_size // SUM.itemsize)
        there = 0
        # Only what has blocks on disk is read: a file of a few bytes may be terabytes long.
        for begin, end in disk.written(file, room * SUM.itemsize):
            there += int(np.count_nonzero(np.frombuffer(disk.read_at(file, end - begin, begin), SUM)))
        return there, room
    finally:
        os.close(file)


class Records:
    """One such file of ``length`` records of ``size`` bytes, opened to read and write; made where it is missing.
    ``damaged`` is told, once, what was found to be wrong.

    Raises:
        OSError: they cannot be opened, made or given their length.
    """

    def __init__(self, path: Path, length: int, size: int, damaged: Callable[[str], None]):
        self.path, self.length, self.size, self._damaged = path, length, size, damaged
        self._told = False
        self._data = self._open(path, length * size)
        self._index = self._open(path.with_suffix(".crc"), length * SUM.itemsize)
        self.sums = np.zeros(length, SUM)
        disk.read_into(self._index, self.sums.data, 0)

    def _open(self, path: Path, length: int) -> int:
        """A descriptor of a file of that length; one cut short is made long again, and what it lacks is absent."""
        file = opened(path)
        length_now = os.fstat(file).st_size
        if length_now != length:
            if length_now:
                self._tell(f"has {length_now} bytes instead of {length}")
            try:
                os.ftruncate(file, length)
            except BaseException:
                os.close(file)
                raise
        return file

    def _tell(self, what: str) -> None:
        if not self._told:
            self._told = True
            self._damaged(f"{self.path} {what}; what it lacks is computed anew")

    def read(self, numbers: Numbers, into: Bytes) -> NDArray[np.bool_]:
        """Read the records of these ``(M,)`` numbers into ``(M, size)``, and tell which were there and whole, ``(M,)``;
        other rows hold anything afterwards."""
        there = np.zeros(len(numbers), bool)
        for row, number in enumerate(numbers.tolist()):
            expected = int(self.sums[number]) or self._looked_up(number)
            if not expected:
                continue
            count = disk.read_into(self._data, into[row].data, number * self.size)
            if count == self.size and _checksum(into[row]) == expected:
                there[row] = True
            else:
                self.sums[number] = 0
                self._tell(f"is damaged at record {number}")
        return there

    def _looked_up(self, number: int) -> int:
        """Its checksum, which another process may have written meanwhile."""
        disk.read_into(self._index, self.sums[number : number + 1].data, number * SUM.itemsize)
        return int(self.sums[number])

    def write(self, numbers: Numbers, records: Bytes) -> None:
        """Write records ``(M, size)``; all their bytes come before the first checksum.

        Raises:
            OSError: the disk is full, or cannot be written.
        """
        sums = np.array([_checksum(record) for record in records], SUM)
        for number, record in zip(numbers.tolist(), records, strict=True):
            _write(self._data, record, number * self.size)
        for place, number in enumerate(numbers.tolist()):
            _write(self._index, sums[place : place + 1].view(np.uint8), number * SUM.itemsize)
            self.sums[number] = sums[place]

    def close(self) -> None:
        """Give the descriptors back."""
        os.close(self._data)
        os.close(self._index)


def _write(file: int, content: Bytes, offset: int) -> None:
    """All of it: the system may write less at a time."""
    rest = content.data
    while rest:
        done = disk.write_at(file, rest, offset)
        rest, offset = rest[done:], offset + done


def _checksum(record: Bytes) -> int:
    return zlib.crc32(record.data) or 1
