"""The file of weights that a path names: a file, or one in a folder of timm's, of transformers' or of our exports."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tinymim.errors import TinymimError
from tinymim.safety import escaping, names, signatures, text
from tinymim.teachers import card as cards

IN_FOLDER = ("model.safetensors", "pytorch_model.bin")
"""Names of the weights in a folder of timm's, of transformers' and of our exports."""

GRAPHS = ("model.onnx", "model.xml", "model.pt2")
"""Names of exports that are no weights."""


def weights_in(source: str) -> Path | None:
    """The file of weights that ``source`` is, or that lies in that folder; ``None`` where it is no path of either.

    Raises:
        TinymimError: a folder without weights, or a file that can hold none.
    """
    if "://" in source:
        raise TinymimError(
            f"teacher: {escaping.address(source)} is an address; download the file and name its path, or write a card "
            "that has it as url and `tinymim teachers fetch` it"
        )
    path = Path(source).expanduser()
    try:
        return _file_at(path, source)
    except OSError as error:
        raise TinymimError(f"teacher: {text.brief(source)} cannot be looked at ({error.strerror})") from None


def _file_at(path: Path, source: str) -> Path | None:
    if path.suffix in names.WEIGHTS and not path.is_dir():
        return path
    if path.is_file() and path.suffix not in ("", ".yaml", ".yml"):  # names of cards, and cards
        what = signatures.named(path) or f"no file of weights, which end in {', '.join(names.WEIGHTS)}"
        raise TinymimError(f"teacher: {path} is {what}")
    file = next((path / name for name in IN_FOLDER if (path / name).is_file()), None)
    if file is None and path.is_dir() and source not in cards.paths():
        raise TinymimError(f"teacher: the folder {path} has no {' and no '.join(IN_FOLDER)}{_in_its_place(path)}")
    return file


def _in_its_place(folder: Path) -> str:
    """Words on what a folder without weights is, and what to name instead; empty where nobody knows."""
    if checkpoint := next(iter(sorted((folder / "checkpoints").glob("*.ckpt"), reverse=True)), None):
        last = folder / "checkpoints" / "last.ckpt"
        return f"; it is a run: name a checkpoint in it, such as {last if last.exists() else checkpoint}"
    if next(folder.glob("*.index.json"), None):
        return (
            "; its weights lie in several parts, and one file is read: transformers' from_pretrained, then "
            'save_pretrained(..., max_shard_size="100GB"), makes one of them'
        )
    if (folder / ".metadata").is_file():
        return (
            "; it is a distributed checkpoint of PyTorch: `python -m torch.distributed.checkpoint.format_utils "
            "dcp_to_torch FOLDER FILE.pth` makes a file of it"
        )
    if (folder / "data.pkl").is_file() or next(folder.glob("*/data.pkl"), None):
        return "; it is a file of PyTorch's that was unpacked: name the file itself, which is a zip and stays one"
    if graphs := [folder / name for name in GRAPHS if (folder / name).is_file()]:
        runs = f"{graphs[0].name} is a graph that another program runs, as its README.md shows"
        return f"; {runs}: name the checkpoint that it was made of"
    files = [place for ending in names.WEIGHTS for place in sorted(folder.glob(f"*{ending}"))]
    return f"; name the file itself, such as {files[0]}" if files else ""


def check_file(path: Path) -> None:
    """Raise unless there is a file, which is whole as far as its name says it."""
    if path.is_dir():
        raise TinymimError(f"no weights file at {path}: that is a folder")
    if path.is_symlink() and not path.exists():
        raise TinymimError(f"no weights file at {path}: that is a link to {path.readlink()}, where there is none")
    if not path.is_file():
        raise TinymimError(f"no weights file at {path}{': that is no regular file' if path.exists() else ''}")
    if part := re.search(r"-(\d{5})-of-(\d{5})\.", path.name):
        raise TinymimError(
            f"{path} is part {int(part[1])} of {int(part[2])} of some weights, and one file is read: transformers' "
            'from_pretrained of its folder, then save_pretrained(..., max_shard_size="100GB"), makes one of them'
        )


def check_named(source: str) -> None:
    """Raise where nothing is there by the name of a network; what is there is left to whoever opens it.

    Raises:
        TinymimError: neither a path, nor a card's name, nor ``timm:NAME``.
    """
    if source.startswith(cards.TIMM) or os.path.exists(os.path.expanduser(source)):  # noqa: PTH110, PTH111  # of any length
        return
    if path := weights_in(source):
        check_file(path)
    else:
        cards.find(source)
