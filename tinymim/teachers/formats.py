"""Published forms of checkpoints (MAE, SimMIM, BEiT, EVA-02, DINOv2, Hugging Face's, ...): each is recognised by its
keys (:data:`FORMS`), and brought under timm's names (:data:`NAMES`).

A foreign state dict becomes the same weights under the names of timm's ``VisionTransformer``, q, k and v in one matrix,
whatever its authors call them; :func:`fitted` then spells them as one network does. timm's own filters know only the
files of their own class, and resample or leave over what here is refused, so they are not used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinymim.errors import TinymimError

State = dict[str, Tensor]

WRAPPERS = ("state_dict", "model", "module", "teacher", "student")
"""Keys under which checkpoints keep the state dict, the first that holds weights: of iBOT's and DINO's two networks the
teacher, which is what their authors evaluate."""

AVERAGES = ("model_ema", "state_dict_ema", "ema_state_dict", "ema", "ema_model")  # of weights, beside those in WRAPPERS
UNKNOWN = "unknown"
DINOV3 = "Hugging Face DINOv3"
FORMS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Hugging Face ViTMAE", (r"^decoder\.decoder_",)),
    ("Hugging Face data2vec-vision", (r"^data2vec_vision\.",)),
    ("Hugging Face BEiT or data2vec-vision", (r"\.lambda_1$",)),
    (DINOV3, (r"\.layer_scale1\.lambda1$", r"(^|\.)embeddings\.patch_embeddings\.weight$")),
    ("Hugging Face DINOv2", (r"\.layer_scale1\.lambda1$",)),
    ("Hugging Face ViT", (r"embeddings\.patch_embeddings\.projection\.",)),
    ("SimMIM", (r"^encoder\.mask_token$", r"^decoder\.0\.")),
    ("MAE", (r"^decoder_embed\.",)),
    ("iBOT", (r"(^|\.)masked_embed$|(^|\.)head\.(mlp|last_layer)\.",)),
    ("DINOv2", (r"(^|\.)mask_token$", r"\.ls1\.gamma$")),
    ("EVA-02", (r"\.mlp\.w(1|12)\.", r"\.attn\.q_bias$")),
    ("BEiTv2", (r"^cls_pt_layers\.",)),
    ("BEiT or data2vec-vision", (r"\.relative_position_bias_table$", r"(^|\.)mask_token$|relative_position_index$")),
    ("TinyMIM*", (r"(^|\.)dist_token$", r"(^|\.)conv1x1\.")),
    ("timm, MAE or TinyMIM", (r"(^|\.)blocks\.\d+\.",)),
)
"""Each form, and patterns each of which one of its keys has; the first that fits. timm's, MAE's and TinyMIM's encoders
have the same names."""

OTHERS = (
    ("Swin Transformer", r"(^|\.)layers\.\d+\.blocks\."),
    ("hierarchical network", r"(^|\.)stages\.\d+\."),
    ("ResNet", r"(^|\.)layer1\.0\.conv1\."),
    ("CLIP", r"(^|\.)resblocks\.\d+\."),
)
"""Networks that are no plain ViT, for the refusal."""

BLOCKS = re.compile(
    r"((?:[a-z_]\w*\.)*?)(?:blocks|encoder\.layer|model\.layer|layers?)\.\d+\.(?:norm[12]|layernorm_(?:before|after))\.(?:weight|bias)",
    re.IGNORECASE,
)
PATCHES = re.compile(r"(.*?)(?:patch_embed\.proj|embeddings\.patch_embeddings(?:\.projection)?)\.weight")
"""By these an encoder is found under whatever prefix: ``backbone.``, ``encoder.``, ``beit.``, ...; one with patches is
preferred, for a decoder may have blocks as well."""

BUFFERS = re.compile(r"(^|\.)(relative_position_index|rope\.freqs_(cos|sin))$")
"""Tensors that a network computes for itself, and some files hold."""

NAMES = (
    # Hugging Face, in published files and since transformers 5
    (r"^embeddings\.patch_embeddings\.(projection\.)?", "patch_embed.proj."),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.distillation_token$", "dist_token"),
    (r"^embeddings\.", ""),
    (r"^(encoder\.layer|model\.layer|layers?)\.(\d+)\.", r"blocks.\2."),
    (r"^(encoder\.relative_position_bias|shared_position_bias)\.", "rel_pos_bias."),
    (r"(\.attention\.attention)?\.relative_position_bias\.relative", ".attn.relative"),
    (r"\.attention(\.attention)?\.(query|q_proj)\.", ".attn.q_proj."),
    (r"\.attention(\.attention)?\.(key|k_proj)\.", ".attn.k_proj."),
    (r"\.attention(\.attention)?\.(value|v_proj)\.", ".attn.v_proj."),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"^(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.(lambda_|gamma_|layer_scale)([12])(\.lambda1)?$", r".ls\2.gamma"),
    (r"^layernorm\.", "norm."),
    (r"^pooler\.layernorm\.", "fc_norm."),
    (r"^classifier\.", "head."),
    # gated MLPs: the gate's half first
    (r"\.mlp\.(w12|weights_in)\.", ".mlp.fc1."),
    (r"\.mlp\.(w1|gate_proj)\.", ".mlp.fc1_g."),
    (r"\.mlp\.(w2|up_proj)\.", ".mlp.fc1_x."),
    (r"\.mlp\.(w3|weights_out|down_proj)\.", ".mlp.fc2."),
    (r"\.mlp\.ffn_ln\.", ".mlp.norm."),
)
"""Patterns in other authors' names, and what timm says instead; all are tried, in this order."""

