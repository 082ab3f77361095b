"""Architecture of a network, all of it but the weights: timm's name, head layout, positions, drop path; building it."""

from __future__ import annotations

import functools
from typing import Any, Literal, cast

import timm
import torch
from timm.layers import DropPath, build_sincos2d_pos_embed
from timm.layers.attention import Attention, AttentionRope
from timm.models import VisionTransformer, beit, eva
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from tinymim.errors import TinymimError
from tinymim.near_names import nearest
from tinymim.seeds import shared_rand
from tinymim.vit.description import DEVIATION, IMAGENET_MEAN, IMAGENET_STD, Architecture  # noqa: F401
from tinymim.vit.network_options import check
from tinymim.vit.positions import ViT

KINDS: tuple[tuple[Any, Any, tuple[type, ...]], ...] = (
    (VisionTransformer, Block, (Attention,)),
    (eva.Eva, eva.EvaBlock, (eva.EvaAttention, AttentionRope)),
    (beit.Beit, beit.Block, (beit.Attention,)),
)
"""The networks the reader knows, with their blocks and attention: all pre-norm."""


def build(architecture: Architecture, initialise: bool = True) -> ViT:
    """The timm network; without classifier, unless ``options`` say ``num_classes`` (and ``global_pool``, how it pools).
    ``initialise`` may be false where weights are loaded right after.

    Raises:
        TinymimError: unknown architecture or option, not a ViT that can be read, or heads that do not divide the width.
    """
    published = _as_published(architecture.arch)
    check(architecture.options)
    _check_normalisation(architecture)
    # the only pooling that timm lets this class have
    pool = "token" if isinstance(published, VisionTransformerDistilled) else ""
    options = {"num_classes": 0, "global_pool": pool, **architecture.options}
    if pool and (wrong := [name for name in ("reg_tokens", "no_embed_class") if options.get(name)]):
        raise TinymimError(
            f"options: {', '.join(wrong)} cannot be combined with the distillation token of {architecture.arch}"
        )
    heads = architecture.heads
    if isinstance(heads, list) and len(set(heads)) == 1 and len(heads) == options.get("depth", len(published.blocks)):
        heads = heads[0]
    if isinstance(heads, int):
        options["num_heads"] = heads
    width = options.get("embed_dim", published.embed_dim)
    count = options.get("num_heads", cast(Any, published).blocks[0].attn.num_heads)
    if isinstance(width, int) and isinstance(count, int):
        check_divides(count, width, architecture.arch)
    if not initialise and isinstance(published, VisionTransformer):
        options.setdefault("weight_init", "skip")  # filling the weights is most of the time of building a skeleton
    try:
        vit = _known(timm.create_model(architecture.arch, pretrained=False, **options), architecture.arch)
        if not len(vit.blocks):
            raise ValueError("depth: a network needs at least one block")
    except (TypeError, AssertionError, ValueError, ArithmeticError, LookupError, RuntimeError) as error:
        raise TinymimError(
            f"options: timm cannot build {architecture.arch} with {architecture.options}: {error}"
        ) from None
    if isinstance(heads, list):
        if len(heads) != len(vit.blocks):
            raise TinymimError(f"heads: {len(heads)} numbers for the {len(vit.blocks)} blocks of {architecture.arch}")
        for number, block_heads in enumerate(heads, start=1):
            set_heads(vit, number, block_heads)
    if architecture.pos_embed == "sincos":
        _fix_sincos(vit, initialise)
    return vit


def _check_normalisation(architecture: Architecture) -> None:
    for name, least in (("mean", -DEVIATION[1]), ("std", DEVIATION[0])):
        values = getattr(architecture, name)
        if len(values) != 3 or not all(least <= value <= DEVIATION[1] for value in values):  # NaN is in no range
            right = f"ImageNet's is {list(getattr(Architecture, name))}"
            raise TinymimError(
                f"{name}: {list(values)} is not three numbers from {least:g} to {DEVIATION[1]:g}; {right}"
            )


@functools.cache
def _as_published(arch: str) -> ViT:
    """timm's network without any options, on the meta device: what the options are laid over."""
    if not timm.is_model(arch):
        names = nearest(arch, timm.list_models())
        close = f"near it: {', '.join(names)}" if names else "one is vit_tiny_patch16_224"
        raise TinymimError(f"arch: timm has no model {arch!r}; {close}")
    with torch.device("meta"):
        try:
            network = timm.create_model(arch, pretrained=False)
        except RuntimeError as error:  # a tag that timm does not know
            raise TinymimError(f"arch: timm cannot build {arch}: {error}") from None
    return _known(network, arch)


