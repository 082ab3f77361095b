"""Exclusive use of a folder: its ``.lock`` file is held while a process works there, and names that process.

On one host ``filelock`` decides, by ``flock``: the system lets go of it when its owner ends, however it ends, so a
process id that was given out again cannot be mistaken for the owner. Between hosts that decides nothing on some file
systems, so an owner also touches the file now and then, and a newcomer from another host watches for that heartbeat
before it takes a lock over.
"""

from __future__ import annotations

import contextlib
import errno
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

from filelock import FileLock, Timeout

from tinymim.errors import TinymimError
from tinymim.log import say
from tinymim.safety import text
from tinymim.system import disk

NAME = ".lock"
LOCKED = NAME if disk.fcntl else ".locked"
"""File that is locked: Windows lets nobody else, and no other part of its owner, read or write a locked one."""
BEAT = 20.0
"""Seconds between two touches of the owner."""
PATIENCE = 45.0
"""Seconds a newcomer from another host watches: two beats and some delay of a network file system."""

NO_FLOCK = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)
"""Errors of a file system without ``flock``."""

Owner = dict[str, Any]
"""Content of the file: pid, host, since, command, job; empty where no one works in the folder."""


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
    path = folder / NAME
    flock, made = _locked(folder, what, patience)
    ended = threading.Event()
    heartbeat = threading.Thread(target=_touch_until, args=(path, ended, beat), daemon=True)
    try:
        path.write_text(json.dumps(_this_process(), indent=2) + "\n")  # into the very file that is locked
        _held[folder] = path.stat().st_ino
        heartbeat.start()
        try:
            yield
        except BaseException:
            _remove(folder, made)
            raise
        finally:
            ended.set()
            heartbeat.join()
            with contextlib.suppress(OSError):  # it may be gone, and must not come back
                os.truncate(path, 0)
    finally:
        _held.pop(folder, None)
        flock.release()


_held: dict[Path, int] = {}
"""Inodes of the files that this process holds, by folder."""


def is_held(folder: Path) -> bool:
    """Whether the file that this process holds is still the one in ``folder``, which may have been moved or removed."""
    with contextlib.suppress(OSError):
        return _held.get(folder) in (None, (folder / NAME).stat().st_ino)
    return folder not in _held


def _locked(folder: Path, what: str, patience: float) -> tuple[FileLock, list[Path]]:
    """The lock, and the file and folders that were made for it, innermost first."""
    # never a marker file in place of flock: the text in the file is the owner's, not filelock's
    flock = FileLock(folder / LOCKED, timeout=0, mode=0o644, fallback_to_soft=False)
    if (folder / NAME).is_symlink():
        raise TinymimError(f"{what}: {folder / NAME} is a link, and what it leads to would be written; remove it")
    for _ in range(100):
        try:
            made = [*itertools.takewhile(lambda path: not path.exists(), (folder / NAME, folder, *folder.parents))]
            folder.mkdir(parents=True, exist_ok=True)
            _check_owner(folder, what, patience, locked=_acquire(flock, folder, what))
            return flock, made
        except FileNotFoundError:  # a command that was refused there has just taken the folder away
            flock.release()
        except OSError as error:
            flock.release()
            raise TinymimError(f"{what}: {folder} cannot be written ({error.strerror}); give another folder") from None
        except BaseException:
            flock.release()
            raise
    raise TinymimError(f"{what}: {folder} cannot be made, or is taken away again and again; give another folder")


def _remove(folder: Path, made: list[Path]) -> None:
    """Take away the file and the folders that were made for it, if nothing else came to lie there."""
    with contextlib.suppress(OSError):
        if made and all(path.name in (NAME, LOCKED) for path in folder.iterdir()):
            for name in {NAME, LOCKED}:
                (folder / name).unlink(missing_ok=True)
            for place in made[1:]:
                place.rmdir()


