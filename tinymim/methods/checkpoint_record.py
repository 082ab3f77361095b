"""The record of a checkpoint, compared with the network that is to go on from it."""

from __future__ import annotations

from typing import Any

from tinymim.errors import TinymimError
from tinymim.safety import text
from tinymim.teachers import record_schemas
from tinymim.vit.backbone import Backbone

KINDS = {
    "student.vit.": "a Distiller's",
    "encoder.vit.": "an MAEPretrainer's",
    "model.encoder.vit.": "a SimMIMPretrainer's",
    "model.backbone.vit.": "a Classifier's",
    "average.backbone.vit.": "a Classifier's with a running average",
    "network.backbone.vit.": "a Segmenter's",
    "readout.backbone.vit.": "a SceneTasks'",
    "detector.backbone.vit.": "a Detector's",
}
"""Prefix of the backbone's weights in each kind of module, by which its checkpoints are known."""

OTHER_RUN = (
    "go on with the recipe that the run began with; or keep it, and give --run_dir ANOTHER_FOLDER; or start again and "
    "lose it: --overwrite true in place of --ckpt_path last"
)
"""What to do where a run's checkpoint does not fit the recipe that is to go on with it."""


def check_record(record: dict[str, Any] | None, backbone: Backbone, prefix: str) -> None:
    """Raise unless a Lightning checkpoint with this record continues this very network.

    Args:
        record: of the checkpoint; ``None`` where it has none.
        backbone: the recipe's.
        prefix: of its weights in the recipe's module: another one means another kind of module.

    Raises:
        TinymimError: not ours, of another kind, of other sizes, or with another head layout.
    """
    if not record:
        raise TinymimError(
            "ckpt_path: this file is no checkpoint of tinymim; weights alone are given to a Classifier or as a teacher"
        )
    record_schemas.record(text.plain(record, "ckpt_path: its record"), "ckpt_path: its record")
    if record["prefix"] != prefix:
        raise TinymimError(
            f"ckpt_path: this checkpoint is {KINDS.get(record['prefix'], 'of another module')}, and the recipe trains "
            f"{KINDS[prefix]}; its network is given to a Classifier, which starts from it, as model.weights, to a "
            "Distiller as model.teacher"
        )
    stored, ours = record["backbone"]["architecture"], backbone.record()["architecture"]
    if stored.get("heads") != ours["heads"]:
        raise TinymimError(
            f"head layout: the checkpoint has heads {stored.get('heads')}, the recipe {ours['heads']}; {OTHER_RUN}"
        )
    sizes = [{"arch": each["arch"], **each.get("options", {}), "num_heads": None} for each in (stored, ours)]
    if sizes[0] != sizes[1]:
        raise TinymimError(
            f"ckpt_path: the checkpoint's network is {sizes[0]}, and the recipe's {sizes[1]}; {OTHER_RUN}"
        )
