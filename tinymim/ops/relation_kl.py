"""The relation loss: KL between the teacher's and the student's token relations (TinyMIM section 3.1.2, Eq. 9)."""

from __future__ import annotations

import importlib.util
import os
from numbers import Real
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from tinymim.argument_types import named_arguments
from tinymim.errors import TinymimError
from tinymim.ops.blocked import blocked

Form = Literal["auto", "reference", "blocked", "triton"]


def relation_logits(a: Tensor, b: Tensor) -> Tensor:
    """Scaled products ``A Bᵀ / sqrt(D)`` of ``(B, H, N, D)`` tokens: ``(B, H, N, N)``, at least in float32.

    The scale enters before the product, so that half-precision inputs cannot overflow in it.
    """
    dtype = torch.promote_types(a.dtype, torch.float32)
    with torch.autocast(a.device.type, enabled=False):
        return (a.to(dtype) * a.shape[-1] ** -0.5) @ b.to(dtype).transpose(-2, -1)


@named_arguments
def relation_kl(
    tq: Tensor, tk: Tensor, sq: Tensor, sk: Tensor, temperature: float = 1.0, form: Form = "auto"
) -> Tensor:
    """KL(R_teacher ‖ R_student) for the relation R_ab = softmax(A Bᵀ / (sqrt(D) · temperature)), by rows.

    Each network is scaled by its own head width. The gradient reaches the student's tensors only, and only once:
    differentiating it again is an error but for ``reference``.

    Args:
        tq: the teacher's A, ``(B, H, N, D_t)``; may be an inference tensor.
        tk: the teacher's B, likewise; may be the same tensor.
        sq: the student's A, ``(B, H, N, D_s)``.
        sk: the student's B, likewise.
        temperature: divides the logits of both.
        form: ``reference`` is the definition in plain PyTorch; ``blocked`` computes loss and gradients block by block;
            ``triton`` streams over keys on a GPU; ``auto`` takes Triton's where it runs, else the blocked form.

    Returns:
        A scalar, at least in float32: summed over keys, averaged over batch, heads and queries.

    Raises:
        TinymimError: shapes, types or devices do not fit, or the form cannot run here; the message names the argument.
    """
    _check(tq, tk, sq, sk, temperature, form)
    tq, tk = tq.detach(), tk.detach()
    if form == "reference":
        return reference(tq, tk, sq, sk, temperature)
    obstacle = "" if form == "blocked" else _no_triton(tq, sq)
    if form == "blocked" or (form == "auto" and obstacle):
        return blocked(tq, tk, sq, sk, temperature)
    if obstacle:
        raise TinymimError(f"relation_kl.form: triton cannot run here: {obstacle}; take auto or blocked")
    from tinymim.ops.triton_kernels import triton_relation_kl

    return triton_relation_kl(tq, tk, sq, sk, temperature)


def reference(tq: Tensor, tk: Tensor, sq: Tensor, sk: Tensor, temperature: float) -> Tensor:
    """The definition. Both distributions stay in log space, so that a probability that underflows costs nothing."""
    with torch.no_grad():
        teacher = F.log_softmax(relation_logits(tq, tk) / temperature, dim=-1)
    student = F.log_softmax(relation_logits(sq, sk) / temperature, dim=-1)
    return F.kl_div(student, teacher, reduction="none", log_target=True).sum(-1).mean()


def _no_triton(tq: Tensor, sq: Tensor) -> str:
    """The obstacle to Triton's kernels for these tensors; empty if there is none."""
    for x in (tq, sq):
        if x.dtype == torch.float64:
            return "float64 tensors need an exact form"
        if x.shape[-1] > 128:
            return f"heads are {x.shape[-1]} wide, and 128 is the most"
    return _no_triton_on(sq.device)


@torch.compiler.assume_constant_result  # Dynamo cannot look at devices and packages
def _no_triton_on(device: torch.device) -> str:
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if os.environ.get("TRITON_INTERPRET") == "1":  # Triton's own switch: kernels run in NumPy, for tests
        return ""
    if device.type != "cuda":
        return f"the tensors are on {device}, and it needs CUDA"
    if torch.version.hip or torch.cuda.get_device_capability(device) < (8, 0):
        return f"{torch.cuda.get_device_name(device)} is not of NVIDIA's compute capability 8.0 or above"
    return ""


def _check(tq: Tensor, tk: Tensor, sq: Tensor, sk: Tensor, temperature: float, form: str) -> None:
    if form not in get_args(Form):
        raise TinymimError(f"relation_kl.form: {form!r} is none of {', '.join(get_args(Form))}")
    if not isinstance(temperature, Real | Tensor) or not 0 < temperature < float("inf"):
        raise TinymimError(f"relation_kl.temperature: {temperature!r} must be a number above 0; 1 is the paper's")
    for name, x in (("tq", tq), ("tk", tk), ("sq", sq), ("sk", sk)):
        if not isinstance(x, Tensor):
            raise TinymimError(f"relation_kl.{name}: {type(x).__name__} is no tensor; give (B, H, N, D) of floats")
        if x.dim() != 4 or 0 in x.shape:
            raise TinymimError(f"relation_kl.{name}: shape {tuple(x.shape)} is not (B, H, N, D), all at least 1")
        if not x.is_floating_point():
            raise TinymimError(f"relation_kl.{name}: {x.dtype} is no floating-point type; convert it")
        if x.device != tq.device:
            raise TinymimError(f"relation_kl.{name}: on {x.device}, but tq is on {tq.device}; move it there")
    for a, b, first, second in ((tq, tk, "tq", "tk"), (sq, sk, "sq", "sk")):
        if a.shape != b.shape or a.dtype != b.dtype:
            raise TinymimError(
                f"relation_kl.{second}: {tuple(b.shape)} {b.dtype} must be as {first}: {tuple(a.shape)} {a.dtype}"
            )
    if tq.shape[:3] != sq.shape[:3]:
        raise TinymimError(
            f"relation_kl.sq: (B, H, N) of the student is {tuple(sq.shape[:3])} and of the teacher "
            f"{tuple(tq.shape[:3])}; regroup the channels into equally many heads, over the same tokens"
        )
