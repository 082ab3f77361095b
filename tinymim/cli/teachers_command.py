"""``tinymim teachers``: what can teach, under which licence, and how to get its weights."""

from __future__ import annotations

import argparse
import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.table import Table

from tinymim import files
from tinymim.errors import TinymimError
from tinymim.safety import names
from tinymim.safety.console import PlainConsole
from tinymim.safety.text import unreadable
from tinymim.teachers import card as cards
from tinymim.teachers import contents, infer, locate, record_schemas, weights
from tinymim.teachers.card import Card
from tinymim.teachers.download import download
from tinymim.teachers.infer import Told
from tinymim.vit.backbone import skeleton


def main(arguments: list[str]) -> int:
    """Run ``tinymim teachers [list | show | fetch | verify | add | save]``."""
    parser = argparse.ArgumentParser(prog="tinymim teachers", description=__doc__)
    actions = parser.add_subparsers(dest="action")
    actions.add_parser("list", help="the cards, and whether each one's weights are here (the default)")
    showing = actions.add_parser("show", help="all that is known of one teacher")
    showing.add_argument("name", help="a card's name or path, timm:NAME, or the path of a file or folder with weights")
    fetching = actions.add_parser("fetch", help="download a card's weights")
    fetching.add_argument("name", help="a card's name or path, or timm:NAME")
    fetching.add_argument("--record", action="store_true", help="write their sha256 into a card that has none")
    verifying = actions.add_parser("verify", help="read a teacher's weights and compare them with what is said of them")
    verifying.add_argument("name", help="as for show")
    adding = actions.add_parser("add", help="write a card for a file of weights")
    adding.add_argument("file", help="the weights, or a folder of timm's or transformers' with config.json")
    adding.add_argument("--name", help="of the card; needed")
    adding.add_argument("--licence", help="of the weights; needed where the folder does not say it")
    adding.add_argument("--arch", help="timm's name, over which the sizes in the file are laid")
    adding.add_argument("--heads", type=int, nargs="+", help="of all blocks, or of each")
    adding.add_argument("--mean", type=float, nargs=3, metavar=("R", "G", "B"), help="of the input, images in [0, 1]")
    adding.add_argument("--std", type=float, nargs=3, metavar=("R", "G", "B"), help="likewise")
    adding.add_argument("--target-block", type=int, help="to distil from; else by the rule")
    adding.add_argument("--labels-seen", action="store_true", help="labels were used in its training")
    adding.add_argument("--citation", default="none given", help="the paper")
    adding.add_argument("--source", help="who trained it, on what")
    adding.add_argument("--copy", action="store_true", help="copy the file beside the card")
    saving = actions.add_parser(
        "save", help="write a checkpoint's backbone as a card's weights, and their sha256 into the card"
    )
    saving.add_argument("checkpoint", type=Path)
    saving.add_argument("card")
    options = parser.parse_args(arguments)
    match options.action:
        case "show":
            show(options.name)
        case "fetch":
            fetch(locate.named(options.name), options.record)
        case "verify":
            verify(options.name)
        case "add":
            add(options)
        case "save":
            save(options.checkpoint, cards.find(options.card))
        case _:
            overview()
    return 0


