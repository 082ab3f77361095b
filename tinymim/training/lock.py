"""Exclusive use of a folder: its ``.lock`` file is held while somebody works there, and says who.

On one host ``flock`` decides: the system lets go of it when its owner ends, however it ends, so a process id that was
given out again cannot be mistaken for the owner. Between hosts it decides nothing on some file systems, so an owner
also touches the file now and then, and a newcomer from another host watches for that before it takes a lock over.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tinymim.errors import TinymimError
from tinymim.log import say

NAME = ".lock"
BEAT = 20.0
"""Seconds between two touches of the owner."""
PATIENCE = 45.0
"""Seconds a newcomer from another host watches: two beats and some delay of a network file system."""

_held: set[int] = set()


@contextlib.contextmanager
def hold(folder: Path, what: str, beat: float = BEAT, patience: float = PATIENCE) -> Iterator[None]:
    """Keep others out of ``folder``, which is made where it is missing, and taken away again where an error comes
    before anything was written: a refused command leaves nothing.

    Args:
        folder: to work in.
        what: the option or argument that named it, for the message.
        beat: see :data:`BEAT`.
        patience: see :data:`PATIENCE`.

    Raises:
        TinymimError: another process works there, or the folder cannot be written.
    """
    lock, made = _taken(folder, what, patience)
    stop = threading.Event()
    beating = threading.Thread(target=_beat, args=(lock, stop, beat), daemon=True)
    try:
        _write(lock, _self())
        beating.start()
        try:
            yield
        except BaseException:
            _unmake(folder, made)
            raise
        finally:
            stop.set()
            beating.join()  # it must not touch a descriptor that another file has got since
            _write(lock, {})
    finally:
        _let_go(lock)


def _taken(folder: Path, what: str, patience: float) -> tuple[int, list[Path]]:
    """A descriptor of the file, locked, and what was made for it, innermost first."""
    for _ in range(100):
        made: list[Path] = []
        try:
            made += itertools.takewhile(lambda path: not path.exists(), (folder / NAME, folder, *folder.parents))
            folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            if isinstance(error, FileNotFoundError):  # whoever was refused there has just taken it away
                continue
            raise TinymimError(f"{what}: {folder} cannot be written ({error.strerror}); give another folder") from None
        _held.add(lock)
        try:
            _take(lock, folder, what, patience)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), (folder / NAME).stat()):
                    return lock, made
        except BaseException:
            _let_go(lock)
            raise
        _let_go(lock)  # of a file that is no longer there
    raise TinymimError(f"{what}: {folder} is taken away again and again; give another folder")


def _let_go(lock: int) -> None:
    _held.discard(lock)
    with contextlib.suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_UN)  # a child just being forked may still have the descriptor
    os.close(lock)


def _unmake(folder: Path, made: list[Path]) -> None:
    """Take away the file and the folders that were made for it, if nothing else came to lie there."""
    with contextlib.suppress(OSError):
        if made and all(path.name == NAME for path in folder.iterdir()):
            made[0].unlink()
            for place in made[1:]:
                place.rmdir()


def _take(lock: int, folder: Path, what: str, patience: float) -> None:
    """Lock the file, or raise with its owner's name."""
    free = _flock(lock, fcntl.LOCK_EX)
    if free is False:
        said = _read(folder, wait=2.0)
        if said or not _flock(lock, fcntl.LOCK_EX):  # whoever only looked is gone by now
            raise _busy(folder, what, said)
    said = _read(folder)
    if not said:
        return
    who = _name(said)
    ours = _self()
    same_job = bool(ours["job"]) and said.get("job") == ours["job"]
    if not same_job and not (free and said.get("host") == ours["host"]):
        say(f"{folder} was in use by {who}; watching up to {patience:.0f} s whether it still is")
        if _touched(folder, patience):
            raise _busy(folder, what, said)
    say(f"{folder}: its lock is stale, {who} has ended without giving it back; taking it over")


def _flock(lock: int, kind: int) -> bool | None:
    """Whether the lock was free, and is held now; ``None`` on a file system without ``flock``, where what the file says
    must do."""
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else None
    return True


def owner(folder: Path) -> str | None:
    """Who works in ``folder``, for people; ``None`` where nobody does, as far as can be seen from here at once."""
    said = _read(folder)
    if not said:
        return None
    if said.get("host") == socket.gethostname():
        with (folder / NAME).open() as stream:
            lives = not _flock(stream.fileno(), fcntl.LOCK_SH)
    else:
        lives = time.time() - (folder / NAME).stat().st_mtime < PATIENCE
    return _name(said) if lives else None


def _name(owner: dict[str, Any]) -> str:
    return f"pid {owner.get('pid')} on {owner.get('host')}, since {owner.get('since')}"


def _busy(folder: Path, what: str, owner: dict[str, Any]) -> TinymimError:
    if not owner:
        return TinymimError(f"{what}: another command is working in {folder}; wait for it, or give another folder")
    return TinymimError(
        f"{what}: another command is working in {folder}: {_name(owner)} ({owner.get('command')}); wait for it, end it "
        f"there with `kill {owner.get('pid')}`, or give another folder"
    )


def _self() -> dict[str, Any]:
    """This process, as its lock names it."""
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "job": os.environ.get("SLURM_JOB_ID"),
    }


def _write(lock: int, owner: dict[str, Any]) -> None:
    """Put ``owner`` into the very file that is locked; an empty one leaves it empty. Never replaced: a new file would
    be another lock."""
    text = json.dumps(owner, indent=2) + "\n" if owner else ""
    os.truncate(lock, 0)
    os.pwrite(lock, text.encode(), 0)


def _read(folder: Path, wait: float = 0.0) -> dict[str, Any]:
    """What the file says of its owner; nothing where it is empty or half written, after ``wait`` seconds."""
    end = time.monotonic() + wait
    while True:
        with contextlib.suppress(OSError, ValueError):
            if isinstance(said := json.loads((folder / NAME).read_text()), dict):
                return said
        if time.monotonic() >= end:
            return {}
        time.sleep(0.05)


def _touched(folder: Path, patience: float) -> bool:
    """Whether somebody touches the file within ``patience`` seconds. It is opened anew each time, which is when a
    network file system asks its server."""
    first, end = _stamp(folder), time.monotonic() + patience
    while time.monotonic() < end:
        time.sleep(min(1.0, patience / 10))
        if _stamp(folder) != first:
            return True
    return False


def _stamp(folder: Path) -> int:
    with (folder / NAME).open() as stream:
        return os.fstat(stream.fileno()).st_mtime_ns


def _beat(lock: int, stop: threading.Event, beat: float) -> None:
    while not stop.wait(beat):
        with contextlib.suppress(OSError):  # a network that is away for a moment must not end a run
            os.utime(lock)


def _forked() -> None:
    """A forked child, such as a loading worker, may live longer than the owner and must not keep the lock for it."""
    for lock in _held:
        os.close(lock)
    _held.clear()


os.register_at_fork(after_in_child=_forked)
