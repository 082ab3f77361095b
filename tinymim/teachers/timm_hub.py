"""``timm:NAME``: any ViT of timm with its published weights, as a card made from what timm says of them."""

from __future__ import annotations

from pathlib import Path

import timm
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from timm.models import get_pretrained_cfg

from tinymim.errors import TinymimError
from tinymim.near_names import nearest
from tinymim.teachers.card import TIMM, Card, folders
from tinymim.teachers.download import PATIENCE, unreachable
from tinymim.vit.architecture import Architecture

PREFIX = TIMM
SAFETENSORS = "model.safetensors"  # name of a file of weights on timm's pages of the hub
LABELLED = {"in1k", "in12k", "in21k", "in22k"}
UNLABELLED = {"mim", "mae", "dino", "ijepa"}
"""Parts of timm's tags: sets that weights were trained on with labels, unless one of the others is there too."""


def card(source: str) -> Card:
    """The card of ``timm:NAME``, with or without timm's tag; nothing is read but timm's own tables.

    Raises:
        TinymimError: timm has no such model, or no weights of it on the hub.
    """
    name = source.removeprefix(PREFIX)
    arch, _, tag = name.partition(".")
    if not timm.is_model(arch):
        names = nearest(arch, timm.list_models())
        close = f"near it: {', '.join(names)}" if names else "one is vit_base_patch16_224"
        raise TinymimError(f"teacher: timm has no model {arch!r}; {close}")
    tags = [known.partition(".")[2] for known in timm.list_models(f"{arch}.*", pretrained=True)]
    published = get_pretrained_cfg(name, allow_unregistered=False) if tag in ("", *tags) else None
    if published is None or not published.hf_hub_id:
        available = f"it has {', '.join(tags)}" if tags else "give a file of yours a card with `tinymim teachers add`"
        raise TinymimError(f"teacher: timm has no weights {tag or 'at all'} of {arch} on the hub; {available}")
    full = f"{arch}.{published.tag}" if published.tag else arch
    labels = _saw_labels(arch, published.tag or "", published.num_classes)
    options: dict[str, object] = {"img_size": published.input_size[-1]}
    if labels and published.num_classes:
        options |= {"num_classes": published.num_classes, "global_pool": _pooling(arch)}
    return Card(
        name=f"{PREFIX}{full}",
        architecture=Architecture(arch, options, mean=_three(published.mean), std=_three(published.std)),
        file=f"{full}.safetensors",
        hub=f"{published.hf_hub_id}/{published.hf_hub_filename or SAFETENSORS}",
        labels_seen=labels,
        licence=published.license or "unknown",
        citation=_paper(published.paper_name, published.paper_ids) or "none stated by timm",
        source=f"timm {timm.__version__}'s {full}" + (f", from {published.origin_url}" if published.origin_url else ""),
        path=folders()[0] / f"{full}.yaml",
    )


def fetch(card: Card) -> Path:
    """The card's weights from the hub, through its cache.

    Raises:
        TinymimError: no network, or no such file there; the message says where to get it and where to put it.
    """
    if problem := missing(card):
        raise TinymimError(problem)
    try:
        return Path(hf_hub_download(*card.on_hub, etag_timeout=PATIENCE))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise TinymimError(f"teacher: {card.name} cannot be fetched ({reason}); {card.how_to_get()}") from None


def missing(card: Card) -> str | None:
    """Why the card's weights, which are not here, cannot be fetched either, or ``None``."""
    problem = unreachable(card.address)
    return problem and f"teacher: the weights of {card.name} are not here, and {problem}; {card.how_to_get()}"


def _saw_labels(arch: str, tag: str, classes: int) -> bool:
    """Whether labels were used: by fine-tuned weights, and others with a classifier (CLIP's outputs are no classes) or
    that name a labelled set and no training without labels."""
    words = set(tag.split("_"))
    classified = classes > 0 or (words & LABELLED and not words & UNLABELLED)
    return "ft" in words or bool(classified and "clip" not in arch.split("_"))


def _pooling(arch: str) -> str:
    import torch

    with torch.device("meta"):
        return str(timm.create_model(arch, pretrained=False).global_pool)


def _three(values: tuple[float, ...]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue


def _paper(name: str | None, ids: str | tuple[str, ...] | None) -> str:
    numbers = ids if isinstance(ids, str) else ", ".join(ids or ())
    return f"{name} ({numbers})" if name and numbers else name or numbers
