"""Summary of a state dict: its network's class and sizes, and its keys by their meaning, for people."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from tinymim.errors import TinymimError
from tinymim.teachers.formats import State

ENCODER = (
    "blocks.",
    "patch_embed.",
    "pos_embed",
    "cls_token",
    "dist_token",
    "reg_token",
    "register_tokens",
    "norm_pre.",
    "rel_pos_bias.",
)
"""How the names of an encoder's weights begin: those of a file must all find their place."""

FAMILIES = {
    "ViT": "vit_*",
    "BEiT": "beit_*",
    "EVA-02": "eva02_*",
    "DINOv3": "vit_*_dinov3_qkvb",
}  # timm's names for each class of network
PARTS = (
    (r"norm[12]\.", "norms"),
    (r"attn\.k(_proj\.|_)bias", "key bias"),
    (r"attn\.relative_position", "relative position bias"),
    (r"attn\.", "attention"),
    (r"mlp\.", "MLP"),
    (r"ls[12]\.|gamma_", "layer scale"),
)
"""Parts of a block, by how the rest of a key begins."""

MEANINGS = (
    (r"patch_embed\.", "patch embedding"),
    (r"pos_embed", "positions"),
    (r"cls_token", "CLS token"),
    (r"dist_token", "distillation token"),
    (r"reg_token|register_tokens", "registers"),
    (r"norm_pre\.", "norm before the blocks"),
    (r"rel_pos_bias\.", "shared relative position bias"),
    (r"decoder", "decoder"),
    (r"(.*\.)?(mask_token|masked_embed)", "mask token"),
    (r"lm_head\.", "token classifier"),
    (r"cls_pt_", "blocks of the CLS pre-training"),
    (r"(.*\.)?((dino_|ibot_)?head\.(mlp|last_)|(dino|ibot)_head)", "projection head"),
    (r"(head|head_dist)\.", "classifier"),
    (r"(norm|fc_norm)\.", "final norm"),
    (r"conv1x1\.|neck\.", "neck"),
    (r"pooler\.", "pooler"),
)

MOST = 20_000
"""Most tensors in a file. The largest network that is read has a thousand; names of a million take minutes."""

LONGEST = 500
"""Letters of a tensor's name, which messages show."""

Shapes = dict[str, tuple[int, ...]]  # shapes of tensors, by the names that all blocks share


@dataclass(frozen=True)
class WeightsSummary:
    """The network that a state dict under timm's names belongs to; a size that its shapes do not say is 0."""

    kind: str  # its class, a key of :data:`FAMILIES`
    width: int  # channels of a token
    depth: int  # blocks
    patch: int  # side of a patch in pixels
    mlp_ratio: float  # hidden channels of the MLP over the width; those of one half, where it is gated
    options: dict[str, Any]  # timm's options besides the sizes, as these weights need them

    def __str__(self) -> str:
        sizes = {"width": self.width, "depth": self.depth, "patch": self.patch, "MLP ratio": self.mlp_ratio}
        known = [f"{name} {value:.4g}" for name, value in sizes.items() if value]
        return f"{self.kind}: {', '.join(known)}"


def check_names(path: Path, keys: Collection[str]) -> None:
    """Raise where a file has more than :data:`MOST` tensors, or a name of more than :data:`LONGEST` letters."""
    if len(keys) > MOST:
        raise TinymimError(f"{path} holds {len(keys):,} tensors, and no network that is read has more than {MOST:,}")
    if (length := max(map(len, keys), default=0)) > LONGEST:
        raise TinymimError(f"{path} holds a tensor whose name has {length:,} letters, and {LONGEST} are taken")


def summarise(state: State) -> WeightsSummary | None:
    """Summarise weights in whichever of timm's spellings; ``None`` where there is no block of a ViT."""
    blocks = [int(match[1]) for match in (re.match(r"blocks\.(\d+)\.", key) for key in state) if match]
    if not blocks:
        return None
    shape = {re.sub(r"^blocks\.\d+\.", "", key): tuple(value.shape) for key, value in state.items()}
    hidden = _size(shape, "mlp.fc2.weight", 1, 2)
    width = _size(shape, "norm1.weight", 0, 1) or _size(shape, "mlp.fc2.weight", 0, 2)
    gated = "mlp.fc1_g.weight" in shape or (hidden and _size(shape, "mlp.fc1.weight", 0, 2) == 2 * hidden)
    tables = {"attn.relative_position_bias_table", "rel_pos_bias.relative_position_bias_table"} & shape.keys()
    scaled = bool({"ls1.gamma", "gamma_1"} & shape.keys())
    kind = "BEiT" if tables else "EVA-02" if gated and not scaled else "ViT"
    if scaled and "pos_embed" not in shape and "reg_token" in shape:
        kind = "DINOv3"
    patch, ratio = _size(shape, "patch_embed.proj.weight", 3, 4), hidden / width if width else 0
    return WeightsSummary(kind, width, max(blocks) + 1, patch, ratio, _options(kind, scaled, shape))


