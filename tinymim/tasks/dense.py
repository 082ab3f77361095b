"""Supervised use of a backbone where it says something of places: at the size of the data's images, under a decoder."""

from __future__ import annotations

import copy
from dataclasses import asdict
from typing import Any

from tinymim.errors import TinymimError, several
from tinymim.methods.optim import Optim, configure
from tinymim.tasks.base import Started
from tinymim.tasks.network import Decoded
from tinymim.tasks.resize import at_size
from tinymim.teachers.weights import RECORD
from tinymim.vit.architecture import set_drop_path
from tinymim.vit.backbone import Backbone


class Dense(Started):
    """Base of the modules that train a :class:`Decoded` network; subclasses say what is on top."""

    part = ""
    """Key of the decoder's form in a checkpoint's record."""
    classes_of = ""
    """The data's attribute that counts its classes."""
    lacking = ""
    """What to do about data that has none."""

    num_classes: int | None
    drop_path: float
    optim: Optim
    _size: int | None = None
    _trained: tuple[int, list[str]] | None = None

    @property
    def net(self) -> Decoded:
        """The network."""
        raise NotImplementedError

    @property
    def backbone(self) -> Backbone:
        """The network without its decoder."""
        return self.net.backbone

    def problems(self, image_size: int) -> list[str]:
        """Everything that keeps the recipe from running."""
        raise NotImplementedError

    def settle(self, backbone: Backbone, classes: int) -> Any:
        """Cut ``backbone`` after the last block that is read; the decoder's form."""
        raise NotImplementedError

    def assemble(self, backbone: Backbone, form: Any) -> None:
        """Build the network on a settled backbone, say what of it is trained, and get the figures ready."""
        raise NotImplementedError

    def skeleton_at(self, image_size: int) -> Backbone:
        """The network it starts from, without weights, for images of this size; from scratch it is built for them.

        Raises:
            TinymimError: there is none, or it cannot take them.
        """
        self._size = image_size
        self._build_for(image_size)
        return at_size(self._skeleton(), image_size)

    def configure_model(self) -> None:
        """Build or load the backbone, resample its positions, cut it after its last block read, add the decoder."""
        if self._trained:
            return
        data = getattr(self.trainer, "datamodule", None)
        size = getattr(data, "image_size", None) or self._skeleton().image_size[0]
        classes = self.num_classes or getattr(data, self.classes_of, None)
        if found := self.problems(size) + ([] if classes else [f"data: {self.lacking}"]):
            raise several("this recipe cannot run", found)
        assert classes
        self.num_classes = classes
        backbone = at_size(self._backbone(), size)
        self._trained = backbone.output_block, backbone.beyond
        form = self.settle(backbone, classes)
        set_drop_path(backbone.vit, self.drop_path)
        self.assemble(backbone, form)

    def leaves(self) -> dict[str, Any]:
        """A checkpoint's record. Where the number of classes is the data's and not known yet, it says 1."""
        network = copy.deepcopy(self._skeleton())
        network = at_size(network, self._size or network.image_size[0])
        form = asdict(self.settle(network, self.num_classes or 1))
        record = {"backbone": network.record(), "prefix": self.prefix, **self.born()}
        return {**record, "licence": self.licence, self.part: form}

    def configure_optimizers(self) -> Any:
        """AdamW with layer-wise decay of the learning rate."""
        return configure(self.net, self.optim, self.trainer)

    def origin(self) -> dict[str, Any]:
        """The decoder, and the licence of what it was made from."""
        return {"licence": self.licence, self.part: asdict(self.net.form)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse another backbone, and another decoder."""
        super().on_load_checkpoint(checkpoint)
        stored, own = checkpoint[RECORD].get(self.part), asdict(self.net.form)
        if stored != own:
            raise TinymimError(f"ckpt_path: its decoder is {stored}, and the recipe's {own}")

    def summary(self) -> list[tuple[str, str]]:
        """What is about to be trained, for people."""
        return [*self._origins(), ("decoder", self.net.form.describe())]
