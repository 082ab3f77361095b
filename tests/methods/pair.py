"""What the two processes of ``test_two_processes.py`` do together: ``python -m tests.methods.pair FOLDER``."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from tests.conftest import tiny
from tests.methods.test_distillation import Noise, NoiseData, trainer
from tests.ops.tokens import draw
from tinymim.data.data_module import ImageData
from tinymim.data.named_sets import NamedSet, NamedSets, Report
from tinymim.methods import Distiller, Optim
from tinymim.methods.frozen_teacher import held
from tinymim.ops import relation_kl
from tinymim.targets import CLS, Feature, Relation
from tinymim.tasks import Classifier
from tinymim.training.processes import leave, wait_for_all
from tinymim.vit.backbone import Backbone, skeleton

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "masked": {"mask_ratio": 0.5, "teacher_drop_path": 0.5},
    "half": {"teacher_precision": "bfloat16"},
}
"""Options of distillers, each of which is run with a whole teacher and with a shared one."""


class Nine(Noise):
    """Nine images: in batches of four, one process has two of them and the other one."""

    def __len__(self) -> int:
        return 9


class Uneven(NoiseData):
    """Sixteen images to train on, and nine held out."""

    def prepare(self) -> None:
        super().prepare()
        self.held_out, self.batch_size = Nine(), 4


class Named(NamedSets):
    """Two test sets; of the second's nine images one cannot be read, and class 1 alone may be answered."""

    num_classes = 2

    def __init__(self) -> None:
        super().__init__(image_size=16, batch_size=4)

    def prepare(self) -> None:
        self.sets = [NamedSet("all", Noise()), NamedSet("one", Torn(), [1])]

    def report(self, found: Any, baseline: Any) -> Report:
        return Report()


class Torn(Nine):
    """Of class 0 among those that may be answered, but for the last."""

    def __getitem__(self, draw: Any) -> dict[str, Any]:
        return {**super().__getitem__(draw), "label": -1 if draw.index == 8 else 0}


def distiller(**options: Any) -> Distiller:
    """Reads blocks 1 and 3 of ``tiny_teacher``, so that block 2 can be shared."""
    torch.manual_seed(1)
    targets = [Relation(), Feature(teacher_block=1), CLS(centring=True)]
    return Distiller("tiny_teacher", tiny(12, 3), targets, Optim(5.0, warmup_epochs=0), **options)


class Seeded(Classifier):
    """From the same random weights, whatever the process drew before."""

    def start(self) -> Backbone:
        torch.manual_seed(1)
        return super().start()


def probe() -> Classifier:
    """A linear probe with BatchNorm, whose statistics are those of all processes."""
    skeleton(tiny(12, 3))  # timm's own network is built once a process, which draws numbers
    return Seeded(architecture=tiny(12, 3), linear_probe=True, optim=Optim(5.0, warmup_epochs=0))


def figures(runner: pl.Trainer) -> dict[str, float]:
    """What its last evaluation found."""
    return {name: float(value) for name, value in runner.callback_metrics.items() if name.startswith("val/")}


def fit(module: Any, folder: Path) -> dict[str, Any]:
    """An epoch of two steps and its evaluation, as both processes do them."""
    runner = trainer(folder, max_epochs=1, devices=2, strategy="ddp")
    runner.fit(module, datamodule=Uneven())
    return {"figures": figures(runner), "weights": module.state_dict()}


def counted(folder: Path, **options: Any) -> dict[str, Any]:
    """What a test on sets with names counts."""
    module = probe()
    trainer(folder, **options).test(module, datamodule=Named(), verbose=False)
    return {name: asdict(figures) for name, figures in module.test_sets.figures[0].items()}


def relations() -> list[torch.Tensor]:
    """Tokens of four images: a teacher's A and B, and a student's."""
    return draw(4, 2, 7, 6, 5, seed=7)


def relating() -> torch.nn.Linear:
    """A student of one layer."""
    torch.manual_seed(0)
    return torch.nn.Linear(5, 5)


class Related(torch.nn.Module):
    """The blocked relation loss of a student's tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.student = relating()

    def forward(self, tq: torch.Tensor, tk: torch.Tensor, sq: torch.Tensor, sk: torch.Tensor) -> torch.Tensor:
        return relation_kl(tq, tk, self.student(sq), self.student(sk), form="blocked")


def gradient(rank: int) -> torch.Tensor | None:
    """What DDP makes of two images in each process."""
    module = Related()
    parallel = torch.nn.parallel.DistributedDataParallel(module)
    parallel(*(t[2 * rank : 2 * rank + 2] for t in relations())).backward()
    return module.student.weight.grad


def main(folder: Path) -> None:
    """Run all of it, and write what came out to ``FOLDER/RANK.pt``."""
    rank = int(os.environ["LOCAL_RANK"])
    ImageData.needs_workers = False  # a fork beside gloo's threads can hang in CPython itself
    found = {"probe": fit(probe(), folder)}
    found["probe"]["counted"] = counted(folder, devices=2, strategy="ddp")
    for name, options in VARIANTS.items():
        for sharded in (False, True):
            module = distiller(teacher_sharding=sharded, **options)
            result = found[f"{name}, {'shared' if sharded else 'whole'}"] = fit(module, folder)
            result |= {"held": held(module.teacher), "of": sum(p.numel() for p in module.teacher.parameters())}
            result |= {"training": module.teacher.training, "summary": [text for _, text in module.summary()]}
    torch.save({"found": found, "gradient": gradient(rank)}, folder / f"{rank}.pt")
    wait_for_all()
    leave(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
