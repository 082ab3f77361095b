import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.ops.tokens import check_against_hand, draw
from tinymim.errors import TinymimError
from tinymim.ops import relation_kl

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@needs_triton
def test_triton__in_the_interpreter():
    """In its own process, because Triton asks for the interpreter when a kernel is defined."""
    tests = Path(__file__).with_name("interpreted.py")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tests.parents[2])
    assert ran.returncode == 0, ran.stdout + ran.stderr


def compiled(kernel, widths, element, monkeypatch, cache, **constants):
    """The kernel's binary for compute capability 8.6, which has the least shared memory of those served."""
    from triton import compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from tinymim.ops.triton_kernels import configuration

    monkeypatch.setenv("TRITON_CACHE_DIR", str(cache))
    constants |= configuration(*widths, 4 if element == "fp32" else 2)
    options = {name: constants.pop(name) for name in ("num_warps", "num_stages")}
    constants |= {name: 1 for name in kernel.arg_names if name.endswith("_d")}  # channels lie side by side
    types = dict.fromkeys(kernel.arg_names, "i32")
    types |= dict.fromkeys(("tq", "tk", "sq", "sk", "rt", "ct", "rs", "cs", "out"), f"*{element}")
    types |= dict.fromkeys(("kl", "lse_t", "lse_s", "grad"), "*fp32")
    types |= dict.fromkeys(("scale_t", "scale_s", "factor"), "fp32")
    types |= dict.fromkeys(constants, "constexpr")
    signature = {name: types[name] for name in kernel.arg_names}
    return compile(ASTSource(kernel, signature, constants), target=GPUTarget("cuda", 86, 32), options=options)


@needs_triton
@pytest.mark.parametrize(
    ("name", "widths", "element", "constants"),
    [
        ("forward_kernel", (64, 16), "bf16", {}),
        ("gradient_kernel", (64, 16), "bf16", {"QUERIES": True}),
        ("gradient_kernel", (88, 44), "fp16", {"QUERIES": False}),
        ("forward_kernel", (128, 128), "fp32", {}),
        ("forward_kernel", (8, 24), "fp32", {"N": 1, "H": 1}),  # Triton compiles ones in
    ],
)
def test_triton__kernels_compile_for_a_gpu(name, widths, element, constants, monkeypatch, tmp_path):
    from tinymim.ops import triton_kernels

    binary = compiled(getattr(triton_kernels, name), widths, element, monkeypatch, tmp_path, **constants)
    assert "mma" in binary.asm["ptx"]  # the products are on the matrix units
    assert binary.metadata.shared <= 99 * 1024
    if element == "fp32":  # three products of TF32 for one, which the interpreter cannot tell from one
        products = binary.asm["ptx"].count(".f32.tf32.tf32.")
        assert products
        assert products % 3 == 0


@needs_cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 8, 8), (2, 3, 17, 24, 12), (2, 12, 197, 64, 16), (1, 2, 300, 128, 128), (1, 1, 1025, 88, 44)]
)
def test_triton__on_a_gpu_equals_float64(shape, dtype):
    given = [t.to(dtype) for t in draw(*shape, seed=0)]

    def loss_of(*tokens):
        tokens = [t.cuda() if isinstance(t, torch.Tensor) else t for t in tokens]
        return relation_kl(*tokens, form="triton").cpu()

    check_against_hand(loss_of, given, 1e-5 if dtype == torch.float32 else 2e-2, temperature=0.7)


@needs_cuda
def test_triton__on_a_gpu_is_the_choice_and_compiles():
    tokens = [t.cuda().requires_grad_() for t in draw(2, 3, 70, 6, 4, seed=6)]
    loss = relation_kl(*tokens)
    assert "relation_kl_triton" in type(loss.grad_fn).__name__
    compiled = torch.compile(relation_kl, fullgraph=True)(*tokens)
    for one, other in zip(*(torch.autograd.grad(x, tokens[2:]) for x in (compiled, loss)), strict=True):
        torch.testing.assert_close(one, other)


@needs_cuda
def test_triton__on_a_gpu_finite_with_logits_of_ten_thousand():
    large = (torch.randn(2, 3, 197, 64, device="cuda").sign() * 1e4**0.5 / 8**0.5).requires_grad_()
    loss = relation_kl(large.detach(), large.detach(), large, -large)
    loss.backward()
    assert loss.isfinite()
    assert large.grad.isfinite().all()


@needs_cuda
def test_blocked__on_a_gpu_equals_float64():
    def loss_of(*tokens):
        tokens = [t.cuda() if isinstance(t, torch.Tensor) else t for t in tokens]
        return relation_kl(*tokens, form="blocked").cpu()

    check_against_hand(loss_of, draw(2, 3, 197, 64, 16, seed=0), 1e-5)


def test_triton__forced_says_what_keeps_it_away():
    narrow = draw(1, 2, 5, 4, 3, seed=0)
    wide = draw(1, 2, 5, 130, 3, seed=0)
    with pytest.raises(TinymimError, match=r"relation_kl.form: triton cannot run here: heads are 130 wide.*blocked"):
        relation_kl(*wide, form="triton")
    with pytest.raises(TinymimError, match=r"relation_kl.form: triton cannot run here: float64"):
        relation_kl(*(t.double() for t in narrow), form="triton")
    with pytest.raises(TinymimError, match=r"triton cannot run here: .*(CUDA|installed)"):
        relation_kl(*narrow, form="triton")


def test_triton__is_not_imported_on_a_cpu():
    code = """
import sys, torch
from tinymim.ops import relation_kl
relation_kl(*[torch.randn(1, 1, 3, 2)] * 4)
sys.exit("tinymim.ops.triton_kernels" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
