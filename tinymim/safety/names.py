"""Names out of files are plain: they name something in the folder they belong to, and lead nowhere else."""

from __future__ import annotations

import re
from pathlib import Path

from tinymim.errors import TinymimError
from tinymim.safety.text import IGNORABLE, brief

PLAIN = rf"(?!\.)[^\x00-\x1f\x7f-\x9f/\\:*?\"<>|\u200c\u200d{IGNORABLE}]{{1,120}}"
"""Of one file or folder: no separators, nothing hidden, nothing that a terminal or another system reads otherwise."""

WEIGHTS = (".ckpt", ".safetensors", ".pth", ".pt", ".bin")
"""Endings of files of weights. Nothing else is written under a name out of a file: ``x.py`` would be imported."""


def is_plain(name: object) -> bool:
    """Whether ``name`` is :data:`PLAIN`."""
    return isinstance(name, str) and bool(re.fullmatch(PLAIN, name)) and name == name.strip()


def check(name: object, field: str) -> None:
    """Raise unless ``name`` is plain; the message begins with ``field``."""
    if not is_plain(name):
        raise TinymimError(
            f"{field}: {brief(name)} is no plain name of one file or folder; what is written belongs where you say, "
            "and not where a file says, so give a name such as digits_mae, without / and without a dot before it"
        )


def check_weights(name: object, field: str) -> None:
    """Raise unless ``name`` is plain, and that of a file of weights; the message begins with ``field``."""
    check(name, field)
    if not str(name).endswith(WEIGHTS):
        raise TinymimError(f"{field}: {brief(name)} is no name of a file of weights, which end in {', '.join(WEIGHTS)}")


def followed(path: Path) -> str:
    """``path`` for people: with what it links to, where that lies in another folder."""
    real = path.resolve()
    return str(path) if real.parent == path.parent.resolve() else f"{path} (a link to {real})"
