"""An ONNX graph: images in [0, 1] in, features, tokens and logits out."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from tinymim.export.model_card import ExportedForm
from tinymim.export.source import Outputs, Source, needs
from tinymim.export.torch_export import compare, notes, preparing, traced, write_config

FILE = "model.onnx"
MOST = 1e-4
"""Largest difference allowed between onnxruntime's outputs and ours."""


def write(source: Source, folder: Path) -> ExportedForm:
    """Fill ``folder`` with ``model.onnx`` and ``config.json``, and try the graph with onnxruntime."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        needs(package, "onnx")
    outputs = Outputs(source.backbone)
    with _quietly():
        program = torch.onnx.export(traced(outputs), input_names=["images"], output_names=outputs.names, dynamo=True)
    assert program is not None
    program.save(folder / FILE)
    write_config(source, outputs, folder)
    return ExportedForm(
        library="onnx",
        snippet=SNIPPET.format(file=FILE, preparing=preparing(source), outputs=", ".join(outputs.names)),
        notes=notes(outputs),
        differences=compare(outputs, _session(folder / FILE), MOST, "onnxruntime's"),
        packages=["torch", "onnx", "onnxscript", "onnxruntime"],
    )


def _session(file: Path) -> Callable[[Tensor], tuple[Tensor, ...]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> tuple[Tensor, ...]:
        return tuple(map(torch.from_numpy, session.run(None, {"images": images.numpy()})))

    return run


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without what the exporter says of each of its steps."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


SNIPPET = """\
import numpy as np
import onnxruntime
from PIL import Image
from torchvision.transforms import v2

session = onnxruntime.InferenceSession("{file}")
{preparing}
{outputs} = session.run(None, {{"images": images.numpy()}})
"""
