"""``tinymim teachers``: what can teach, under which licence, and how to get its weights."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.table import Table

from tinymim.cli.help_page import Page
from tinymim.errors import TinymimError
from tinymim.files import sha256
from tinymim.safety.console import PlainConsole
from tinymim.safety.text import unreadable
from tinymim.teachers import card as cards
from tinymim.teachers.card import Card
from tinymim.teachers.download import fetch_weights
from tinymim.vit.description import IMAGENET_MEAN, IMAGENET_STD, colour_problem

# what needs torch, seconds of time, is imported where it is used: `tinymim teachers` and its help read cards alone


COLOURS = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "openai_clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
"""Means and standard deviations of images that networks are commonly trained with, by the name people give them."""


def main(arguments: list[str]) -> int:
    """Run ``tinymim teachers [list | show | fetch | verify | add | save]``."""
    parser = Page(
        prog="tinymim teachers", description="What can teach, under which licence, and how to get its weights."
    )
    actions = parser.add_subparsers(dest="action")
    actions.add_parser("list", help="the cards, and whether each one's weights are here (the default)")
    showing = actions.add_parser("show", help="all that is known of one teacher")
    showing.add_argument("name", help="a card's name or path, timm:NAME, or the path of a file or folder with weights")
    fetching = actions.add_parser("fetch", help="download a card's weights")
    fetching.add_argument("name", help="a card's name or path, or timm:NAME")
    fetching.add_argument("--record", action="store_true", help="write their sha256 into a card that has none")
    verifying = actions.add_parser("verify", help="read a teacher's weights and compare them with what is said of them")
    verifying.add_argument("name", help="as for show")
    _add_options(actions.add_parser("add", help="write a card for a file of weights"))
    saving = actions.add_parser(
        "save", help="write a checkpoint's backbone as a card's weights, and their sha256 into the card"
    )
    saving.add_argument("checkpoint", type=Path)
    saving.add_argument("card")
    options = parser.parse_args(arguments)
    if options.action == "show":
        show(options.name)
    elif options.action == "fetch":
        fetch_weights(_named(options.name), options.record)
    elif options.action == "verify":
        verify(options.name)
    elif options.action == "add":
        add(options)
    elif options.action == "save":
        save(options.checkpoint, cards.find(options.card))
    else:
        overview()
    return 0


def _add_options(parser: Page) -> None:
    """Add the options of ``tinymim teachers add``."""
    parser.add_argument("file", help="the weights, or a folder of timm's or transformers' with config.json")
    parser.add_argument("--name", help="of the card; needed")
    parser.add_argument("--licence", default="", help="of the weights; needed where the folder does not say it")
    parser.add_argument("--arch", help="timm's name, over which the sizes in the file are laid")
    parser.add_argument("--heads", type=int, nargs="+", help="of all blocks, or of each")
    known = ", ".join(COLOURS)
    parser.add_argument("--mean", nargs="+", help=f"of the input, images in [0, 1]: three numbers, or {known}")
    parser.add_argument("--std", nargs="+", help="likewise")
    parser.add_argument(
        "--image-size", type=int, help="side of the images it is to see, to which positions are resampled"
    )
    parser.add_argument("--target-block", type=int, help="to distil from; else by the rule")
    further = parser.further().add_argument
    further("--labels-seen", action="store_true", help="labels were used in its training")
    further("--citation", default="none given", help="the paper")
    further("--source", help="who trained it, on what")
    further("--copy", action="store_true", help="copy the file beside the card")


def _colour(options: argparse.Namespace, name: str) -> Any:
    """Three numbers that ``--mean`` or ``--std`` say, by a name of :data:`COLOURS` or one by one; or ``None``."""
    words = getattr(options, name)
    if words is None or (len(words) == 1 and words[0] in COLOURS):
        return words and COLOURS[words[0]][name == "std"]
    try:
        numbers = tuple(map(float, words))
    except ValueError:
        numbers = ()
    if len(numbers) != 3:
        raise TinymimError(
            f"--{name}: {' '.join(words)} is not three numbers, such as 0.5 0.5 0.5, nor one of {', '.join(COLOURS)}"
        )
    if problem := colour_problem(name, numbers):
        raise TinymimError(f"--{problem}")
    return numbers


def _named(source: str) -> Card:
    if not source.startswith(cards.TIMM):
        return cards.find(source)
    from tinymim.teachers import timm_hub

    return timm_hub.card(source)


def add(options: argparse.Namespace) -> None:
    """Write a card for a file of weights, as the options of ``tinymim teachers add`` say."""
    from tinymim.teachers.infer_architecture import KnownFacts
    from tinymim.teachers.new_card import write_card

    heads = options.heads[0] if options.heads and len(options.heads) == 1 else options.heads
    mean, std = (_colour(options, name) for name in ("mean", "std"))
    stated = KnownFacts(options.arch, heads, mean, std, options.licence)
    more = (options.target_block, options.labels_seen, options.citation, options.source, options.copy)
    print(write_card(options.file, options.name, stated, *more, image_size=options.image_size))


def verify(source: str) -> None:
    """Read a teacher's weights whole, compare them with what is said of them, and print where they came from.

    Raises:
        TinymimError: they are missing, damaged, or those of another network.
    """
    from tinymim.teachers import locate

    located = locate.locate(source)
    backbone, provenance = located.load(classifier=bool(located.classes))
    print(provenance)
    print(f"fits {backbone.describe()}")
    print(f"licence {cards.terms(located.licence)}")


def overview() -> None:
    """Print a table of the cards, and those that cannot be read."""
    table = Table(title="teachers", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("architecture", overflow="fold")
    table.add_column("labels", no_wrap=True)
    table.add_column("licence", no_wrap=True)
    table.add_column("weights", no_wrap=True)
    broken = []
    for name, path in cards.paths().items():
        try:
            card = cards.read(path)
            present = "present" if card.weights_path() else "missing"
        except TinymimError as error:
            broken.append(str(error))
            continue
        except Exception as error:  # one card is no reason to hide the others
            broken.append(str(unreadable(f"teacher card {path}", error)))
            continue
        if card.name != name:
            broken.append(f"teacher card {path}: name: {card.name}, and it is found by its file's, {name}")
        arch, labels = card.architecture.arch.removesuffix("_224"), "seen" if card.labels_seen else "no"
        table.add_row(name, arch, labels, card.licence.partition(";")[0], present)
    console = PlainConsole()
    console.print(table)
    for line in broken:
        console.print(line, soft_wrap=True, style="red")
    console.print(
        "`tinymim teachers show NAME` says more, `fetch NAME` downloads; timm:NAME is any other ViT of timm",
        markup=False,
    )


def show(source: str) -> None:
    """Print all that is known of a teacher."""
    from tinymim.teachers import locate

    located = locate.locate(source)
    network, card = located.skeleton, located.card
    stated = network.architecture
    block = located.target_block
    heads = network.heads[(block or network.depth) - 1]
    count = sum(parameter.numel() for parameter in network.vit.parameters())
    tokens = network.prefix + network.grid[0] * network.grid[1]
    lines = {
        "teacher": card.name if card else source,
        "network": network.describe(),
        "size": f"{count / 1e6:.1f} M parameters, {tokens} tokens",
        "input": "mean {}, standard deviation {}".format(
            *(", ".join(f"{value:.4g}" for value in values) for values in (stated.mean, stated.std))
        ),
        "target block": f"{block} of {network.depth}"
        if block
        else "by rule: the last of a network as deep as the student, else 3/4 of the depth",
        "relations": f"{heads} heads of {network.width // heads} channels there; a student's width has to divide by "
        f"{heads}, or relation.heads names a number that divides {network.width} and the student's",
        "classes": str(located.classes or "none: no logits to distil"),
        "licence": cards.terms(located.licence),
    }
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for title, text in {**lines, **(_of_card(card) if card else {"weights": source})}.items():
        table.add_row(title, text)
    PlainConsole().print(table)


def _of_card(card: Card) -> dict[str, str]:
    path = card.weights_path()
    rows = {
        "labels": "seen in training" if card.labels_seen else "never seen",
        "source": card.source,
        "paper": card.citation,
        "note": card.note,
        "weights": str(path) if path else f"missing: {card.how_to_get()}",
        "sha256": card.sha256 or "not recorded: nothing to compare a file with",
        "card": str(card.path) if card.path.is_file() else "",
    }
    return {title: text for title, text in rows.items() if text}


def save(checkpoint: Path, card: Card) -> None:
    """Export a backbone in bfloat16 as ``card``'s weights, and record its sha256.

    Raises:
        TinymimError: another architecture, or a card without a sha256 line.
    """
    import torch

    from tinymim.teachers import weights
    from tinymim.vit.backbone import skeleton

    card.check_writable()
    backbone, _, _ = weights.load(checkpoint)
    wanted = skeleton(card.architecture)
    if (backbone.describe(), backbone.heads) != (wanted.describe(), wanted.heads):
        raise TinymimError(f"{checkpoint} holds {backbone.describe()}, and card {card.name} says {wanted.describe()}")
    card.check_recordable()
    weights.export(backbone, card.place, {"licence": card.licence}, dtype=torch.bfloat16)
    digest = sha256(card.place)
    card.record_sha256(digest)
    print(f"wrote {card.place} ({card.place.stat().st_size / 1e6:.1f} MB), sha256 {digest}")
