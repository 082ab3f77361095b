"""The relation loss: KL between the teacher's and the student's token relations (TinyMIM section 3.1.2, Eq. 9)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def relation_logits(a: Tensor, b: Tensor) -> Tensor:
    """Scaled products ``A Bᵀ / sqrt(D)`` of ``(B, H, N, D)`` tokens: ``(B, H, N, N)``, at least in float32.

    The scale enters before the product, so that half-precision inputs cannot overflow in it.
    """
    dtype = torch.promote_types(a.dtype, torch.float32)
    with torch.autocast(a.device.type, enabled=False):
        return (a.to(dtype) * a.shape[-1] ** -0.5) @ b.to(dtype).transpose(-2, -1)


def relation_kl(tq: Tensor, tk: Tensor, sq: Tensor, sk: Tensor, temperature: float = 1.0, form: str = "auto") -> Tensor:
    """KL(R_teacher ‖ R_student) for the relation R_ab = softmax(A Bᵀ / sqrt(D)), by rows.

    Each network is scaled by its own head width. Both distributions stay in log space, so that a probability that
    underflows costs nothing.

    Args:
        tq: the teacher's A, ``(B, H, N, D_t)``.
        tk: the teacher's B, likewise.
        sq: the student's A, ``(B, H, N, D_s)``.
        sk: the student's B, likewise.

    Returns:
        A scalar: summed over keys, averaged over batch, heads and queries.
    """
    teacher = F.log_softmax(relation_logits(tq, tk) / temperature, dim=-1)
    student = F.log_softmax(relation_logits(sq, sk) / temperature, dim=-1)
    return F.kl_div(student, teacher, reduction="none", log_target=True).sum(-1).mean()
