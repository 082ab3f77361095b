"""Forms of what is stored of a teacher for an image: tokens in int8 with a scale each, or a few numbers as they are.

Of q, k and v it is the tokens that enter their projections, LN(F(i-1)) after its affine part, a third of them. For 197
tokens of 768 channels that is 152 kB an image, where float32 q, k and v are 1.8 MB.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from tinymim.vit.taps import LOGITS, NORMED, QKV, Readings, Tap

SCALE = 4  # bytes of a token's scale, a float32


@dataclass(frozen=True, order=True)
class Form:
    """Form in which one tap is stored for an image."""

    tap: Tap  # of the teacher
    tokens: int  # stored of each image; 0 is a tap without tokens, the logits
    width: int  # channels of a token
    exact: bool = False  # float32 instead of int8: for what is small

    @property
    def name(self) -> str:
        """Name of its files."""
        return f"block{self.tap.block}_{self.tap.name}{'_cls' if self.first_only else ''}"

    @property
    def first_only(self) -> bool:
        """Whether only the first token, CLS, is stored."""
        return self.exact and self.tokens == 1

    @property
    def size(self) -> int:
        """Bytes of a record."""
        tokens = max(self.tokens, 1)
        return 4 * tokens * self.width if self.exact else tokens * (self.width + SCALE)

    def encode(self, reading: Tensor) -> Tensor:
        """Records, int8 ``(B, size)``, of a reading ``(B, N, D)``, or ``(B, D)`` without tokens, on its device."""
        values = reading.detach().float()
        values = values[:, :1] if self.first_only else values
        if self.exact:
            return values.flatten(1).contiguous().view(torch.int8)
        codes, scales = quantise(values)
        return torch.cat([scales.contiguous().view(torch.int8), codes.flatten(1)], dim=1)

    def decode(self, records: Tensor) -> Tensor:
        """Undo :meth:`encode`: float32 ``(B, N, D)`` or ``(B, D)``, of int8 ``(B, size)`` on any device."""
        if self.exact:
            values = records.contiguous().view(torch.float32)
            return values.unflatten(1, (self.tokens, self.width)) if self.tokens else values
        count = SCALE * self.tokens  # the scales come first, where float32 may lie
        scales = records[:, :count].reshape(-1).view(torch.float32).unflatten(0, (-1, self.tokens))
        return dequantise(records[:, count:].unflatten(1, (self.tokens, self.width)), scales)


def quantise(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens ``(..., D)`` as int8 codes ``(..., D)`` and float32 scales ``(...)``: a code is a channel over the scale,
    rounded, and the scale a 127th of the token's largest channel. So no channel is off by more than half a scale."""
    scales = tokens.abs().amax(-1) / 127
    steps = torch.where(scales > 0, scales, 1.0).unsqueeze(-1)
    return (tokens / steps).round_().clamp_(-127, 127).to(torch.int8), scales


def dequantise(codes: Tensor, scales: Tensor) -> Tensor:
    """Codes times their scales, float32."""
    return codes.to(torch.float32).mul_(scales.unsqueeze(-1))


def forms_of(taps: Iterable[Tap], first_only: Iterable[Tap], tokens: int, width: int, classes: int) -> list[Form]:
    """Forms that must be stored so that ``taps`` can be read, each thing once, in the order of blocks; of those of
    ``first_only`` taps the first of the ``tokens`` alone. ``classes`` are the outputs of the teacher's classifier, or
    0."""
    first = set(first_only)
    forms = set()
    for tap in taps:
        if tap.name == LOGITS:
            forms.add(Form(tap, 0, classes, exact=True))
        elif tap in first:
            forms.add(Form(tap, 1, width, exact=True))
        else:
            forms.add(Form(Tap(tap.block, NORMED) if tap.name in QKV else tap, tokens, width))
    return sorted(forms)


def encoded(forms: Iterable[Form], readings: Readings) -> dict[str, Tensor]:
    """Records of each form, by its name."""
    return {form.name: form.encode(readings[form.tap]) for form in forms}
