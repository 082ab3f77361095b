"""Write a teacher card for a file of weights that has none, from what the weights say and what the user adds."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

import yaml

from tinymim import files
from tinymim.errors import TinymimError
from tinymim.safety import names, text
from tinymim.teachers import card as cards
from tinymim.teachers import infer_architecture, record_schemas, weights, weights_file, weights_summary
from tinymim.teachers.infer_architecture import KnownFacts
from tinymim.vit.backbone import skeleton


def write_card(
    source: str,
    name: str | None,
    stated: KnownFacts,
    target_block: int | None = None,
    labels_seen: bool = False,
    citation: str = "none given",
    origin: str | None = None,
    copy: bool = False,
    image_size: int | None = None,
) -> str:
    """Write a card into the first folder of cards, and say so in a line; the file of weights stays where it is.

    Args:
        source: the file, or a folder of timm's or transformers' with ``config.json``.
        name: of the card.
        stated: what the user says of the network; it goes before what the folder says.
        target_block: to distil from; ``None`` leaves it to the rule.
        labels_seen: labels were used in its training.
        citation: the paper.
        origin: who trained it, on what.
        copy: copy the file beside the card.
        image_size: side of the images that it is to see, in pixels, to which positions are resampled; ``None`` is the
            one it was trained with. A DINOv2 of 518 px has 1370 tokens, and at 224 px 257.

    Raises:
        TinymimError: something the weights do not say is not stated, or there is such a card already.
    """
    path = weights_file.weights_in(source)
    if path is None:
        raise TinymimError(f"{source} is no file of weights ({', '.join(names.WEIGHTS)}) and no folder of them")
    file = weights.read(path)
    if file.record:
        raise TinymimError(f"{path} is a checkpoint of tinymim, which needs no card: name it by its path")
    folder = infer_architecture.beside(path)
    facts = KnownFacts(
        stated.arch or folder.arch,
        stated.heads or folder.heads,
        stated.mean or folder.mean,
        stated.std or folder.std,
        stated.licence or folder.licence,
        {} if stated.arch else folder.options,  # options of another network would be laid over it
    )
    architecture, unsaid = infer_architecture.deduce(path, file, facts)
    missing = [option for option, value in (("name", name), ("licence", facts.licence)) if not value]
    if architecture is None or name is None or missing:
        raise TinymimError(
            f"{path} holds {weights_summary.describe(file.form, file.state)}; what it does not say has to be given: "
            f"{', '.join(f'--{option}' for option in [*missing, *unsaid])}{infer_architecture.usual_colours(unsaid)}"
        )
    if not re.fullmatch(r"[A-Za-z0-9][\w-]*", name, re.ASCII):
        raise TinymimError(f"--name: {name!r} names no file; take letters, digits, - and _")
    if other := cards.paths().get(name):
        raise TinymimError(f"--name: there is a card {other} already; take another name, or remove it")
    if image_size is not None:
        patch = skeleton(architecture).patch[0]
        if image_size < patch or image_size % patch:
            raise TinymimError(f"--image-size: {image_size} is no multiple of its patches of {patch} px")
        architecture = replace(architecture, options={**architecture.options, "img_size": image_size})
    place = cards.folders()[0] / f"{name}.yaml"
    files.check_writable("card", place)
    backbone, _, _ = weights.built(architecture, file)
    if target_block and not 1 <= target_block <= backbone.depth:
        raise TinymimError(f"--target-block: {target_block} is not one of the blocks 1 to {backbone.depth}")
    kept = f"{name}{path.suffix}" if copy else str(path.resolve())
    content = {
        "name": name,
        "architecture": text.plain(architecture.record(), "the architecture"),
        "file": kept,
        "sha256": files.sha256(path),
        "target_block": target_block,
        "labels_seen": labels_seen,
        "licence": facts.licence,
        "citation": citation,
        "source": origin or f"a file of form {file.form}",
    }
    record_schemas.fit(content, record_schemas.CardFields, "teachers add")
    if copy:
        files.write_atomically(place.parent / kept, lambda temporary: shutil.copyfile(path, temporary))
    files.write_text(place, yaml.safe_dump(content, sort_keys=False, width=120))
    return f"wrote {place}: {backbone.describe()}, licence {cards.terms(facts.licence)}"
