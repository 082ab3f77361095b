"""Infer the network of somebody else's weights that have no card, from the file and from the folder it lies in.

Keys and shapes give a network's class and sizes. Heads, and what was done to the images, are in no weights: they come
from the card whose file has this name, from a ``config.json`` beside the weights, or from how published networks of
these sizes are made. Where none of these is certain, the refusal gives the command that writes a card.
"""

from __future__ import annotations

import math
import shlex
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from timm.data import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from timm.layers import build_sincos2d_pos_embed

from tinymim.errors import TinymimError
from tinymim.safety import text
from tinymim.teachers import card as cards
from tinymim.teachers import formats, record_schemas, weights_summary
from tinymim.teachers.card import Card
from tinymim.teachers.formats import State
from tinymim.teachers.weights import File
from tinymim.teachers.weights_file import IN_FOLDER
from tinymim.teachers.weights_summary import WeightsSummary
from tinymim.vit import network_options as network
from tinymim.vit.architecture import IMAGENET_MEAN, IMAGENET_STD, Architecture
from tinymim.vit.backbone import Backbone, skeleton
from tinymim.vit.description import Resampling
from tinymim.vit.positions import TABLE

BASES = {
    "ViT": "vit_base_patch16_224",
    "BEiT": "beit_base_patch16_224",
    "EVA-02": "eva02_base_patch14_224",
    "DINOv3": "vit_base_patch16_dinov3_qkvb",
}
"""Networks over which the sizes of an uncommon one of each class are laid."""

PUBLISHED = {
    ("ViT", 192, 12): "vit_tiny_patch16_224",
    ("ViT", 384, 12): "vit_small_patch16_224",
    ("ViT", 768, 12): "vit_base_patch16_224",
    ("ViT", 1024, 24): "vit_large_patch16_224",
    ("ViT", 1280, 32): "vit_huge_patch14_224",
    ("ViT", 1536, 40): "vit_giant_patch14_dinov2",
    ("BEiT", 768, 12): "beit_base_patch16_224",
    ("BEiT", 1024, 24): "beit_large_patch16_224",
    ("EVA-02", 192, 12): "eva02_tiny_patch14_224",
    ("EVA-02", 384, 12): "eva02_small_patch14_224",
    ("EVA-02", 768, 12): "eva02_base_patch14_224",
    ("EVA-02", 1024, 24): "eva02_large_patch14_224",
    ("DINOv3", 384, 12): "vit_small_patch16_dinov3_qkvb",
    ("DINOv3", 768, 12): "vit_base_patch16_dinov3_qkvb",
    ("DINOv3", 1024, 24): "vit_large_patch16_dinov3_qkvb",
    ("DINOv3", 1280, 32): "vit_huge_plus_patch16_dinov3_qkvb",
}
"""Networks by class, width and depth, whose heads are known."""

IMAGENET_FORMS = ("MAE", "SimMIM", "iBOT", "DINOv2", "BEiTv2", "TinyMIM*")
"""Forms whose authors normalise images by ImageNet's mean and standard deviation."""

RESAMPLING: dict[str, Resampling] = {"DINOv2": "dinov2", "Hugging Face DINOv2": "transformers"}
"""Forms whose readers resample positions otherwise than timm; with registers all three do it alike."""

Colour = tuple[float, float, float]


@dataclass
class KnownFacts:
    """Facts that weights do not hold, as far as somebody states them: timm's name ``arch``, over which the sizes are
    laid, ``options`` beside them, the input's ``mean`` and ``std``, and the ``licence``, empty where nobody says it."""

    arch: str | None = None
    heads: int | list[int] | None = None
    mean: Colour | None = None
    std: Colour | None = None
    licence: str = ""
    options: dict[str, Any] = field(default_factory=dict)


def card(path: Path, file: File) -> Card:
    """The card of somebody else's weights: one that names this file, or one made from what is known of them.

    Raises:
        TinymimError: that is not enough; the message has the command that writes a card.
    """
    if card := _card_naming(path.name):
        return replace(card, file=str(path.resolve()))
    facts = beside(path)
    architecture, unsaid = deduce(path, file, facts)
    if architecture is None:
        options = " ".join(f"--{name} ..." for name in unsaid)
        raise TinymimError(
            f"teacher: {path} holds {weights_summary.describe(file.form, file.state)}, and does not say its "
            f"{', '.join(unsaid)}; `tinymim teachers add {shlex.quote(str(path))} --name ... --licence ... {options}` "
            f"writes a card that does{usual_colours(unsaid)}"
        )
    return Card(
        name=path.name if path.name not in IN_FOLDER else path.parent.name,
        architecture=architecture,
        file=str(path.resolve()),
        licence=facts.licence or "unknown",
        citation="none",
        source=f"a file of form {file.form}, without a card",
    )


