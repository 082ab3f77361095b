"""Where a module that is trained on labels starts: from somebody's weights, or from scratch."""

from __future__ import annotations

from tinymim import teachers
from tinymim.architecture import Architecture
from tinymim.backbones import Backbone, skeleton
from tinymim.errors import TinymimError
from tinymim.modules.evaluation import Evaluated
from tinymim.weights import Provenance


class Started(Evaluated):
    """Base of such modules.

    Args:
        weights: a checkpoint or export of this project, or a teacher card's name; ``None`` starts from scratch.
        architecture: needed from scratch. With ``weights`` their own record is followed, head layout included; of this,
            ``heads`` alone is compared with it, if given.
    """

    def __init__(self, weights: str | None, architecture: Architecture | None):
        super().__init__()
        self.source, self.architecture = weights, architecture
        self.provenance: Provenance | None = None

    @property
    def licence(self) -> str:
        """Of all it was made from."""
        return self._located.licence if self._located else "unknown"

    def _skeleton(self) -> Backbone:
        """The network it starts from, without weights."""
        if self.source is None:
            if self.architecture is None:
                raise TinymimError("weights: none given, and no architecture to start from scratch; set one of the two")
            return skeleton(self.architecture)
        self._located = self._located or teachers.locate(self.source)
        if problem := self._located.problem():
            raise TinymimError(problem.replace("teacher:", "weights:"))
        return self._located.skeleton

    def _backbone(self) -> Backbone:
        """The network it starts from."""
        if self._located is None:
            assert self.architecture
            return Backbone(self.architecture)
        backbone, self.provenance = self._located.load()
        if self.architecture and self.architecture.heads and skeleton(self.architecture).heads != backbone.heads:
            raise TinymimError(
                f"head layout: {self.source} was trained with heads {backbone.heads}, and architecture.heads asks for "
                f"{skeleton(self.architecture).heads}; leave it out to follow the weights"
            )
        return backbone
