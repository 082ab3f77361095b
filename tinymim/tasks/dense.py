"""Base of the tasks that predict places or properties of an image: the backbone at the data's size, under a decoder."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import asdict
from typing import Any

from tinymim.errors import TinymimError
from tinymim.methods.base import Errors
from tinymim.tasks.base import SupervisedTask
from tinymim.tasks.network import BackboneWithDecoder
from tinymim.teachers.weights import RECORD
from tinymim.vit.architecture import set_drop_path
from tinymim.vit.backbone import Backbone
from tinymim.vit.taps import Tap


class DensePredictionTask(SupervisedTask):
    """Base of the modules that train a decoder on a backbone whose position embeddings are resampled to the data."""

    part = ""
    """Key of the decoder's form in a checkpoint's record."""
    of_another_form = "its decoder is {stored}, and the recipe's {form}"
    """Words for a checkpoint whose decoder is another one."""
    drop_path: float

    @abstractmethod
    def check_options(self, image_size: int | None, errors: Errors) -> None:
        """Note options that are out of range, or do not go together."""

    @abstractmethod
    def check_backbone(self, backbone: Backbone, errors: Errors) -> None:
        """Note why a backbone of the data's size cannot be read by the decoder."""

    @abstractmethod
    def decoder_form(self, backbone: Backbone, classes: int) -> Any:
        """Truncate the backbone after the last block read; the decoder's form, a dataclass with ``describe``."""

    @abstractmethod
    def network_on(self, backbone: Backbone, form: Any, data: Any) -> BackboneWithDecoder:
        """The backbone with its decoder; gets the figures ready, too."""

    def taps(self, backbone: Backbone, form: Any) -> list[Tap]:
        """Taps that the decoder reads."""
        return [Tap(backbone.output_block, "ffn_post")]

    def build(self, image_size: int | None, data: Any, errors: Errors) -> None:
        """Build or load the backbone, fit it to the images, truncate it, and add the decoder.

        In a check the decoder is left out: its form is what a record says of it.
        """
        self.check_options(image_size, errors)
        classes = self.count_classes(data, errors)
        with errors.of():
            backbone = self.start_at(image_size)
            self.check_backbone(backbone, errors)
            self._pretrained = backbone.output_block, backbone.trained_qkv
            form = self.decoder_form(backbone, classes)
            set_drop_path(backbone.vit, self.drop_path)
            self.choose_trained(backbone, self.taps(backbone, form))
            network = BackboneWithDecoder(backbone, form) if self.checking else self.network_on(backbone, form, data)
            setattr(self, self.slot, network)
            if not self.checking:
                self.num_classes = classes
                self.train()

    def provenance_record(self) -> dict[str, Any]:
        """The decoder, and the licence of what it was made from."""
        return {"licence": self.licence, self.part: asdict(self.net.form)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse another backbone, and another decoder."""
        super().on_load_checkpoint(checkpoint)
        stored, form = checkpoint[RECORD].get(self.part), asdict(self.net.form)
        if stored != form:
            raise TinymimError(f"ckpt_path: {self.of_another_form.format(stored=stored, form=form)}")

    def summary(self) -> list[tuple[str, str]]:
        """Lines on what is about to be trained: title and text."""
        return [*super().summary(), ("decoder", self.net.form.describe())]
