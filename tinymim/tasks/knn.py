"""10-NN of a backbone that somebody trained, with nothing to train: for `tinymim test` and `validate`."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tinymim.errors import TinymimError
from tinymim.tasks.base import Started
from tinymim.tasks.cut import Blocks, cut
from tinymim.teachers.locate import freeze
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone


class Knn(Started):
    """Nearest neighbours on the mean patch tokens of a frozen backbone.

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
        super().__init__(weights, architecture)
        self.blocks = blocks
        self.neighbours.k, self.neighbours.temperature = k, temperature
        self.network: Backbone | None = None

    @property
    def backbone(self) -> Backbone:
        """The frozen network."""
        assert self.network is not None, "configure_model comes first"
        return self.network

    def problems(self, image_size: int) -> list[str]:
        """Everything that keeps the recipe from running."""
        if self.source is None:
            return ["weights: none given; name a checkpoint or a teacher card with --model.weights"]
        found = []
        if self.neighbours.k < 1 or not self.neighbours.temperature > 0:
            found.append(f"k, temperature: {self.neighbours.k}, {self.neighbours.temperature} are not both more than 0")
        try:
            size = self._skeleton().image_size
            if size != (image_size, image_size):
                found.append(f"data.image_size: {image_size}, but the backbone takes {size[0]}; make them equal")
        except TinymimError as error:
            found.append(str(error))
        return found

    def configure_model(self) -> None:
        """Load the backbone and cut it after the block that is read."""
        if self.network is None:
            self._skeleton()
            backbone = self._backbone()
            cut(backbone, self.blocks, frozen=True)
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
