"""Results of a run, as ``results.json`` holds them: its figures, their cost, the network and the data."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl

from tinymim.methods.optim import total_batch


def of(
    trainer: pl.Trainer, module: Any, metrics: dict[str, Any], seconds: float, flops: int, skipped: list[dict[str, Any]]
) -> dict[str, Any]:
    """Content of ``results.json``.

    Args:
        trainer: of the run, once it has ended.
        module: what it trained.
        metrics: of the final weights.
        seconds: of training, over all pieces of a resumed run.
        flops: operations for each image, forward and backward.
        skipped: steps that a rewind passed over.
    """
    images = trainer.global_step * total_batch(trainer)
    return {
        "metrics": {name: float(value) for name, value in metrics.items()},
        "seconds": round(seconds, 1),
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "images": len(trainer.datamodule.train),  # type: ignore[attr-defined]
        "images_seen": images,
        "flops": images * flops,
        "parameters": sum(parameter.numel() for parameter in module.backbone.parameters()),
        "weights": str(getattr(module, "provenance", None) or "from scratch"),
        "backbone": module.backbone.record(),
        "skipped_steps": [entry["step"] for entry in skipped],
    }
