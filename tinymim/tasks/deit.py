"""DeiT's distillation while fine-tuning (arXiv 2012.12877): labels for the CLS head, a teacher for the other one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tinymim.argument_types import checked
from tinymim.errors import TinymimError
from tinymim.methods.base import find
from tinymim.methods.frozen_teacher import FrozenTeacher, Precision, teacher_dtype
from tinymim.targets.logits import soft_kl
from tinymim.teachers.weights import Provenance
from tinymim.vit.backbone import NO_CLASSIFIER
from tinymim.vit.taps import LOGITS, Tap


@checked
@dataclass
class Deit:
    """Distillation into the classifier on the distillation token.

    Args:
        teacher: as a Distiller's, or a fine-tuned checkpoint of this project; it needs a classifier.
        kind: ``hard``, the teacher's class (DeiT Eq. 3), or ``soft``, its probabilities (Eq. 2).
        weight: of the teacher in the loss; the labels have the rest. DeiT has 0.5 for hard and 0.1 for soft.
        temperature: of both softmaxes; for ``soft`` alone.
        precision: what the teacher computes in, as a :class:`tinymim.methods.Distiller`'s ``teacher_precision``.
        sharding: share the teacher's weights among all processes, likewise.
    """

    teacher: str
    kind: Literal["hard", "soft"] = "hard"
    weight: float = 0.5
    temperature: float = 3.0
    precision: Precision = "auto"
    sharding: bool = False


def deit_loss(labelled: Tensor, distilled: Tensor, teacher: Tensor, options: Deit) -> Tensor:
    """DeiT's loss: ``(1 - weight) x labelled + weight x`` the distillation head's loss on the teacher.

    Soft is T² KL(teacher ‖ student) averaged over the batch, as in the paper; DeiT's code divides by the number of
    classes as well.

    Args:
        labelled: the CLS head's loss on the labels, a scalar.
        distilled: logits ``(B, classes)`` of the distillation head.
        teacher: the teacher's logits, likewise.
        options: kind, weight, temperature.
    """
    if options.kind == "hard":
        distilling = F.cross_entropy(distilled, teacher.argmax(-1))
    else:
        distilling = soft_kl(teacher, distilled, options.temperature)
    return (1 - options.weight) * labelled + options.weight * distilling


class DeitTeacher:
    """Teacher of a fine-tuning: found first, loaded later, and no module, as :class:`FrozenTeacher` is none.

    Args:
        options: of the recipe.

    Raises:
        TinymimError: no such teacher.
    """

    def __init__(self, options: Deit):
        self.options = options
        try:
            self.located = find(options.teacher)
        except TinymimError as error:
            raise TinymimError(f"deit.{error}") from None
        self.frozen: FrozenTeacher | None = None
        self.provenance: Provenance | None = None

    def errors(self, classes: int | None) -> list[str]:
        """Mistakes that keep it from teaching, each with its remedy. Reads no weights.

        Args:
            classes: of the data; ``None`` where they are not known yet.
        """
        errors, options, network = [], self.options, self.located.skeleton
        if problem := self.located.problem():
            errors.append(f"deit.{problem}")
        if not network.classes:
            errors.append(f"deit.teacher: {options.teacher} {NO_CLASSIFIER}")
        elif classes and network.classes != classes:
            errors.append(
                f"deit.teacher: {options.teacher} knows {network.classes} classes, and the data has {classes}"
            )
        if not 0 <= options.weight <= 1:
            errors.append(f"deit.weight: {options.weight} is not a share from 0 to 1")
        if not 0 < options.temperature < math.inf:
            errors.append(f"deit.temperature: {options.temperature} is not a number above 0")
        return errors

    def load(self, run: str, device: torch.device) -> None:
        """Read its weights, for a trainer of that precision on that device."""
        dtype = teacher_dtype(self.options.precision, run, "deit.precision")
        backbone, self.provenance = self.located.load(classifier=True)
        taps, shared_on = [Tap(backbone.depth, LOGITS)], device if self.options.sharding else None
        self.frozen = FrozenTeacher(backbone, taps, dtype=dtype, shared_on=shared_on)

    def record(self) -> dict[str, Any]:
        """Its part of a checkpoint's record."""
        assert self.provenance is not None, "load comes first"
        return {"teacher": self.provenance.identity(), "kind": self.options.kind}

    def check(self, record: dict[str, Any] | None) -> None:
        """Raise where a checkpoint with this record was taught by another teacher."""
        assert self.provenance is not None, "load comes first"
        if stored := (record or {}).get("teacher"):
            self.provenance.check_same(stored, "deit.teacher: this checkpoint was taught by")

    def summary(self) -> list[tuple[str, str]]:
        """Lines on the teacher, for people."""
        how = f"{self.options.kind} distillation, weight {self.options.weight:g}"
        return [("DeiT teacher", f"{how}: {self.located.skeleton.describe()}"), ("", str(self.provenance))]

    def logits(self, images: Tensor) -> Tensor:
        """``(B, classes)`` of the student's ``(B, 3, H, W)`` images in [0, 1], mixed where those are, as in DeiT."""
        assert self.frozen is not None, "load comes first"
        (logits,) = self.frozen.read(images, training=True).values()
        return logits