def _acquire(flock: FileLock, folder: Path, what: str) -> bool:
    """Lock the file; ``False`` on a file system without ``flock``, where the heartbeat must do.

    Raises:
        TinymimError: another process has it.
    """
    try:
        flock.acquire()
    except Timeout:
        owner = _read(folder, wait=2.0)
        if owner:
            raise _busy(folder, what, owner) from None
        try:
            flock.acquire()  # whoever only looked, as `owner` does, is gone by now
        except Timeout:
            raise _busy(folder, what, {}) from None
    except OSError as error:
        if error.errno not in NO_FLOCK:
            raise
        return False
    return True


def _check_owner(folder: Path, what: str, patience: float, locked: bool) -> None:
    """Take over the lock of an owner who has ended; raise where it may live on another host."""
    owner = _read(folder)
    if not owner:
        return
    ours = _this_process()
    same_job = bool(ours["job"]) and owner.get("job") == ours["job"]
    ended_here = locked and owner.get("host") == ours["host"]
    if not same_job and not ended_here:
        say(f"{folder} was in use by {_name(owner)}; watching up to {patience:.0f} s whether it still is")
        if _is_touched(folder, patience):
            raise _busy(folder, what, owner)
    ended = f"{_process(owner)}, which took it at {owner.get('since')}, has ended without giving it back"
    say(f"{folder}: its lock is stale: {ended}; taking it over")


def owner(folder: Path) -> str | None:
    """Owner of ``folder``, for people; ``None`` where nobody works there, as far as can be seen from here at once."""
    entry = _read(folder)
    if not entry:
        return None
    if entry.get("host") == socket.gethostname():
        lives = not _is_free(folder)
    else:
        lives = time.time() - (folder / NAME).stat().st_mtime < PATIENCE
    return _name(entry) if lives else None


def _is_free(folder: Path) -> bool:
    """Whether no process of this host has the folder's lock; a reader may not be allowed to write there."""
    try:
        if not disk.fcntl:
            with FileLock(folder / LOCKED, timeout=0, fallback_to_soft=False):
                return True
        with (folder / NAME).open() as stream:
            return disk.lock(stream.fileno(), shared=True)
    except (OSError, Timeout):
        return False


def _process(owner: Owner) -> str:
    return f"pid {owner.get('pid')} on {owner.get('host')}"


def _name(owner: Owner) -> str:
    return f"{_process(owner)}, since {owner.get('since')}"


def _busy(folder: Path, what: str, owner: Owner) -> TinymimError:
    if not owner:
        return TinymimError(f"{what}: another command is working in {folder}; wait for it, or give another folder")
    return TinymimError(
        f"{what}: another command is working in {folder}: {_name(owner)} ({owner.get('command')}); wait for it, end it "
        f"there with `kill {owner.get('pid')}`, or give another folder"
    )


def _this_process() -> Owner:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "job": os.environ.get("SLURM_JOB_ID"),
    }


def _read(folder: Path, wait: float = 0.0) -> Owner:
    """Owner in the file; empty where there is none or it is half written, after ``wait`` seconds."""
    end = time.monotonic() + wait
    while True:
        owner: Owner = text.json_or_empty(folder / NAME)  # of a folder that is only looked at, it may be anything
        if owner or time.monotonic() >= end:
            return owner
        time.sleep(0.05)


def _is_touched(folder: Path, patience: float) -> bool:
    """Whether another process touches the file within ``patience`` seconds."""

    def stamp() -> int:
        with (folder / NAME).open() as stream:  # opening anew makes a network file system ask its server
            return os.fstat(stream.fileno()).st_mtime_ns

    first, end = stamp(), time.monotonic() + patience
    while time.monotonic() < end:
        time.sleep(min(1.0, patience / 10))
        if stamp() != first:
            return True
    return False


def _touch_until(path: Path, ended: threading.Event, beat: float) -> None:
    while not ended.wait(beat):
        with contextlib.suppress(OSError):  # a network that is away for a moment must not end a run
            os.utime(path)
