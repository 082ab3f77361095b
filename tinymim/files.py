"""Files that appear whole or not at all, and their checksums."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tinymim.errors import TinymimError
from tinymim.system import NO_ROOM, disk

ABANDONED = 60.0  # seconds after which a temporary that nobody has locked is a killed process's


def shipped(kind: str) -> Path:
    """Folder of the ``recipes`` or ``teachers`` of the project: in the package once installed, beside it in a clone."""
    package = Path(__file__).resolve().parent
    inside = package / "shipped" / kind
    return inside if inside.is_dir() else package.parent / kind


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def checksum_beside(path: Path) -> Path:
    """Path of a checkpoint's sha256, in a file as ``sha256sum`` writes and checks it."""
    return path.with_name(f"{path.name}.sha256")


def noted(path: Path, digest: str) -> str:
    """Record of ``digest`` as the sha256 of a file of ours, ``NAME.sha256 beside it``; empty where there is none.

    Raises:
        TinymimError: another one is noted.
    """
    beside = checksum_beside(path.resolve())
    if not beside.is_file():
        return ""
    with beside.open("rb") as stream:  # of two lines at most; another file of that name may be anything
        recorded = stream.read(4096).decode(errors="replace").split()
    if digest not in recorded:
        raise TinymimError(f"{path} has sha256 {digest}, and {beside.name} beside it says another: it is damaged")
    return f"{beside.name} beside it"


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, flush it to disk, rename it into place, and flush that too:
    after a power cut it is the old file or the new one, whole. A device is written to, and stays, and so is
    what ``/dev/stdout`` stands for."""
    if _is_special(path):
        write(path)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        with disk.in_use(temporary):
            write(temporary)
            disk.flush(temporary)
            temporary.chmod(0o644)
            temporary.replace(path)
        disk.flush(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _clear_leavings(path)


def _is_special(path: Path) -> bool:
    """Whether a path is of the system's, such as ``/dev/stdout``, or a device: no file of that name may come there. A
    pipe elsewhere would be waited for."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode) or (path.parts[:2] == ("/", "dev") and not stat.S_ISDIR(mode))


def write_folder(path: Path, fill: Callable[[Path], Any]) -> None:
    """Let ``fill`` fill a temporary folder beside ``path``, flush its files to disk, and rename it into place; what was
    there before makes room only then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        with disk.in_use(temporary):
            fill(temporary)
            for file in filter(Path.is_file, temporary.rglob("*")):
                disk.flush(file)
            temporary.chmod(0o755)
            if path.exists():
                before = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
                before.rmdir()  # a folder replaces no other on every system
                path.replace(before)
                try:
                    temporary.replace(path)
                except BaseException:
                    before.replace(path)
                    raise
                shutil.rmtree(before)
            else:
                temporary.replace(path)
        disk.flush(path.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _clear_leavings(path)


def _clear_leavings(path: Path) -> None:
    """Remove what writers of ``path`` that were killed left beside it: temporaries that nobody has locked, and nobody
    has written to for :data:`ABANDONED` seconds."""
    for place in _leavings(path.parent.resolve()).pop(path.name, []):
        with contextlib.suppress(OSError):
            if time.time() - place.lstat().st_mtime < ABANDONED or place.is_symlink():
                continue
            if disk.is_free(place):
                shutil.rmtree(place) if place.is_dir() else place.unlink()


@functools.cache
def _leavings(folder: Path) -> dict[str, list[Path]]:
    """Temporaries in a folder by the name of what was written; looked for once in a process, for it may hold many."""
    places: dict[str, list[Path]] = {}
    for place in folder.iterdir():
        if match := re.fullmatch(r"\.(.+)\.[a-z0-9_]{8}", place.name):
            places.setdefault(match[1], []).append(place)
    return places


def check_writable(field: str, path: Path, inside: bool = False) -> None:
    """Raise where a file or folder could not be written, as is known before the work that is to fill it.

    Args:
        field: the option or argument that names it, for the message.
        path: of what is to be written; a device is let pass.
        inside: it is a folder whose files are written one by one, and not one that is renamed into place.

    Raises:
        TinymimError: the nearest folder that is there takes no file.
    """
    if _is_special(path):
        return
    places = [path.resolve(), *path.resolve().parents][0 if inside else 1 :]
    try:
        with tempfile.TemporaryFile(prefix=f".{path.name}.", dir=next(filter(Path.exists, places))):
            pass
    except OSError as error:
        raise TinymimError(f"{field}: {path} cannot be written ({unwritten(error)})") from None


def check_file(field: str, path: Path) -> None:
    """As :func:`check_writable`, of a file: a folder is no place for one."""
    if path.is_dir():
        raise TinymimError(f"{field}: {path} is a folder; give a file")
    check_writable(field, path)


@contextlib.contextmanager
def writing(field: str, path: Path) -> Iterator[None]:
    """Within it, the reason why ``path`` cannot be written, whole or not at all, is told in a line, and what is there.

    Raises:
        TinymimError: in place of an error of the disk or of a library's writer.
    """
    left = "what was there is unchanged" if path.exists() else "nothing is left of it"
    try:
        yield
    except TinymimError:
        raise
    except Exception as error:
        if reason := unwritten(error):
            raise TinymimError(f"{field}: {path} cannot be written ({reason}); {left}") from None
        raise


def unwritten(error: Exception) -> str | None:
    """Reason in words why a file could not be written; ``None`` where ``error`` is of something else."""
    text = str(error).partition("\n")[0]
    if "No space left" in text or (isinstance(error, OSError) and error.errno in NO_ROOM):
        return "the disk is full"
    if isinstance(error, OSError) and error.errno is not None:
        return error.strerror or text
    return text if "PytorchStreamWriter" in text or type(error).__name__ == "SafetensorError" else None


def write_text(path: Path, text: str) -> None:
    """Write ``text`` whole or not at all."""
    write_atomically(path, lambda temporary: temporary.write_text(text))


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` whole or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")
