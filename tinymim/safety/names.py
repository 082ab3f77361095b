"""Names out of files are plain: they name something in the folder they belong to, and lead nowhere else."""

from __future__ import annotations

import re
from pathlib import Path

from tinymim.errors import TinymimError

PLAIN = r"[A-Za-z0-9_][A-Za-z0-9_.+@-]{0,119}"
"""Of files and folders: no separators, nothing hidden, nothing that a shell or a terminal reads otherwise."""


def is_plain(name: str) -> bool:
    """Whether ``name`` is :data:`PLAIN`."""
    return bool(re.fullmatch(PLAIN, name)) and ".." not in name


def check(name: str, field: str) -> str:
    """``name``, which has to be plain.

    Raises:
        TinymimError: it is not; the message begins with ``field``.
    """
    if not is_plain(name):
        raise TinymimError(
            f"{field}: {name!r} is no plain name; take letters, digits, -, _, . and +, and no folders, for what is "
            "written belongs where you say, not where a file says"
        )
    return name


def followed(path: Path) -> str:
    """``path`` for people: with what it links to, where that lies in another folder."""
    real = path.resolve()
    return str(path) if real.parent == path.parent.resolve() else f"{path} (a link to {real})"
