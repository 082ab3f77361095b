"""Weights of others in a file or folder, without a card: what they say of themselves, and what they cannot say.

Keys and shapes give a network's class and sizes. Heads, and what was done to the images, are in no weights: they come
from the card whose file has this name, from a ``config.json`` beside the weights, or from how published networks of
these sizes are made. Where none of these is certain, the refusal gives the command that writes a card.
"""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from timm.data import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from timm.layers import build_sincos2d_pos_embed

from tinymim.errors import TinymimError
from tinymim.safety import names, text
from tinymim.teachers import card as cards
from tinymim.teachers import contents, record_schemas
from tinymim.teachers.card import Card
from tinymim.teachers.contents import Contents
from tinymim.teachers.formats import State
from tinymim.teachers.weights import File
from tinymim.vit import network_options as network
from tinymim.vit.architecture import IMAGENET_MEAN, IMAGENET_STD, Architecture
from tinymim.vit.backbone import Backbone, skeleton
from tinymim.vit.positions import TABLE

IN_FOLDER = ("model.safetensors", "pytorch_model.bin")
"""What timm, transformers and our exports call the weights in a folder of theirs."""

BASES = {"ViT": "vit_base_patch16_224", "BEiT": "beit_base_patch16_224", "EVA-02": "eva02_base_patch14_224"}
"""What the sizes of an uncommon network of each class are laid over."""

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
}
"""Networks by class, width and depth, whose heads are known."""

IMAGENET_FORMS = ("MAE", "SimMIM", "iBOT", "DINOv2", "BEiTv2", "TinyMIM*")
"""Forms whose authors normalise images by ImageNet's mean and standard deviation."""

Colour = tuple[float, float, float]


@dataclass
class Told:
    """What weights do not say, as far as somebody says it.

    Args:
        arch: timm's name, over which the sizes are laid.
        heads: attention heads, one number or one for each block.
        mean: of the input.
        std: of the input.
        licence: of the weights; empty where nobody says it.
        options: timm's options beside the sizes.
    """

    arch: str | None = None
    heads: int | list[int] | None = None
    mean: Colour | None = None
    std: Colour | None = None
    licence: str = ""
    options: dict[str, Any] = field(default_factory=dict)


def weights_in(source: str) -> Path | None:
    """The file of weights that ``source`` is, or that lies in that folder; ``None`` where it is no path of either.

    Raises:
        TinymimError: a folder without weights, or a file that can hold none.
    """
    path = Path(source)
    if path.suffix in names.WEIGHTS:
        return path
    if path.is_file() and path.suffix not in ("", ".yaml", ".yml"):  # names of cards, and cards
        raise TinymimError(f"teacher: {path} is no file of weights, which end in {', '.join(names.WEIGHTS)}")
    found = next((path / name for name in IN_FOLDER if (path / name).is_file()), None)
    if found is None and path.is_dir() and "/" in source:
        raise TinymimError(f"teacher: the folder {path} has no {' and no '.join(IN_FOLDER)}")
    return found


def card(path: Path, file: File) -> Card:
    """What is known of somebody else's weights.

    Args:
        path: of the file.
        file: as read.

    Raises:
        TinymimError: that is not enough; the message has the command that writes a card.
    """
    if known := next((one for one in _readable() if one.file == path.name), None):
        return replace(known, file=str(path.resolve()))
    told = beside(path)
    architecture, unsaid = deduce(path, file, told)
    if architecture is None:
        options = " ".join(f"--{name} ..." for name in unsaid)
        raise TinymimError(
            f"teacher: {path} holds {contents.describe(file.form, file.state)}, and does not say its "
            f"{', '.join(unsaid)}; `tinymim teachers add {shlex.quote(str(path))} --name ... --licence ... {options}` "
            "writes a card that does"
        )
    return Card(
        name=path.name if path.name not in IN_FOLDER else path.parent.name,
        architecture=architecture,
        file=str(path.resolve()),
        licence=told.licence or "unknown",
        citation="none",
        source=f"a file of form {file.form}, without a card",
    )


def _readable() -> list[Card]:
    found = []
    for place in cards.paths().values():
        try:
            found.append(cards.read(place))
        except TinymimError:
            continue
    return found


def beside(path: Path) -> Told:
    """What ``config.json`` in the folder of weights says, timm's or transformers'; nothing where there is none.

    Raises:
        TinymimError: it cannot be read.
    """
    if path.name not in IN_FOLDER or not (path.parent / "config.json").is_file():
        return Told()
    place, images = path.parent / "config.json", path.parent / "preprocessor_config.json"
    config = _json(place)
    if "architecture" in config:  # timm's
        told = record_schemas.fit(config, record_schemas.TimmConfig, f"teacher: {place}")
        options, published = told.model_args or {}, told.pretrained_cfg or record_schemas.Published()
        network.check(options, f"teacher: {place}: model_args")
        heads = options.get("num_heads")
        return Told(told.architecture, heads, published.mean, published.std, published.license or "", options)
    theirs = record_schemas.fit(config, record_schemas.TransformersConfig, f"teacher: {place}")
    if theirs.hidden_act != "gelu" or theirs.layer_norm_eps > 1e-5:
        said = f"hidden_act {theirs.hidden_act}, layer_norm_eps {theirs.layer_norm_eps}"
        raise TinymimError(
            f"teacher: {place} says {said}, and the networks that are read here have gelu and "
            "1e-6: the same weights would compute something else"
        )
    shown = record_schemas.fit(
        _json(images) if images.is_file() else {}, record_schemas.ImageConfig, f"teacher: {images}"
    )
    if not shown.do_normalize:
        shown.image_mean, shown.image_std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return Told(heads=theirs.num_attention_heads, mean=shown.image_mean, std=shown.image_std)


