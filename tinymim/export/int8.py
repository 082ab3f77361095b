"""Static int8 quantisation of an exported ONNX graph by onnxruntime's own tools, calibrated on the user's images and
judged on others."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from tinymim.errors import TinymimError, counted
from tinymim.evaluation.few_images import FEW
from tinymim.export import graphs
from tinymim.export.comparison import cost, few_line, losses
from tinymim.export.judge import LEAST, Judge, Reading
from tinymim.export.model_card import ExportedForm
from tinymim.export.network_runs import onnx_run, torch_run
from tinymim.export.products import plain_products
from tinymim.export.source import Outputs, Source
from tinymim.log import say

PRODUCTS = ("MatMul", "Gemm")
"""ONNX operators that are quantised where their second input is a weight."""


@dataclass
class Int8:
    """How a graph is quantised.

    Args:
        judge: the images.
        images: for calibration.
        force: write it whatever it loses.
    """

    judge: Judge
    images: int = 128
    force: bool = False

    def write(self, source: Source, folder: Path) -> ExportedForm:
        """Fill ``folder`` like :func:`tinymim.export.graphs.write_onnx`, with matrix products of weights in int8.

        Raises:
            TinymimError: it loses more than is allowed, or few images would judge that, and it is not forced.
        """
        if (count := self.judge.judges_on) < LEAST and not self.force:
            raise TinymimError(
                f"quantize: {self.judge.what} has {counted(count, 'held-out image')}, and {LEAST} are the least on "
                "which a loss is judged; give more images (--images), or say --force"
            )
        self.judge.check(source.name, source.backbone.classes, "leave the classifier out with --no-classifier")
        form = graphs.write_onnx(source, folder, plain_products)
        file = folder / graphs.ONNX
        with tempfile.TemporaryDirectory(dir=folder.parent) as place:
            exact = Path(place) / graphs.ONNX
            file.replace(exact)
            quantise(exact, file, self.judge.calibration(self.images))
        outputs = Outputs(source.backbone)
        before, after = self.judge.read(torch_run(source.backbone)), self.judge.read(onnx_run(file))
        if (errors := losses(before, after)) and not self.force:
            raise TinymimError(
                f"quantize: int8 loses too much on the {len(before.features)} held-out images of {self.judge.what}: "
                f"{'; '.join(errors)}. {self._remedy(before)}, or say --force"
            )
        form.differences = graphs.compare(outputs, onnx_run(file), float("inf"), "int8")
        say(note := self._note(before, after))
        form.notes += [note, PORTABLE]
        return form

    def _note(self, before: Reading, after: Reading) -> str:
        """What int8 costs here, for the model card."""
        calibrated, few = self.judge.calibrates_on(self.images), few_line(self.judge, before)
        ranges = f"few images to calibrate on: {calibrated}, whose values may not span those of others"
        return (
            f"Matrix products of weights are in int8, calibrated on {counted(calibrated, 'image')} of "
            f"{self.judge.what}. On {counted(len(before.features), 'held-out image')}, against float32: "
            f"{'; '.join(filter(None, [cost(before, after), few, ranges if calibrated < FEW else '']))}."
        )

    def _remedy(self, before: Reading) -> str:
        """What to do where too much is lost; of few images each may be more than is allowed."""
        if few := self.judge.few() if before.figures else "":
            return f"{few[0].upper()}{few[1:]}: judge on more (--images, a folder or a recipe that holds more out)"
        return "Calibrate on more images like those it will see (--calibration)"


PORTABLE = (
    "Weights take 7 of 8 bits, so that sums of products do not overflow on processors without VNNI instructions, where "
    "8 bits would give other outputs."
)


def quantise(exact: Path, file: Path, images: Iterator[Tensor]) -> None:
    """Write ``file``, the graph of ``exact`` with its products of weights in int8.

    Inputs of these products are quantised; their sums are not: they become float32 in the kernel itself, which takes
    less time and loses less. Products of activations with each other, as in attention, stay in float32: they are
    small, and most of the error.

    Args:
        exact: a graph in float32 with the input ``images``.
        file: to write.
        images: for calibration, ``(B, 3, S, S)`` in [0, 1], a batch at a time.
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Calibration(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> Any:
            batch = next(images, None)
            return None if batch is None else {"images": batch.numpy()}

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # of what is folded and what has no shape
    try:
        prepared = exact.with_name("prepared.onnx")
        quant_pre_process(str(exact), str(prepared), skip_symbolic_shape=True)
        graph = onnx.load(prepared).graph
        constants = {tensor.name for tensor in graph.initializer}
        products = [node.name for node in graph.node if node.op_type in PRODUCTS and node.input[1] in constants]
        quantize_static(
            str(prepared),
            str(file),
            Calibration(),
            quant_format=QuantFormat.QDQ,
            nodes_to_quantize=products,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"OpTypesToExcludeOutputQuantization": list(PRODUCTS)},
        )
    finally:
        logging.disable(before)