def usual_colours(unsaid: list[str]) -> str:
    """Words on what ``--mean`` and ``--std`` usually are, where they are not said."""
    if not {"mean", "std"} & {*unsaid}:
        return ""
    return (
        "; --mean imagenet --std imagenet is usual (MAE and its kin, DINO, lightly-train, torchvision), half with "
        "Google's ViTs and timm's augreg, openai_clip with CLIP and EVA-02"
    )


def _card_naming(file: str) -> Card | None:
    for place in cards.paths().values():
        with suppress(TinymimError):
            if (card := cards.read(place)).file == file:
                return card
    return None


def beside(path: Path) -> KnownFacts:
    """Facts of ``config.json`` beside the weights, timm's or transformers'; none where there is no such file."""
    if path.name not in IN_FOLDER or not (path.parent / "config.json").is_file():
        return KnownFacts()
    place, images = path.parent / "config.json", path.parent / "preprocessor_config.json"
    config = _json(place)
    if "architecture" in config:  # timm's
        timms = record_schemas.fit(config, record_schemas.TimmConfig, f"teacher: {place}")
        options, published = timms.model_args or {}, timms.pretrained_cfg or record_schemas.Published()
        network.check(options, f"teacher: {place}: model_args")
        heads = options.get("num_heads")
        return KnownFacts(timms.architecture, heads, published.mean, published.std, published.license or "", options)
    theirs = record_schemas.fit(config, record_schemas.TransformersConfig, f"teacher: {place}")
    activation = "silu" if theirs.use_gated_mlp else "gelu"
    if theirs.model_type == "dinov3_vit" and theirs.rope_theta not in (None, 100):
        raise TinymimError(f"teacher: {place} says rope_theta {theirs.rope_theta:g}, and that of DINOv3 is 100")
    if theirs.hidden_act != activation or theirs.layer_norm_eps > 1e-5:
        raise TinymimError(
            f"teacher: {place} says hidden_act {theirs.hidden_act}, layer_norm_eps {theirs.layer_norm_eps}, and the "
            f"networks that are read here have {activation} and 1e-6: the same weights would compute something else"
        )
    stated = _json(images) if images.is_file() else {}
    processor = record_schemas.fit(stated, record_schemas.ImageConfig, f"teacher: {images}")
    mean, std = processor.image_mean, processor.image_std
    if not processor.do_normalize:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    # theirs are of bytes times a factor, ours of images in [0, 1]
    scale = 255 * (processor.rescale_factor or 1 / 255) if processor.do_rescale is not False else 255.0
    mean, std = (values and (values[0] / scale, values[1] / scale, values[2] / scale) for values in (mean, std))
    return KnownFacts(heads=theirs.num_attention_heads, mean=mean, std=std)


def _json(path: Path) -> dict[str, Any]:
    content = text.read_json(path, f"teacher: {path}")
    return content if isinstance(content, dict) else {}