def _json(path: Path) -> dict[str, Any]:
    content = text.read_json(path, f"teacher: {path}")
    return content if isinstance(content, dict) else {}


def deduce(path: Path, file: File, told: Told) -> tuple[Architecture | None, list[str]]:
    """The architecture of somebody else's weights.

    Args:
        path: of the file, for the error.
        file: as read.
        told: what is known besides.

    Returns:
        The architecture, or ``None`` and what would have to be told: ``heads``, ``mean``, ``std``.

    Raises:
        TinymimError: no ViT.
    """
    held = contents.look(file.state)
    if held is None or not held.width or not held.patch:
        raise TinymimError(f"teacher: {path} holds {contents.describe(file.form, file.state)}")
    _check_positions(path, file.state)
    common = PUBLISHED.get((held.kind, held.width, held.depth))
    network = skeleton(Architecture(told.arch or common or BASES[held.kind]))
    own = contents.look(network.vit.state_dict())
    if not own or own.kind != held.kind:
        raise TinymimError(f"arch: {network.architecture.arch} is no {held.kind}, and {path} holds a {held}")
    heads = told.heads or _heads_in_tables(file.state)
    if not heads and (told.arch or (common and not _only_relations(file.state, held.depth))):
        heads = network.heads[0]
    fixed = _is_sincos(file.state.get("pos_embed"))
    mean, std = _normalisation(held, file.form, fixed)
    mean, std = told.mean or mean, told.std or std
    unsaid = [name for name, value in {"heads": heads, "mean": mean, "std": std}.items() if not value]
    if heads is None or mean is None or std is None:
        return None, unsaid
    options = {**_sizes(network, own, held, file.state), **told.options}
    return Architecture(network.architecture.arch, options, heads, "sincos" if fixed else "learned", mean, std), []


def _check_positions(path: Path, state: State) -> None:
    """Raise unless positions are of the shapes that heads and the grid are told from."""
    for key, value in state.items():
        shape, right = tuple(value.shape), (1, "tokens", "width") if key == "pos_embed" else ("places", "heads")
        if key == "pos_embed" or key.endswith(TABLE):
            least = 1 if key == "pos_embed" else 4  # three entries are CLS's
            if len(shape) != len(right) or not all(shape) or (shape[0] != 1 if least == 1 else shape[0] < least):
                raise TinymimError(f"teacher: {path}: {key}: shape {shape}, and one is ({', '.join(map(str, right))})")


def _heads_in_tables(state: State) -> int | None:
    """Relative position biases have a column for each head."""
    tables = (value for key, value in state.items() if key.endswith(TABLE))
    return next((table.shape[1] for table in tables), None)


def _only_relations(state: State, depth: int) -> bool:
    """Whether what follows attention in the last block is as it was born, and was trained in the first: so it is where
    relations were distilled, and such students of TinyMIM's authors have other heads there than networks of their size
    have elsewhere."""

    def untouched(block: int) -> bool:
        scale, shift = (state.get(f"blocks.{block}.{part}") for part in ("norm2.weight", "mlp.fc1.bias"))
        return scale is not None and shift is not None and bool((scale == 1).all()) and not shift.any()

    return untouched(depth - 1) and not untouched(0)


def _is_sincos(positions: torch.Tensor | None) -> bool:
    """Whether positions are MAE's fixed ones: those of the patches, behind those of what precedes them."""
    if positions is None or positions.shape[-1] % 4:
        return False
    side = math.isqrt(positions.shape[1])
    fixed = build_sincos2d_pos_embed([side, side], dim=positions.shape[-1], interleave_sin_cos=False)
    return torch.allclose(positions[0, -side * side :].float(), fixed, atol=0.01)  # as near as bfloat16 comes


def _normalisation(held: Contents, form: str, fixed: bool) -> tuple[Colour | None, Colour | None]:
    """Mean and standard deviation of the input that published weights of this kind were trained with, if all were."""
    if held.kind == "EVA-02":
        return OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
    if form in IMAGENET_FORMS or fixed:
        return IMAGENET_MEAN, IMAGENET_STD
    return None, None


def _sizes(network: Backbone, own: Contents, held: Contents, state: State) -> dict[str, Any]:
    """timm's options that make of ``network`` one for ``state``: those that are not its own already."""
    sizes: dict[str, tuple[Any, Any]] = {
        "img_size": (_grid(state) * held.patch, network.image_size[0]),
        "patch_size": (held.patch, own.patch),
        "embed_dim": (held.width, own.width),
        "depth": (held.depth, own.depth),
        "mlp_ratio": (held.mlp_ratio, own.mlp_ratio),
    }
    sizes |= {name: (value, own.options.get(name)) for name, value in held.options.items()}
    return {name: value for name, (value, usual) in sizes.items() if value != usual}


def _grid(state: State) -> int:
    """Patches along a side."""
    if (positions := state.get("pos_embed")) is not None:
        return math.isqrt(positions.shape[1])  # the prefix is smaller than what the next square has more
    tables = [value for key, value in state.items() if key.endswith(TABLE)]
    return (math.isqrt(len(tables[0]) - 3) + 1) // 2 if tables else 0