SPELLINGS = {
    "attn.qkv.weight": (("attn.q_proj.weight", "attn.k_proj.weight", "attn.v_proj.weight"),),
    "attn.qkv.bias": (
        ("attn.q_proj.bias", "attn.k_proj.bias", "attn.v_proj.bias"),
        ("attn.q_bias", "attn.k_bias", "attn.v_bias"),
    ),
    "mlp.fc1.weight": (("mlp.fc1_g.weight", "mlp.fc1_x.weight"),),
    "mlp.fc1.bias": (("mlp.fc1_g.bias", "mlp.fc1_x.bias"),),
    "ls1.gamma": (("gamma_1",),),
    "ls2.gamma": (("gamma_2",),),
}
"""One tensor of a block, and the tensors that other networks of timm's have instead, in the same order of rows."""

KEY_BIASES = ("attn.k_proj.bias", "attn.k_bias")
"""BEiT and EVA have none, which is as good as zeros. A network without one takes no file that has other values."""

BLOCK = re.compile(r"(blocks\.\d+\.)(.+)")


def unwrapped(content: dict[Any, Any], most: int = 3) -> State:
    """The tensors in the innermost state dict of a checkpoint, at ``most`` so deep; empty where there are none."""
    for key in WRAPPERS if most else ():
        if isinstance(content.get(key), dict) and (state := unwrapped(content[key], most - 1)):
            return state
    return {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}


def recognised(path: Path, state: State) -> tuple[str, State]:
    """Recognise the form of a foreign state dict, and bring its weights under timm's names.

    Returns:
        The form's name, and the weights: the encoder's as a ``VisionTransformer`` has them, the others (decoder,
        classifier, ...) under the names they were stored with. A form that is not known is :data:`UNKNOWN`, or the
        name of a network that is no ViT, and its keys stay as they are.

    Raises:
        TinymimError: there are several networks in it.
    """
    state = {re.sub(r"^(module\.)+", "", key.replace("_orig_mod.", "")): value for key, value in state.items()}
    prefix = _prefix(path, state)
    if prefix is None:
        return next((name for name, mark in OTHERS if _any(state, mark)), UNKNOWN), state
    form = next((name for name, marks in FORMS if all(_any(state, mark) for mark in marks)), UNKNOWN)
    named: State = {}
    for key, value in sorted(state.items(), key=lambda item: item[0].startswith(prefix)):  # the encoder's names win
        if BUFFERS.search(key):
            continue
        name = key.removeprefix(prefix)
        for pattern, timms in NAMES:
            name = re.sub(pattern, timms, name)
        named[name] = value
    return form, _with_registers(_joined(named))


def _any(keys: Iterable[str], pattern: str) -> bool:
    return any(re.search(pattern, key) for key in keys)


def _prefix(path: Path, state: State) -> str | None:
    """The prefix of the encoder's names; ``None`` where no ViT is found."""
    prefixes = {match[1] for match in map(BLOCKS.fullmatch, state) if match}
    if len(prefixes) > 1:
        prefixes &= {match[1] for match in map(PATCHES.fullmatch, state) if match}
    if len(prefixes) > 1:
        raise TinymimError(
            f"{path} holds {len(prefixes)} networks, under {', '.join(map(repr, sorted(prefixes)))}; save one by itself"
        )
    return prefixes.pop() if prefixes else None


def _joined(state: State) -> State:
    """Join tensors of blocks to those of timm's ``VisionTransformer``; what lacks its other parts stays as it is."""
    state = dict(state)
    for block in sorted({match[1] for match in map(BLOCK.fullmatch, state) if match}):
        for part in ("weight", "bias"):  # DINOv3's names for the layers of an MLP are those of a gated one
            if f"{block}mlp.fc1_g.{part}" not in state and f"{block}mlp.fc1_x.{part}" in state:
                state[f"{block}mlp.fc1.{part}"] = state.pop(f"{block}mlp.fc1_x.{part}")
        for whole, spellings in SPELLINGS.items():
            for parts in spellings:
                names = [block + part for part in parts]
                shapes = {state[name].shape for name in names if name in state}
                complete = all(name in state or name.endswith(KEY_BIASES) for name in names)
                if complete and len(shapes) == 1 and all(shapes):
                    zeros = torch.zeros_like(state[names[0]])
                    state[block + whole] = torch.cat([state.pop(name, zeros) for name in names])
    return state


def _with_registers(state: State) -> State:
    """Name DINOv2's registers as timm does. DINOv2 adds positions before it inserts them: a CLS token may have its own
    added."""
    token, positions = state.get("cls_token"), state.get("pos_embed")
    if "register_tokens" not in state or token is None:
        return state
    if positions is None:  # DINOv3, which rotates
        return {"reg_token" if name == "register_tokens" else name: value for name, value in state.items()}
    if positions.dim() != 3 or positions[:, :1].shape != token.shape:
        return state
    state = dict(state)
    state["reg_token"] = state.pop("register_tokens")
    state["cls_token"] = token + positions[:, :1]
    state["pos_embed"] = positions[:, 1:]
    return state


def fitted(state: State, keys: Iterable[str]) -> State:
    """Spell ``state`` as the network with these ``keys`` does; what it has no name for stays as it is."""
    known, spelt = set(keys), dict[str, Tensor]()
    for key, value in state.items():
        spelt |= _spelt(key, value, known)
    return spelt


def _spelt(key: str, value: Tensor, known: set[str]) -> State:
    match = BLOCK.fullmatch(key)
    if key in known or not match or not value.dim():
        return {key: value}
    block, whole = match.groups()
    for parts in SPELLINGS.get(whole, ()):
        rows = value.chunk(len(parts))
        if block + parts[0] in known and len(rows) == len(parts):
            named = zip((block + part for part in parts), rows, strict=True)
            return {name: part for name, part in named if name in known or not name.endswith(KEY_BIASES) or part.any()}
    return {key: value}