def _size(shape: Shapes, name: str, axis: int, axes: int) -> int:
    sizes = shape.get(name, ())
    return sizes[axis] if len(sizes) == axes else 0


def _options(kind: str, scaled: bool, shape: Shapes) -> dict[str, Any]:
    if kind == "EVA-02":
        return {"scale_mlp": "mlp.norm.weight" in shape}
    if kind == "DINOv3":
        gated = _size(shape, "mlp.fc1.weight", 0, 2) == 2 * _size(shape, "mlp.fc2.weight", 1, 2)
        return {
            "qkv_bias": bool({"attn.qkv.bias", "attn.q_bias"} & shape.keys()),
            "num_reg_tokens": _size(shape, "reg_token", 1, 3),
            "swiglu_mlp": gated or "mlp.fc1_g.weight" in shape,
        }
    init = {"init_values": 1e-5 if scaled else 0}  # timm drops None where a model has a value of its own
    if kind == "BEiT":
        return init | {
            "use_abs_pos_emb": "pos_embed" in shape,
            "use_rel_pos_bias": "attn.relative_position_bias_table" in shape,
            "use_shared_rel_pos_bias": "rel_pos_bias.relative_position_bias_table" in shape,
        }
    registers, positions = _size(shape, "reg_token", 1, 3), _size(shape, "pos_embed", 1, 3)
    without = math.isqrt(positions) ** 2 == positions  # as many as patches in a square: the prefix has none
    return (
        init
        | {"class_token": "cls_token" in shape, "reg_tokens": registers}
        | ({"no_embed_class": without} if registers else {})
    )


def describe(form: str, state: State) -> str:
    """Describe a file for a refusal: ``MAE weights (ViT: width 1024, depth 24, patch 14, MLP ratio 4)``."""
    keys = ", ".join(sorted(state)[:3])
    return f"{form} weights ({summarise(state) or f'no ViT; keys: {keys}'})"


def advice(state: State, network: State) -> str:
    """Advise which of timm's options would make a network one for a file's ``state``; empty where none would."""
    held, built = summarise(state), summarise(network)
    if not held or not built:
        return ""
    if held.kind != built.kind:
        return f"; it is for one of timm's {FAMILIES[held.kind]}, with options {held.options}"
    differ = {name: value for name, value in held.options.items() if built.options.get(name) != value}
    return f"; the card's architecture.options would have to say {differ}" if differ else ""


def by_meaning(keys: Iterable[str]) -> str:
    """``keys`` in words: ``block 12's attention, decoder (52), mask token``; empty where there are none."""
    counts: Counter[str] = Counter()
    blocks: dict[int, set[str]] = {}
    for key in sorted(keys):
        if match := re.match(r"blocks\.(\d+)\.(.*)", key):
            part = next((name for pattern, name in PARTS if re.match(pattern, match[2])), match[2])
            blocks.setdefault(int(match[1]) + 1, set()).add(part)
        else:
            counts[next((name for pattern, name in MEANINGS if re.match(pattern, key)), key.split(".")[0])] += 1
    words = []
    # Neighbouring blocks with the same parts: block number minus position is the same throughout such a run.
    runs = groupby(enumerate(sorted(blocks)), key=lambda item: (item[1] - item[0], sorted(blocks[item[1]])))
    for (_, parts), run in runs:
        numbers = [number for _, number in run]
        which = f"block {numbers[0]}" if len(numbers) == 1 else f"blocks {numbers[0]} to {numbers[-1]}"
        whole = {"norms", "attention", "MLP"} <= set(parts)
        words.append(which if whole else f"{which}'s {' and '.join(parts)}")
    words += [f"{name} ({count})" if count > 1 else name for name, count in counts.items()]
    return ", ".join(words)
