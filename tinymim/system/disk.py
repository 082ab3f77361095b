"""Files as the operating system has them: marks of use, places within them, holes, links, and what is on disk."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

fcntl: Any = None
with contextlib.suppress(ImportError):  # Windows has none
    import fcntl  # type: ignore[no-redef]


def lock(handle: int, shared: bool = False, wait: bool = False) -> bool:
    """Mark an open file or folder as in use until it is closed; false where another process has marked it, and is not
    waited for. Where the system has no such marks nothing is marked, and nothing is known of others.

    Raises:
        OSError: the file system has none.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def in_use(path: Path) -> Iterator[None]:
    """Mark a file or folder as in use, as far as the system can: Windows opens no folder, and moves no open file."""
    if fcntl is None:
        yield
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            lock(handle)
        yield
    finally:
        os.close(handle)


def is_free(path: Path) -> bool:
    """Whether no process has a file or folder marked as in use; also where the system cannot tell."""
    if fcntl is None:
        return True
    handle = os.open(path, flags("O_NONBLOCK"))
    try:
        return lock(handle)
    finally:
        os.close(handle)


def flags(*names: str) -> int:
    """Flags of :func:`os.open` that the system has, for files of bytes."""
    return functools.reduce(lambda whole, name: whole | getattr(os, name, 0), ("O_BINARY", *names), 0)


def flush(path: Path) -> None:
    """Have a file, or the names in a folder, on disk: Windows keeps those by itself, and flushes what it may write."""
    if fcntl is None and path.is_dir():
        return
    handle = os.open(path, flags("O_RDWR" if fcntl is None else "O_RDONLY"))
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_seeking = threading.Lock()


def read_into(file: int, buffer: memoryview, offset: int) -> int:
    """Fill ``buffer`` from ``offset`` of an open file, wherever others read it, and count the bytes there were."""
    if hasattr(os, "preadv"):
        return os.preadv(file, [buffer], offset)
    content = read_at(file, len(buffer.cast("B")), offset)
    buffer.cast("B")[: len(content)] = content
    return len(content)


def read_at(file: int, length: int, offset: int) -> bytes:
    """``length`` bytes at ``offset`` of an open file, wherever others read it; fewer at its end. Without ``pread`` the
    processes that share an open file must not read it at the same time: none are forked there."""
    if hasattr(os, "pread"):
        return os.pread(file, length, offset)
    with _seeking:
        os.lseek(file, offset, os.SEEK_SET)
        return os.read(file, length)


def write_at(file: int, content: memoryview, offset: int) -> int:
    """Write bytes at ``offset`` of an open file, and count how many were taken; as :func:`read_at`."""
    if hasattr(os, "pwrite"):
        return os.pwrite(file, content, offset)
    with _seeking:
        os.lseek(file, offset, os.SEEK_SET)
        return os.write(file, content)


def written(file: int, end: int) -> Iterator[tuple[int, int]]:
    """Starts and ends of what has blocks on disk, of the first ``end`` bytes of a sparse file; all of it where the
    system does not tell."""
    if not hasattr(os, "SEEK_DATA"):
        yield 0, end
        return
    place = 0
    while place < end:
        try:
            begin = os.lseek(file, place, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # there is no more
                raise
            return
        if begin >= end:
            return
        place = min(os.lseek(file, begin, os.SEEK_HOLE), end)
        yield begin, place


def size_on_disk(path: Path) -> int:
    """Bytes that a file takes on disk, where a sparse one takes less than its length; that, where the system does not
    tell."""
    status = path.stat()
    return status.st_blocks * 512 if hasattr(status, "st_blocks") else status.st_size


def link(place: Path, target: str) -> None:
    """Let ``place`` name the file ``target`` beside it: by a link, or, where only administrators make those, by the
    same content."""
    try:
        place.symlink_to(target)
    except (OSError, NotImplementedError):
        try:
            os.link(place.with_name(target), place)
        except OSError:
            shutil.copyfile(place.with_name(target), place)
