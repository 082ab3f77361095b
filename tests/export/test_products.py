"""Plain products of matrices: what layers and attention computed, in fewer nodes, for any number of images."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F

from tinymim.export import products


@pytest.mark.parametrize("shape", [(2, 5, 6), (2, 3, 5, 6)])
def test_linear__is_one_product_of_all_tokens(shape: tuple[int, ...]) -> None:
    x, weight, bias = torch.randn(shape), torch.randn(4, 6), torch.randn(4)
    assert torch.allclose(products.linear(x, weight, bias), F.linear(x, weight, bias), atol=1e-6)
    assert products.linear(x, weight) is NotImplemented
    assert products.linear(x.reshape(-1, 6), weight, bias) is NotImplemented


@pytest.mark.parametrize("options", [{}, {"scale": 0.3}, {"attn_mask": torch.randn(1, 3, 5, 5)}])
def test_attention__is_its_two_products_and_softmax(options: dict[str, Any]) -> None:
    q, k, v = torch.randn(3, 2, 3, 5, 4)
    expected = F.scaled_dot_product_attention(q, k, v, **options)
    assert torch.allclose(products.attention(q, k, v, **options), expected, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [{"is_causal": True}, {"dropout_p": 0.1}, {"enable_gqa": True}, {"attn_mask": torch.ones(5, 5, dtype=torch.bool)}],
)
def test_attention__of_other_kinds_is_left_alone(options: dict[str, Any]) -> None:
    q, k, v = torch.randn(3, 2, 3, 5, 4)
    assert products.attention(q, k, v, **options) is NotImplemented


class Tokens(nn.Module):
    """A layer with a bias, one without, and two kinds of attention."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 12), nn.Linear(4, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.first(x).chunk(3, dim=-1)
        once = F.scaled_dot_product_attention(q, k, v)
        return self.second(F.scaled_dot_product_attention(once, k, v, is_causal=True))


@torch.no_grad()
def test_program__computes_what_it_did_for_any_number_of_images() -> None:
    module = Tokens().eval()
    program = torch.export.export(module, (torch.randn(3, 5, 4),), dynamic_shapes={"x": {0: Dim("batch")}})
    plain = products.plain_products(program)
    x = torch.randn(7, 5, 4)
    assert torch.allclose(plain.module()(x), module(x), atol=1e-6)
    ops = [str(node.target) for node in plain.graph.nodes]
    assert {op: sum(op in name for name in ops) for op in ("linear", "addmm", "scaled_dot_product", "softmax")} == {
        "linear": 1,
        "addmm": 1,
        "scaled_dot_product": 1,
        "softmax": 1,
    }
