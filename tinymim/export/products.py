"""Products of matrices in the form that onnxruntime's int8 kernels run fastest."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.export import ExportedProgram


def plain_products(program: ExportedProgram) -> ExportedProgram:
    """Rewrite linear layers and attention as products of matrices, by PyTorch's own decompositions.

    A layer with a bias becomes one product of all tokens of the batch, ``(B * N, D)``: in ONNX a Gemm, of which an int8
    kernel adds the bias and gives float32. Attention becomes its two products and softmax; torch's own translation
    wraps them in a dozen nodes about the shape of the keys. Both compute what they did, to rounding.
    """
    aten = torch.ops.aten
    return program.run_decompositions(
        {aten.linear.default: linear, aten.scaled_dot_product_attention.default: attention}
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Linear layer of ``(..., D)`` as a product of ``(-1, D)``; left alone without a bias, or where ``x`` is that."""
    if bias is None or x.ndim < 3:
        return NotImplemented
    return torch.addmm(bias, x.reshape(-1, x.shape[-1]), weight.t()).reshape(*x.shape[:-1], weight.shape[0])


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attention of ``(B, heads, N, D)`` as explicit products; left alone where it is causal, dropped out, of shared
    keys or under a mask of bools."""
    if is_causal or dropout_p or enable_gqa or (attn_mask is not None and not attn_mask.is_floating_point()):
        return NotImplemented
    weights = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.transpose(-2, -1)
    return (weights if attn_mask is None else weights + attn_mask).softmax(-1) @ value
