"""The options that make a network, for every family that is read; every other one is refused by name.

timm hands what it is given to whoever takes it: with ``checkpoint_path`` or ``pretrained_cfg`` it opens a file, or the
hub, with a loader that is not ours. So options out of records, ``config.json``, cards and recipes are compared with
this list before timm sees them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from tinymim.errors import TinymimError, several
from tinymim.near_names import nearest
from tinymim.safety.text import brief
from tinymim.safety.wording import taken

Size = Annotated[int, Meta(ge=1, le=1 << 14)]  # size of an image in pixels, or of a token in channels

Count = Annotated[int, Meta(ge=0, le=1 << 10)]
Share = Annotated[float, Meta(ge=0, le=1)]
Ratio = Annotated[float, Meta(gt=0, le=64)]
Scale = Annotated[float, Meta(gt=0, le=1e6)]
Flag = bool | None
Layer = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{1,30}\Z(?#a name of timm's for such a layer)")]
"""timm's name for a norm or an activation, looked up in its own table."""

Pair = Size | Annotated[list[Size], Meta(min_length=2, max_length=2)]
Stages = Annotated[list[Annotated[int, Meta(ge=1, le=256)]], Meta(min_length=1, max_length=8)]

OPTIONS: dict[str, Any] = {
    # sizes
    "img_size": Pair,
    "patch_size": Pair,
    "in_chans": Literal[3],
    "embed_dim": Size,
    "depth": Annotated[int, Meta(ge=0, le=256)],
    "num_heads": Count | Stages,
    "mlp_ratio": Ratio,
    "dynamic_img_size": Flag,
    "dynamic_img_pad": Flag,
    # tokens and positions
    "class_token": Flag,
    "reg_tokens": Count,
    "num_reg_tokens": Count,
    "no_embed_class": Flag,
    "pos_embed": Literal["learn", "none", ""],
    "use_abs_pos_emb": Flag,
    "use_rel_pos_bias": Flag,
    "use_shared_rel_pos_bias": Flag,
    "use_rot_pos_emb": Flag,
    "rope_type": Literal["cat", "mixed", "dinov3", "mrope", "none", ""] | None,
    "rope_grid_offset": Annotated[float, Meta(ge=-16, le=16)],
    "rope_grid_indexing": Literal["ij", "xy"],
    "rope_temperature": Scale,
    "rope_rotate_half": Flag,
    "ref_feat_shape": Pair | None,
    # attention and MLP
    "qkv_bias": Flag,
    "qkv_fused": Flag,
    "qk_norm": Flag,
    "proj_bias": Flag,
    "attn_type": Literal["eva", "rope"],
    "scale_attn_norm": Flag,
    "scale_attn_inner": Flag,
    "scale_mlp_norm": Flag,
    "scale_mlp": Flag,
    "swiglu_mlp": Flag,
    "swiglu_align_to": Count,
    "init_values": Annotated[float, Meta(ge=0, le=1e3)] | None,
    "attn_only_layer_scale": Flag,
    # norms and activation
    "norm_layer": Layer | None,
    "embed_norm_layer": Layer | None,
    "act_layer": Layer | None,
    "pre_norm": Flag,
    "final_norm": Flag,
    "fc_norm": Flag,
    "use_fc_norm": Flag,
    "use_post_norm": Flag,
    "use_pre_transformer_norm": Flag,
    "use_post_transformer_norm": Flag,
    # pooling and classifier
    "num_classes": Annotated[int, Meta(ge=0, le=1 << 20)],
    "global_pool": Literal["", "avg", "avgmax", "max", "token", "map"] | None,
    "pool_include_prefix": Flag,
    "head_init_scale": Annotated[float, Meta(ge=0, le=1e3)],
    # what is dropped in training, and how weights begin
    "drop_rate": Share,
    "pos_drop_rate": Share,
    "patch_drop_rate": Share,
    "proj_drop_rate": Share,
    "attn_drop_rate": Share,
    "drop_path_rate": Share,
    "weight_init": Literal["", "skip", "jax", "jax_nlhb", "moco", "reset"],
    "fix_init": Flag,
    # windows, of Swins, which are analysed
    "depths": Stages,
    "head_dim": Count | None,
    "window_size": Pair,
    "always_partition": Flag,
    "strict_img_size": Flag,
}
"""The type and range of each, over all networks; which of them one takes, timm says."""


def check(options: Any, field: str = "options") -> dict[str, Any]:
    """``options`` out of a file or recipe, once all of them make a network; ``field`` begins each line of the error.

    Raises:
        TinymimError: no mapping, an option that is none of :data:`OPTIONS`, or a value of another type or range; all of
            them together.
    """
    if not isinstance(options, dict):
        raise TinymimError(f"{field}: {brief(options)} is no mapping of timm's options to values")
    errors = [problem for name, value in options.items() if (problem := _problem(name, value, field))]
    if errors:
        raise several(f"{field}: not what makes a network", errors) if len(errors) > 1 else TinymimError(errors[0])
    return options


def _problem(name: Any, value: Any, field: str) -> str | None:
    where = f"{field}.{brief(name).strip(chr(39))}"
    if isinstance(name, str) and name in OPTIONS:
        try:
            msgspec.convert(list(value) if isinstance(value, tuple) else value, OPTIONS[name], strict=True)
        except msgspec.ValidationError as error:
            return f"{where}: {brief(value)} is not {taken(error)}"
        return None
    names = nearest(str(name), OPTIONS, 1)
    return f"{where}: no option that makes a network" + (f"; did you mean {names[0]}?" if names else "")
