"""Cost of a training step in floating-point operations, counted by PyTorch on two training images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from typing_extensions import override

from tinymim.data.sampler import Draw
from tinymim.seeds import restore, snapshot
from tinymim.vit.backbone import Backbone

IMAGES = 2
"""Images in the sample batch; mixup needs two."""


class FlopCount(pl.Callback):
    """Count a training step's operations once, when training has ended.

    A multiplication with its addition are two operations. Matrix products and convolutions count, of the forward and
    backward pass of all networks, a teacher's forward pass among them; norms, softmax and other elementwise work do
    not, nor what is computed a second time to save memory, nor kernels in Triton. Of a cached teacher only what is left
    to do in a step counts.
    """

    flops = 0
    """Operations for each image, forward and backward."""

    @override
    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.flops = per_image(trainer, module)


def per_image(trainer: pl.Trainer, module: pl.LightningModule) -> int:
    """Operations of a training step for each of its images.

    Args:
        trainer: of the run.
        module: what it trains; weights, gradients, buffers and random numbers stay as they are.
    """
    images: Any = trainer.datamodule.train  # type: ignore[attr-defined]
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    with (
        unchanged(module),
        torch.compiler.set_stance("force_eager"),
        sdpa_kernel(SDPBackend.MATH),
        trainer.precision_plugin.train_step_context(),
        ExitStack() as counting,
    ):
        if "stored" in (batch := sample_batch(trainer, images)):  # a teacher cache may lack them: fill it uncounted
            module.training_step(batch, 0)
        counter = counting.enter_context(FlopCounterMode(display=False))
        batch = sample_batch(trainer, images)
        output: Any = module.training_step(batch, 0)
        loss = output["loss"] if isinstance(output, dict) else output
        torch.autograd.grad(loss, parameters, allow_unused=True)  # unlike backward: no gradient is kept or shared
    return counter.get_total_flops() // min(IMAGES, len(images))


def sample_batch(trainer: pl.Trainer, images: Any) -> Any:
    """The first :data:`IMAGES` of a data set, as a module gets a batch."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    draws = [Draw(0, index) for index in range(min(IMAGES, len(images)))]
    batch = next(iter(DataLoader(images, IMAGES, sampler=draws)))
    if hasattr(data, "on_before_batch_transfer"):
        batch = data.on_before_batch_transfer(batch, 0)
    return trainer.strategy.batch_to_device(batch)


@contextmanager
def unchanged(module: pl.LightningModule) -> Iterator[list[str]]:
    """Silence logging, whose names it gives, and activation checkpointing; restore random numbers and buffers."""
    states = snapshot(module.device)
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    checkpointing = [m for m in module.modules() if isinstance(m, Backbone) and m.checkpointing]
    for backbone in checkpointing:
        backbone.checkpointing = False
    names: list[str] = []
    module.log = lambda name, *args, **options: names.append(name)  # type: ignore[method-assign]
    try:
        yield names
    finally:
        del module.log
        for backbone in checkpointing:
            backbone.checkpointing = True
        with torch.no_grad():
            for name, buffer in module.named_buffers():
                buffer.copy_(buffers[name])
        restore(states, module.device)
