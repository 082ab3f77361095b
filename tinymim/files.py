"""Files that appear whole or not at all, and what they hold in one number."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinymim.errors import TinymimError


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def checksum_beside(path: Path) -> Path:
    """Where the sha256 of a checkpoint stands, as ``sha256sum`` writes and checks it."""
    return path.with_name(f"{path.name}.sha256")


def noted(path: Path, digest: str) -> str:
    """What notes ``digest`` as the sha256 of a file of ours, ``NAME.sha256 beside it``; empty where nothing does.

    Raises:
        TinymimError: another one is noted.
    """
    beside = checksum_beside(path.resolve())
    if not beside.is_file():
        return ""
    if digest not in beside.read_text().split():
        raise TinymimError(f"{path} has sha256 {digest}, and {beside.name} beside it says another: it is damaged")
    return f"{beside.name} beside it"


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, flush it to disk, rename it into place, and flush that too:
    after a power cut it is the old file or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
        _flush(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _flush(folder: Path) -> None:
    """Have the names in ``folder`` on disk."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` whole or not at all."""
    write_atomically(path, lambda temporary: temporary.write_text(text))


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` whole or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")
