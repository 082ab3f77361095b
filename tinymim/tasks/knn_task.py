"""10-NN of a pre-trained backbone, with nothing to train: for `tinymim test` and `validate`."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from tinymim.argument_types import check_types
from tinymim.errors import TinymimError
from tinymim.evaluation.knn import KNNEvaluator
from tinymim.log import say
from tinymim.methods.base import Errors
from tinymim.tasks.base import Blocks, SupervisedTask, resampling, truncate
from tinymim.teachers.locate import freeze
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone


class Knn(SupervisedTask):
    """Nearest neighbours on the mean patch tokens of a frozen backbone, whose positions are resampled to images of
    another size than its own.

    Args:
        weights: a checkpoint or export of this project, or a teacher card's name.
        architecture: of it, ``heads`` alone is compared with the weights' own record, if given.
        blocks: the block that is read: ``trained`` is the last that pre-training trained whole, ``all`` the last of
            all; or its number.
        k: neighbours that vote.
        temperature: of their weights, exp(similarity / T).
    """

    monitor = ("val/knn_top1", "max")
    prefix = "network.vit."
    classes_of = "num_classes"
    lacking = "these images have no labels, and nearest neighbours vote on them; put each class in a folder of its own"
    complete = True
    """The recipe names its weights, so no checkpoint is needed."""

    def __init__(
        self,
        weights: str | None = None,
        architecture: Architecture | None = None,
        blocks: Blocks = "trained",
        k: int = 10,
        temperature: float = 0.07,
    ):
        check_types(Knn, locals())
        super().__init__(weights, architecture)
        self.blocks, self.k, self.temperature = blocks, k, temperature
        self.knn = KNNEvaluator(k, temperature)

    @property
    def backbone(self) -> Backbone:
        """The frozen network."""
        network: Backbone = self.net
        return network

    def build(self, image_size: int | None, data: Any, errors: Errors) -> None:
        """Load the backbone and truncate it after the block that is read."""
        if self.source is None:
            errors.append("weights: none given; name a checkpoint or a teacher card with --model.weights")
            return
        if self.k < 1 or not 0 < self.temperature < math.inf:
            errors.append(f"k, temperature: {self.k}, {self.temperature} are not both more than 0")
        self.count_classes(data, errors)
        with errors.of():
            backbone = self.start_at(image_size)
            if backbone.resampled_from is not None and not self.checking:
                say(f"positions: {resampling(backbone)} for images of {backbone.image_size[0]} px")
            truncate(backbone, self.blocks, frozen=True)
            self.network = freeze(backbone)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """There is nothing to load.

        Raises:
            TinymimError: always.
        """
        raise TinymimError("ckpt_path: Knn takes its weights from --model.weights; leave ckpt_path out")

    def evaluate(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """No loss."""
        return {}