def _known(vit: nn.Module, arch: str) -> ViT:
    """The reader knows pre-norm blocks with equally many heads of q, k and v; others would be read wrongly."""
    for network, block, attentions in KINDS:
        blocks: list[Any] = list(cast(Any, vit).blocks) if isinstance(vit, network) else [None]
        if all(
            type(each) is block and type(each.attn) in attentions and getattr(each.attn, "num_kv_groups", 1) == 1
            for each in blocks
        ):
            return cast(ViT, vit)
    raise TinymimError(
        f"arch: {arch} is no Vision Transformer that can be read (one grid of tokens, pre-norm blocks with ordinary "
        "attention); use one of timm's vit_*, deit_*, beit* or eva* models"
    )


def _fix_sincos(vit: ViT, initialise: bool) -> None:
    """Fixed 2-D sine-cosine positions (MAE appendix A.1); the rows of CLS and distillation token are zero."""
    if vit.pos_embed is None:
        raise TinymimError(f"pos_embed: sincos, but {type(vit).__name__} here has no position embedding; use learned")
    if vit.embed_dim % 4:
        raise TinymimError(f"pos_embed: sincos needs a width divisible by 4, and it is {vit.embed_dim}; use learned")
    vit.pos_embed.requires_grad_(False)
    if not initialise:
        return
    patches = build_sincos2d_pos_embed(list(vit.patch_embed.grid_size), dim=vit.embed_dim, interleave_sin_cos=False)
    with torch.no_grad():
        vit.pos_embed.zero_()
        vit.pos_embed[0, -patches.shape[0] :] = patches


class SharedDropPath(DropPath):
    """timm's stochastic depth, with random numbers that do not depend on how many processes share a step."""

    def forward(self, x: Tensor) -> Tensor:
        """``(B, ...)``, each image's part dropped whole or scaled."""
        if not self.drop_prob or not self.training:
            return x
        keep = 1 - self.drop_prob
        kept = shared_rand(len(x), *[1] * (x.dim() - 1), device=x.device) < keep
        return x * (kept.to(x.dtype) / (keep if self.scale_by_keep else 1))


def set_drop_path(vit: ViT, rate: float, ramp: Literal["linear", "constant"] = "linear") -> None:
    """Stochastic depth, in place: ``rate`` in [0, 1) is the probability of skipping a branch.

    With ``linear`` it grows from 0 at the first block to ``rate`` at the last, timm's habit; ``constant`` is ``rate``
    in all blocks but the last, which has none, as in TinyMIM's published code.
    """
    depth = len(vit.blocks)
    for index, block in enumerate(vit.blocks):
        part = index / max(depth - 1, 1) if ramp == "linear" else float(index < depth - 1)
        for name in ("drop_path1", "drop_path2"):
            setattr(block, name, SharedDropPath(rate * part) if rate * part > 0 else nn.Identity())


def set_heads(vit: ViT, block: int, heads: int) -> None:
    """Regroup the channels of ``block`` (from 1) into ``heads`` attention heads: same weights, another network.

    Raises:
        TinymimError: ``heads`` does not divide the width, or they are part of what the network's weights say.
    """
    attn = cast(Any, vit).blocks[block - 1].attn
    if heads == attn.num_heads:
        return
    if not isinstance(vit, VisionTransformer):
        raise TinymimError(
            f"heads: positions act by head in timm's {type(vit).__name__}, so the {attn.num_heads} heads of block "
            f"{block} are fixed"
        )
    check_divides(heads, attn.attn_dim, f"block {block}")
    if not isinstance(attn.q_norm, nn.Identity):
        raise TinymimError(f"heads: block {block} normalises q and k by head, so its {attn.num_heads} heads are fixed")
    attn.num_heads, attn.head_dim = heads, attn.attn_dim // heads
    attn.scale = attn.head_dim**-0.5


def check_divides(heads: int, width: int, what: str) -> None:
    """Raise unless ``heads`` divides ``width``, and list the numbers that do."""
    if heads < 1 or width % heads:
        divisors = [str(n) for n in range(1, width + 1) if width % n == 0]
        raise TinymimError(
            f"heads: {heads} does not divide the width {width} of {what}; these do: {', '.join(divisors)}"
        )
