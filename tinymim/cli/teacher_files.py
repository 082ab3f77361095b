"""The files behind teacher cards: fetched, verified, and cards written for those that have none."""

from __future__ import annotations

import argparse
import dataclasses
import re
import shutil
from typing import Any

import yaml

from tinymim import files
from tinymim.errors import TinymimError
from tinymim.safety import names
from tinymim.teachers import card as cards
from tinymim.teachers import contents, infer, locate, record_schemas, weights
from tinymim.teachers.card import Card
from tinymim.teachers.download import download
from tinymim.teachers.infer import Told
from tinymim.vit.architecture import Architecture


def fetch(card: Card, record: bool) -> None:
    """Download a card's weights to where they belong, whole or not at all.

    Args:
        card: whose.
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
    print(f"wrote {card.place} ({card.place.stat().st_size / 1e6:.1f} MB), sha256 {digest}, {check}")
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of ``tinymim teachers add``."""
    parser.add_argument("file", help="the weights, or a folder of timm's or transformers' with config.json")
    parser.add_argument("--name", help="of the card; needed")
    parser.add_argument("--licence", help="of the weights; needed where the folder does not say it")
    parser.add_argument("--arch", help="timm's name, over which the sizes in the file are laid")
    parser.add_argument("--heads", type=int, nargs="+", help="of all blocks, or of each")
    parser.add_argument("--mean", type=float, nargs=3, metavar=("R", "G", "B"), help="of the input, images in [0, 1]")
    parser.add_argument("--std", type=float, nargs=3, metavar=("R", "G", "B"), help="likewise")
    parser.add_argument("--target-block", type=int, help="to distil from; else by the rule")
    parser.add_argument("--labels-seen", action="store_true", help="labels were used in its training")
    parser.add_argument("--citation", default="none given", help="the paper")
    parser.add_argument("--source", help="who trained it, on what")
    parser.add_argument("--copy", action="store_true", help="copy the file beside the card")


def add(asked: argparse.Namespace) -> None:
    """Write a card for a file of weights into the first folder of cards; the file stays where it is.

    Args:
        asked: the arguments of :func:`add_arguments`.

    Raises:
        TinymimError: something the weights do not say is not given, or there is such a card already.
    """
    path = infer.weights_in(asked.file)
    if path is None:
        raise TinymimError(f"{asked.file} is no file of weights ({', '.join(names.WEIGHTS)}) and no folder of them")
    file = weights.read(path)
    if file.record:
        raise TinymimError(f"{path} is a checkpoint of tinymim, which needs no card: name it by its path")
    beside = infer.beside(path)
    told = Told(
        asked.arch or beside.arch,
        _heads(asked.heads) or beside.heads,
        tuple(asked.mean) if asked.mean else beside.mean,
        tuple(asked.std) if asked.std else beside.std,
        asked.licence or beside.licence,
        beside.options if not asked.arch else {},
    )
    architecture, unsaid = infer.deduce(path, file, told)
    missing = [name for name, given in (("name", asked.name), ("licence", told.licence)) if not given]
    if architecture is None or missing:
        raise TinymimError(
            f"{path} holds {contents.describe(file.form, file.state)}; what it does not say has to be given: "
            f"{', '.join(f'--{name}' for name in [*missing, *unsaid])}"
        )
    _check_name(asked.name)
    backbone, _, _ = weights.built(architecture, file)
    if asked.target_block and not 1 <= asked.target_block <= backbone.depth:
        raise TinymimError(f"--target-block: {asked.target_block} is not one of the blocks 1 to {backbone.depth}")
    place = cards.folders()[0] / f"{asked.name}.yaml"
    kept = f"{asked.name}{path.suffix}" if asked.copy else str(path.resolve())
    content = {
        "name": asked.name,
        "architecture": _plain(architecture),
        "file": kept,
        "sha256": files.sha256(path),
        "target_block": asked.target_block,
        "labels_seen": asked.labels_seen,
        "licence": told.licence,
        "citation": asked.citation,
        "source": asked.source or f"a file of form {file.form}",
    }
    record_schemas.fit(content, record_schemas.Card, "teachers add")
    if asked.copy:
        files.write_atomically(place.parent / kept, lambda temporary: shutil.copyfile(path, temporary))
    files.write_text(place, yaml.safe_dump(content, sort_keys=False, width=120))
    print(f"wrote {place}: {backbone.describe()}, licence {cards.terms(told.licence)}")


def _check_name(name: str) -> None:
    """Raise where a card cannot be called so."""
    if not re.fullmatch(r"[A-Za-z0-9][\w-]*", name, re.ASCII):
        raise TinymimError(f"--name: {name!r} names no file; take letters, digits, - and _")
    if taken := cards.paths().get(name):
        raise TinymimError(f"--name: there is a card {taken} already; take another name, or remove it")


def _heads(given: list[int] | None) -> int | list[int] | None:
    return given[0] if given and len(given) == 1 else given


def _plain(architecture: Architecture) -> dict[str, Any]:
    """In YAML's own types."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(architecture).items()
    }