def overview() -> None:
    """Print a table of the cards, and those that cannot be read."""
    table = Table(title="teachers", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("architecture", overflow="fold")
    for column in ("labels", "licence", "weights"):
        table.add_column(column, no_wrap=True)
    broken = []
    for path in cards.paths().values():
        try:
            card = cards.read(path)
            here = "present" if card.weights_path() else "missing"
        except TinymimError as error:
            broken.append(str(error))
            continue
        except Exception as error:  # one card is no reason to hide the others
            broken.append(str(unreadable(f"teacher card {path}", error)))
            continue
        arch, labels = card.architecture.arch.removesuffix("_224"), "seen" if card.labels_seen else "no"
        table.add_row(card.name, arch, labels, card.licence.partition(";")[0], here)
    console = PlainConsole()
    console.print(table)
    for line in broken:
        console.print(line, soft_wrap=True, style="red")
    console.print("`tinymim teachers show NAME` says more, `fetch NAME` downloads; timm:NAME is any other ViT of timm")


def show(source: str) -> None:
    """Print all that is known of a teacher."""
    located = locate.locate(source)
    network, card = located.skeleton, located.card
    block = located.target_block
    count = sum(parameter.numel() for parameter in network.vit.parameters())
    tokens = network.prefix + network.grid[0] * network.grid[1]
    mean, std = (
        ", ".join(f"{x:.4g}" for x in (network.architecture.mean, network.architecture.std)[i]) for i in (0, 1)
    )
    heads = network.heads[(block or network.depth) - 1]
    lines = {
        "teacher": card.name if card else source,
        "network": network.describe(),
        "size": f"{count / 1e6:.1f} M parameters, {tokens} tokens",
        "input": f"mean {mean}, standard deviation {std}",
        "target block": f"{block} of {network.depth}" if block else "by rule: the last, or 3/4 of a deeper network's",
        "relations": f"{heads} heads of {network.width // heads} channels there; a student's width has to divide by "
        f"{heads}, or relation.heads names a number that divides {network.width} and the student's",
        "classes": str(located.classes or "none: no logits to distil"),
        "licence": cards.terms(located.licence),
        **(_card_lines(card) if card else {"weights": source}),
    }
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for title, text in lines.items():
        table.add_row(title, text)
    PlainConsole().print(table)


def _card_lines(card: Card) -> dict[str, str]:
    path = card.weights_path()
    lines = {
        "labels": "seen in training" if card.labels_seen else "never seen",
        "source": card.source,
        "paper": card.citation,
        "note": card.note,
        "weights": str(path) if path else f"missing: {card.how_to_get()}",
        "sha256": card.sha256 or "not recorded: nothing to compare a file with",
        "card": str(card.path) if card.path.is_file() else "",
    }
    return {title: text for title, text in lines.items() if text}


def fetch(card: Card, record: bool) -> None:
    """Download a card's weights to where they belong, whole or not at all.

    Args:
        card: of the weights.
        record: write their sha256 into the card, if it has none.

    Raises:
        TinymimError: no network, or no file; the message says where to get it and where to put it.
    """
    if path := card.weights_path():
        print(f"{card.name}: the weights are here already, at {path}")
        return
    if not card.address:
        raise TinymimError(f"{card.name} has no address that a program can fetch; {card.how_to_get()}")
    card.check_writable()
    if record and not card.sha256:
        card.check_recordable()
    try:
        digest = download(card.address, card.place, card.sha256)
    except TinymimError as error:
        raise TinymimError(f"{error}; {card.by_hand()}") from None
    except KeyboardInterrupt:
        raise TinymimError(f"{card.name}: the download was interrupted, and nothing of it is left") from None
    check = "as its card says" if card.sha256 else "which its card does not say"
    if record and not card.sha256:
        card.record_sha256(digest)
        check = f"now written into {card.path}"
    print(f"{_wrote(card.place)}, sha256 {digest}, {check}")
    print(f"licence {cards.terms(card.licence)}")


def verify(source: str) -> None:
    """Read a teacher's weights whole, compare them with what is said of them, and print where they came from.

    Raises:
        TinymimError: they are missing, damaged, or those of another network.
    """
    located = locate.locate(source)
    backbone, provenance = located.load(classifier=bool(located.classes))
    print(provenance)
    print(f"fits {backbone.describe()}")
    print(f"licence {cards.terms(located.licence)}")


def add(options: argparse.Namespace) -> None:
    """Write a card for a file of weights into the first folder of cards; the file stays where it is.

    Raises:
        TinymimError: something the weights do not say is not given, or there is such a card already.
    """
    path = infer.weights_in(options.file)
    if path is None:
        raise TinymimError(f"{options.file} is no file of weights ({', '.join(names.WEIGHTS)}) and no folder of them")
    file = weights.read(path)
    if file.record:
        raise TinymimError(f"{path} is a checkpoint of tinymim, which needs no card: name it by its path")
    heads = options.heads[0] if options.heads and len(options.heads) == 1 else options.heads
    beside = infer.beside(path)
    told = Told(
        options.arch or beside.arch,
        heads or beside.heads,
        tuple(options.mean) if options.mean else beside.mean,
        tuple(options.std) if options.std else beside.std,
        options.licence or beside.licence,
        beside.options if not options.arch else {},
    )
    architecture, unsaid = infer.deduce(path, file, told)
    missing = [name for name, value in (("name", options.name), ("licence", told.licence)) if not value]
    if architecture is None or missing:
        raise TinymimError(
            f"{path} holds {contents.describe(file.form, file.state)}; what it does not say has to be given: "
            f"{', '.join(f'--{name}' for name in [*missing, *unsaid])}"
        )
    if not re.fullmatch(r"[A-Za-z0-9][\w-]*", options.name, re.ASCII):
        raise TinymimError(f"--name: {options.name!r} names no file; take letters, digits, - and _")
    if present := cards.paths().get(options.name):
        raise TinymimError(f"--name: there is a card {present} already; take another name, or remove it")
    backbone, _, _ = weights.built(architecture, file)
    if options.target_block and not 1 <= options.target_block <= backbone.depth:
        raise TinymimError(f"--target-block: {options.target_block} is not one of the blocks 1 to {backbone.depth}")

    card = cards.folders()[0] / f"{options.name}.yaml"
    kept = f"{options.name}{path.suffix}" if options.copy else str(path.resolve())
    plain = {key: list(v) if isinstance(v, tuple) else v for key, v in dataclasses.asdict(architecture).items()}
    content: dict[str, Any] = {
        "name": options.name,
        "architecture": plain,
        "file": kept,
        "sha256": files.sha256(path),
        "target_block": options.target_block,
        "labels_seen": options.labels_seen,
        "licence": told.licence,
        "citation": options.citation,
        "source": options.source or f"a file of form {file.form}",
    }
    record_schemas.fit(content, record_schemas.Card, "teachers add")
    if options.copy:
        files.write_atomically(card.parent / kept, lambda temporary: shutil.copyfile(path, temporary))
    files.write_text(card, yaml.safe_dump(content, sort_keys=False, width=120))
    print(f"wrote {card}: {backbone.describe()}, licence {cards.terms(told.licence)}")


def save(checkpoint: Path, card: Card) -> None:
    """Export a backbone in bfloat16 as ``card``'s weights, and record its sha256.

    Args:
        checkpoint: of this project.
        card: card whose architecture it must have.

    Raises:
        TinymimError: another architecture, or a card without a sha256 line.
    """
    card.check_writable()
    backbone, _, _ = weights.load(checkpoint)
    wanted = skeleton(card.architecture)
    if (backbone.describe(), backbone.heads) != (wanted.describe(), wanted.heads):
        raise TinymimError(f"{checkpoint} holds {backbone.describe()}, and card {card.name} says {wanted.describe()}")
    card.check_recordable()
    weights.export(backbone, card.place, {"licence": card.licence}, dtype=torch.bfloat16)
    digest = files.sha256(card.place)
    card.record_sha256(digest)
    print(f"{_wrote(card.place)}, sha256 {digest}")


def _wrote(path: Path) -> str:
    return f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)"
