"""First weights of what is trained from scratch: by the rule of the papers' code, or timm's.

``published`` is one rule for each method:

- :func:`xavier`, of TinyMIM's and MAE's code (arXiv 2301.01296, 2111.06377), for students, for MAE's encoder and
  decoder, and for what is trained on labels from scratch, for which neither states another.
- :func:`truncated`, of SimMIM's code (arXiv 2111.09886), for its encoder.

``timm`` leaves weights as timm and PyTorch give them: a truncated normal of 0.02 whatever the width, a CLS token of
1e-6, and a patch projection and a decoder as PyTorch has them, with random biases. Xavier's spread grows as a network
gets narrower, to 0.051 for q, k and v at width 192, which is what makes the two differ in small students.

Everything is drawn from PyTorch's global generator, so a network is a function of the seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tinymim.vit.backbone import Backbone
from tinymim.vit.description import Init

STD = 0.02  # standard deviation of tokens, and in SimMIM's code of all else
TOKENS = ("cls_token", "dist_token", "reg_token", "mask_token")  # names of the parameters that are tokens

Network = TypeVar("Network", bound=nn.Module)


def xavier(network: nn.Module) -> None:
    """Give a ViT or a decoder the first weights of TinyMIM's and MAE's code, in place.

    Every linear layer is Xavier uniform, with q, k and v as the one matrix they lie in, and has no bias to begin with;
    so is the patch projection as a matrix ``(D, 3 p²)``. Tokens (CLS, distillation, register, mask) are normal of 0.02,
    LayerNorms 1 and 0. As there, the rest stays as the network was built: the bias of the patch projection (PyTorch's,
    uniform to 1 / sqrt(3 p²)), learned or fixed positions, layer scale, tables of relative positions.
    """
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            _zero(module.bias)
        elif isinstance(module, nn.Conv2d):
            nn.init.xavier_uniform_(module.weight.detach().flatten(1))  # a view, so the weight itself is filled
        elif isinstance(module, nn.LayerNorm):
            module.reset_parameters()
    for name, token in network.named_parameters():
        if name.endswith(TOKENS):
            nn.init.normal_(token, std=STD)


def truncated(encoder: Backbone) -> None:
    """Give a ViT the first weights of SimMIM's code, in place.

    Linear layers, the patch projection, tokens and learned positions are normal of 0.02, cut off at one standard
    deviation (which leaves a spread of 0.0108); biases are 0, LayerNorms 1 and 0. Then what each block writes into the
    residual stream, the output projection of its attention and the second layer of its MLP, is divided by
    sqrt(2 x its number from 1).
    """
    for module in encoder.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            cut_normal(module.weight)
            _zero(module.bias)
        elif isinstance(module, nn.LayerNorm):
            module.reset_parameters()
    for name, parameter in encoder.named_parameters():
        if name.endswith(TOKENS) or (name.endswith("pos_embed") and parameter.requires_grad):
            cut_normal(parameter)
    with torch.no_grad():
        blocks: list[Any] = list(encoder.vit.blocks)
        for number, block in enumerate(blocks, start=1):
            for layer in (block.attn.proj, block.mlp.fc2):
                layer.weight /= math.sqrt(2 * number)


def cut_normal(tensor: Tensor) -> None:
    """Fill with SimMIM's normal of 0.02, cut off at one standard deviation."""
    nn.init.trunc_normal_(tensor, std=STD, a=-STD, b=STD)


def initialise(network: Network, init: Init, rule: Callable[[Network], None] = xavier) -> Network:
    """``network``, as it was built or with the first weights of the published ``rule``."""
    if init == "published":
        rule(network)
    return network


def _zero(bias: Tensor | None) -> None:
    if bias is not None:
        nn.init.zeros_(bias)
