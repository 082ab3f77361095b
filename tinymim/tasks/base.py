"""Where a module that is trained on labels starts: from somebody's weights, or from scratch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tinymim.errors import TinymimError
from tinymim.methods.base import Evaluated
from tinymim.teachers import locate
from tinymim.teachers.weights import Provenance
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone, skeleton
from tinymim.vit.initialise import Init, initialise


class Started(Evaluated):
    """Base of such modules.

    Args:
        weights: a checkpoint or export of this project, or a teacher card's name; ``None`` starts from scratch.
        architecture: needed from scratch. With ``weights`` their own record is followed, head layout included; of this,
            ``heads`` alone is compared with it, if given.
        init: the first weights of what starts from scratch, see ``tinymim/vit/initialise.py``.
    """

    def __init__(self, weights: str | None, architecture: Architecture | None, init: Init = "published"):
        super().__init__()
        self.source, self.architecture, self.init = weights, architecture, init
        self.provenance: Provenance | None = None

    @property
    def licence(self) -> str:
        """Of all it was made from."""
        return self._located.licence if self._located else "unknown"

    def _build_for(self, image_size: int) -> None:
        """Let what starts from scratch be built for the data's images; weights are fitted by
        :func:`tinymim.tasks.resize.at_size`."""
        if self.source is None and self.architecture:
            options = {**self.architecture.options, "img_size": image_size}
            self.architecture = replace(self.architecture, options=options)

    def born(self) -> dict[str, Any]:
        """The rule of its first weights is told where it starts from scratch."""
        told = super().born()
        return told if self.source is None else {key: value for key, value in told.items() if key != "init"}

    def _skeleton(self) -> Backbone:
        """The network it starts from, without weights."""
        if self.source is None:
            if self.architecture is None:
                raise TinymimError("weights: none given, and no architecture to start from scratch; set one of the two")
            return skeleton(self.architecture)
        self._located = self._located or locate.locate(self.source)
        if problem := self._located.problem():
            raise TinymimError(problem.replace("teacher:", "weights:"))
        return self._located.skeleton

    def _backbone(self) -> Backbone:
        """The network it starts from."""
        if self._located is None:
            assert self.architecture
            return initialise(Backbone(self.architecture), self.init)
        backbone, self.provenance = self._located.load()
        if self.architecture and self.architecture.heads:
            asked, adapted = skeleton(self.architecture).heads, backbone.output_block
            fitting = list(asked)
            if isinstance(self.architecture.heads, int):  # of all blocks but the one that has its teacher's number
                fitting[adapted : adapted + 1] = backbone.heads[adapted : adapted + 1]
            if fitting != backbone.heads:
                raise TinymimError(
                    f"head layout: {self.source} was trained with heads {backbone.heads}, and architecture.heads asks "
                    f"for {asked}; leave it out to follow the weights"
                )
        return backbone

    def _origins(self) -> list[tuple[str, str]]:
        """The lines of a summary on the backbone and what it starts from."""
        start = str(self.provenance) if self.provenance else f"from scratch: first weights {self.init}"
        lines = [("backbone", self.backbone.describe()), ("", start)]
        if side := self.backbone.resampled_from:
            lines.append(("positions", f"resampled from {side}x{side} patches"))
        return lines
