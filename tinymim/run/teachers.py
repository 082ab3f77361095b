"""``tinymim teachers``: list the cards, or save a trained backbone as the weights of one."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from tinymim import files, teachers, weights
from tinymim.backbones import skeleton
from tinymim.errors import TinymimError


def main(arguments: list[str]) -> int:
    """Run ``tinymim teachers [list | save CHECKPOINT CARD]``."""
    parser = argparse.ArgumentParser(prog="tinymim teachers", description=__doc__)
    actions = parser.add_subparsers(dest="action")
    actions.add_parser("list", help="the cards, and whether each one's weights are here (the default)")
    saving = actions.add_parser(
        "save", help="write a checkpoint's backbone as a card's weights, and their sha256 into the card"
    )
    saving.add_argument("checkpoint", type=Path)
    saving.add_argument("card")
    asked = parser.parse_args(arguments)
    if asked.action == "save":
        save(asked.checkpoint, teachers.find(asked.card))
    else:
        show()
    return 0


def show() -> None:
    """Print a table of the cards."""
    table = Table(title="teachers")
    for column in ("name", "architecture", "block", "licence", "weights"):
        table.add_column(column, overflow="fold")
    missing = []
    for card in teachers.cards():
        path = card.weights_path()
        network = skeleton(card.architecture)
        block = card.target_block or "by rule"
        sizes = f"{card.architecture.arch}, width {network.width}, depth {network.depth}, heads {network.heads[0]}"
        table.add_row(card.name, sizes, str(block), card.licence, "present" if path else "missing")
        missing += [] if path else [f"{card.name}: {card.how_to_get()}"]
    console = Console()
    console.print(table)
    for line in missing:
        console.print(line, soft_wrap=True, highlight=False)


def save(checkpoint: Path, card: teachers.Card) -> None:
    """Export a backbone in bfloat16 as ``card``'s weights, and record its sha256.

    Args:
        checkpoint: of this project.
        card: whose architecture it must have.

    Raises:
        TinymimError: another architecture, or a card without a sha256 line.
    """
    backbone, _, _ = weights.load(checkpoint)
    wanted = skeleton(card.architecture)
    if (backbone.describe(), backbone.heads) != (wanted.describe(), wanted.heads):
        raise TinymimError(f"{checkpoint} holds {backbone.describe()}, and card {card.name} says {wanted.describe()}")
    path = card.path.parent / card.file
    text = card.path.read_text()
    if not re.search(r"^sha256:.*$", text, flags=re.MULTILINE):
        raise TinymimError(f"card {card.path} has no sha256 line to fill in")
    weights.export(backbone, path, {"licence": card.licence}, dtype=torch.bfloat16)
    digest = files.sha256(path)
    text = re.sub(r"^sha256:.*$", f"sha256: {digest}", text, flags=re.MULTILINE)
    files.write_text(card.path, text)
    print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB), sha256 {digest}")
