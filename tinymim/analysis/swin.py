"""timm's Swin Transformers, v1 and v2, whose heads look inside windows: for analysis only, nothing here is trained."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, cast

import timm
import torch
import torch.nn.functional as F
from timm.models import swin_transformer, swin_transformer_v2
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from torch import Tensor, nn

from tinymim import files
from tinymim.analysis.layer import Layer, distances
from tinymim.errors import TinymimError
from tinymim.teachers import timm_hub, weights
from tinymim.teachers.card import Card
from tinymim.teachers.locate import is_published
from tinymim.teachers.weights import Provenance
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import resized

SWINS = (SwinTransformer, SwinTransformerV2)

CEILING = math.log(100)
"""Of v2's logarithm of what cosines are multiplied by (arXiv 2111.09883, section 3.2)."""

HEAD = ("head.", "norm.")
"""A Swin's parts after its last block."""


class Windowed(nn.Module):
    """A Swin Transformer, frozen, with its input normalisation.

    Args:
        architecture: timm's name, options and normalisation.

    Raises:
        TinymimError: no Swin, an unknown option, or windows that do not tile the tokens of a stage: timm fills those
            up with zeros, and what attends to a zero looks nowhere.
    """

    def __init__(self, architecture: Architecture):
        super().__init__()
        options = {**architecture.options, "num_classes": 0}
        try:
            self.swin: Any = timm.create_model(architecture.arch, pretrained=False, **options)
        except (TypeError, AssertionError, ValueError, ArithmeticError, LookupError, RuntimeError) as error:
            raise TinymimError(f"options: timm cannot build {architecture.arch} with {options}: {error}") from None
        if not isinstance(self.swin, SWINS):
            raise TinymimError(f"arch: {architecture.arch} is no Swin Transformer; timm's are swin_* and swinv2_*")
        self.architecture = architecture
        self.register_buffer("mean", torch.tensor(architecture.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(architecture.std).view(1, -1, 1, 1), persistent=False)
        for block in self._blocks:
            grid, window = block.input_resolution, block.window_size
            if any(tokens % side for tokens, side in zip(grid, window, strict=True)):
                raise TinymimError(
                    f"img_size: windows of {window[0]}x{window[1]} do not tile the {grid[0]}x{grid[1]} tokens of a "
                    f"stage of {architecture.arch}; choose img_size and window_size so that they do"
                )
        self.requires_grad_(False).eval()

    @property
    def _blocks(self) -> list[Any]:
        return [block for stage in self.swin.layers for block in stage.blocks]

    @property
    def depth(self) -> int:
        """Number of blocks, of all stages."""
        return len(self._blocks)

    @property
    def heads(self) -> list[int]:
        """Attention heads of each block."""
        return [block.attn.num_heads for block in self._blocks]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images it takes, in pixels."""
        return cast(tuple[int, int], tuple(self.swin.patch_embed.img_size))

    def layers(self, images: Tensor) -> Iterator[Layer]:
        """As :func:`tinymim.analysis.attention_maps.layers`: from stage to stage the tokens get fewer, and their sides
        twice as long."""
        side = float(self.swin.patch_embed.patch_size[0])
        mean, std = cast(Tensor, self.mean), cast(Tensor, self.std)
        x = self.swin.patch_embed((resized(images, self.image_size) - mean) / std)
        number = 0
        for stage in self.swin.layers:
            x = stage.downsample(x)
            side *= 1 if isinstance(stage.downsample, nn.Identity) else 2
            for block in stage.blocks:
                number += 1
                heard: list[tuple[Tensor, Tensor | None]] = []
                hook = block.attn.register_forward_pre_hook(
                    lambda _, given, named, heard=heard: heard.append((*given, named["mask"])), with_kwargs=True
                )
                try:
                    x = block(x)
                finally:
                    hook.remove()
                maps = _Maps(block.attn, *heard[0], images=len(x))
                allowed = None if maps.mask is None else maps.mask == 0
                between = distances(block.window_size, (side, side)).to(x.device)
                grid = (x.shape[1], x.shape[2])
                yield Layer(number, block.attn.num_heads, 0, grid, side, x.flatten(1, 2), between, maps, allowed)

    def describe(self) -> str:
        """One line for people."""
        depths = ",".join(str(len(stage.blocks)) for stage in self.swin.layers)
        windows = dict.fromkeys("x".join(map(str, block.window_size)) for block in self._blocks)
        height, width = self.image_size
        return f"{self.architecture.arch}: depths {depths}, windows {', '.join(windows)}, {height}x{width} px"


class _Maps:
    """Maps of a block from what its attention is given."""

    def __init__(self, attn: Any, windows: Tensor, mask: Tensor | None, images: int):
        self.attn, self.mask = attn, mask
        self.windows = windows.unflatten(0, (images, -1))  # (B, W, Q, D)

    @torch.inference_mode()
    def __call__(self, images: slice) -> Tensor:
        """``(b, W, H, Q, Q)``."""
        attn, windows = self.attn, self.windows[images]
        cosine = isinstance(attn, swin_transformer_v2.WindowAttention)
        bias = attn.qkv.bias
        if cosine and attn.q_bias is not None:
            bias = torch.cat([attn.q_bias, attn.k_bias, attn.v_bias])
        q, k, _ = (
            part.unflatten(-1, (attn.num_heads, -1)).transpose(-2, -3)
            for part in F.linear(windows, attn.qkv.weight, bias).chunk(3, dim=-1)
        )
        if cosine:
            logits = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * attn.logit_scale.clamp(max=CEILING).exp()
            table = 16 * attn.cpb_mlp(attn.relative_coords_table).flatten(0, -2).sigmoid()
            logits += table[attn.relative_position_index].permute(2, 0, 1)
        else:
            logits = q * attn.scale @ k.mT + attn._get_rel_pos_bias()
        if self.mask is not None:
            logits += self.mask.unsqueeze(1)
        return F.log_softmax(logits.float(), dim=-1)


def is_windowed(source: str) -> bool:
    """Whether ``source`` is ``timm:NAME`` of a Swin Transformer. Nothing is fetched."""
    arch = source.removeprefix(timm_hub.PREFIX).partition(".")[0]
    if not is_published(source) or not timm.is_model(arch):
        return False
    module = timm.model_entrypoint(arch).__module__
    return module in (swin_transformer.__name__, swin_transformer_v2.__name__)


def build(arch: str, options: dict[str, Any]) -> Windowed:
    """A Swin Transformer with random weights.

    Args:
        arch: timm's name.
        options: timm's own arguments laid over it.

    Raises:
        TinymimError: see :class:`Windowed`.
    """
    return Windowed(Architecture(arch, options))


def load(source: str) -> tuple[Windowed, Provenance]:
    """A Swin Transformer with its published weights, which are fetched if need be.

    Args:
        source: ``timm:NAME``.

    Raises:
        TinymimError: timm knows no such weights, they cannot be had, or the file does not fit.
    """
    return from_card(timm_hub.card(source))


def from_card(card: Card) -> tuple[Windowed, Provenance]:
    """As :func:`load`, of a card made for ``timm:NAME``.

    Args:
        card: its file is fetched where it is not here.

    Raises:
        TinymimError: as there.
    """
    path = card.weights_path() or timm_hub.fetch(card)
    network = Windowed(card.architecture)
    own = {key: value for key, value in network.swin.state_dict().items() if not key.startswith(HEAD)}
    stored = _under_timms_names(network.swin, weights.read(path).state)
    state = {key: value for key, value in stored.items() if key in own and value.shape == own[key].shape}
    over = sorted(key for key in stored.keys() - state.keys() if not key.startswith(HEAD))
    if wrong := sorted(own.keys() - state.keys()) or over:
        raise TinymimError(
            f"{path} does not hold the weights of {network.describe()}: {len(own) - len(state)} of its {len(own)} are "
            f"missing or of another shape, and {len(over)} are left over; among them {', '.join(wrong[:4])}"
        )
    network.swin.load_state_dict(state, strict=False)
    left = sorted(stored.keys() - state.keys())
    return network, Provenance(
        card.name, str(path), files.sha256(path), "", len(state), [], left, card.licence, "Swin Transformer"
    )


def _under_timms_names(swin: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Some files have the names of timm's first versions, and buffers."""
    module = swin_transformer if isinstance(swin, SwinTransformer) else swin_transformer_v2
    return cast(dict[str, Tensor], module.checkpoint_filter_fn(state, swin))
