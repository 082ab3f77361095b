"""``tinymim export``: a checkpoint's backbone as safetensors under timm's names, with its record."""

from __future__ import annotations

import argparse
from pathlib import Path

from tinymim import files, teachers, weights
from tinymim.errors import TinymimError

KEPT = ("teacher", "licence", "deit", "ema")
"""What of a checkpoint's record, besides the backbone, goes with it; its classifier stays behind."""


def main(arguments: list[str]) -> int:
    """Run ``tinymim export CHECKPOINT FILE``."""
    parser = argparse.ArgumentParser(prog="tinymim export", description=__doc__)
    parser.add_argument("checkpoint", help="a checkpoint of this project, or a teacher card's name")
    parser.add_argument("file", type=Path, help="where to, with the ending .safetensors")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it is there")
    asked = parser.parse_args(arguments)
    export(asked.checkpoint, asked.file, asked.overwrite)
    return 0


def export(source: str, file: Path, overwrite: bool = False) -> None:
    """Write the backbone of ``source`` to ``file``, whole or not at all.

    Args:
        source: a checkpoint's path, or a card's name.
        file: ends in ``.safetensors``.
        overwrite: replace it if it is there.

    Raises:
        TinymimError: nothing to read, or nowhere to write.
    """
    if file.suffix != ".safetensors":
        raise TinymimError(f"file: {file} does not end in .safetensors")
    if file.exists() and not overwrite:
        raise TinymimError(f"file: {file} is there already; give another, or --overwrite")
    located = teachers.locate(source)
    backbone, provenance = located.load()
    record = {} if located.card else weights.read(Path(source)).record or {}
    extra = {"licence": provenance.licence} | {key: record[key] for key in KEPT if key in record}
    try:
        weights.export(backbone, file, extra)
    except OSError as error:
        raise TinymimError(f"file: {file} cannot be written ({error.strerror or error})") from None
    digest = files.sha256(file)
    print(f"wrote {file} ({file.stat().st_size / 1e6:.1f} MB), sha256 {digest}, licence {extra['licence']}")