def deduce(path: Path, file: File, facts: KnownFacts) -> tuple[Architecture | None, list[str]]:
    """Deduce the architecture of somebody else's weights in ``path``, with the ``facts`` that are known besides.

    Returns:
        The architecture, or ``None`` and what would have to be stated: ``heads``, ``mean``, ``std``.

    Raises:
        TinymimError: no ViT.
    """
    held = weights_summary.summarise(file.state)
    if held is None or not held.width or not held.patch:
        raise TinymimError(f"teacher: {path} holds {weights_summary.describe(file.form, file.state)}")
    _check_positions(path, file.state)
    # Sizes of a published network tell its heads, unless its last block was trained for other ones.
    common = PUBLISHED.get((held.kind, held.width, held.depth))
    if held.kind == "DINOv3" and not facts.arch and file.form != formats.DINOV3:
        raise TinymimError(
            f"teacher: {path} holds {weights_summary.describe(file.form, file.state)} without positions, and does not "
            f"say how q and k are rotated; `tinymim teachers add` takes timm's name of the network as --arch"
        )
    network = skeleton(Architecture(facts.arch or common or BASES[held.kind]))
    usual = weights_summary.summarise(network.vit.state_dict())
    if not usual or usual.kind != held.kind:
        raise TinymimError(f"arch: {network.architecture.arch} is no {held.kind}, and {path} holds a {held}")
    tables = (value for key, value in file.state.items() if key.endswith(TABLE))
    heads = facts.heads or next((table.shape[1] for table in tables), None)  # a column for each head
    if not heads and (facts.arch or (common and not _only_relations(file.state, held.depth))):
        heads = network.heads[0]
    fixed = _is_sincos(file.state.get("pos_embed"))
    mean, std = facts.mean, facts.std
    if held.kind == "EVA-02":
        mean, std = mean or OPENAI_CLIP_MEAN, std or OPENAI_CLIP_STD
    elif file.form in IMAGENET_FORMS or fixed:
        mean, std = mean or IMAGENET_MEAN, std or IMAGENET_STD
    unsaid = [name for name, value in {"heads": heads, "mean": mean, "std": std}.items() if not value]
    if heads is None or mean is None or std is None:
        return None, unsaid
    options = {**_sizes(network, usual, held, file.state), **facts.options}
    positions: Literal["learned", "sincos"] = "sincos" if fixed else "learned"
    resampling = "timm" if held.options.get("reg_tokens") else RESAMPLING.get(file.form, "timm")
    return Architecture(network.architecture.arch, options, heads, positions, mean, std, resampling), []


def _check_positions(path: Path, state: State) -> None:
    """Raise unless positions are of the shapes that heads and the grid are told from."""
    for key, value in state.items():
        shape, right = tuple(value.shape), (1, "tokens", "width") if key == "pos_embed" else ("places", "heads")
        if key == "pos_embed" or key.endswith(TABLE):
            least = 1 if key == "pos_embed" else 4  # three entries are CLS's
            if len(shape) != len(right) or not all(shape) or (shape[0] != 1 if least == 1 else shape[0] < least):
                raise TinymimError(f"teacher: {path}: {key}: shape {shape}, and one is ({', '.join(map(str, right))})")


def _only_relations(state: State, depth: int) -> bool:
    """Whether the parts after attention in the last block have their first values, and those in the first were trained:
    so it is where relations were distilled, and such students of TinyMIM's authors have other heads there than networks
    of their size have elsewhere."""

    def untouched(block: int) -> bool:
        scale, shift = (state.get(f"blocks.{block}.{part}") for part in ("norm2.weight", "mlp.fc1.bias"))
        return scale is not None and shift is not None and bool((scale == 1).all()) and not shift.any()

    return untouched(depth - 1) and not untouched(0)


def _is_sincos(positions: torch.Tensor | None) -> bool:
    """Whether the patches' positions, behind those of what precedes them, are fixed ones: MAE's and TinyMIM's, with the
    columns first, or timm's, with the same channels in another order."""
    if positions is None or positions.shape[-1] % 4:
        return False
    stored, side = positions[0].float(), math.isqrt(positions.shape[1])
    timms = build_sincos2d_pos_embed([side, side], dim=positions.shape[-1], interleave_sin_cos=False)
    sin_row, sin_column, cos_row, cos_column = timms.chunk(4, dim=1)
    published = torch.cat([sin_column, cos_column, sin_row, cos_row], dim=1)
    # as near as bfloat16 comes
    return any(torch.allclose(stored[-side * side :], table, atol=0.01) for table in (published, timms))


def _sizes(network: Backbone, usual: WeightsSummary, held: WeightsSummary, state: State) -> dict[str, Any]:
    """timm's options that make of ``network`` one for ``state``: those that are not its own already."""
    sizes: dict[str, tuple[Any, Any]] = {
        "img_size": (_grid(state) * held.patch or network.image_size[0], network.image_size[0]),
        "patch_size": (held.patch, usual.patch),
        "embed_dim": (held.width, usual.width),
        "depth": (held.depth, usual.depth),
        "mlp_ratio": (held.mlp_ratio, usual.mlp_ratio),
    }
    sizes |= {name: (value, usual.options.get(name)) for name, value in held.options.items()}
    return {name: value for name, (value, default) in sizes.items() if value != default}


def _grid(state: State) -> int:
    if (positions := state.get("pos_embed")) is not None:
        return math.isqrt(positions.shape[1])  # the prefix is smaller than what the next square has more
    tables = [value for key, value in state.items() if key.endswith(TABLE)]
    return (math.isqrt(len(tables[0]) - 3) + 1) // 2 if tables else 0
