"""Graphs with nothing of this project in them, images in [0, 1] in, features, tokens and logits out: a program that
``torch.export.load`` opens, and ONNX."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim, ExportedProgram

from tinymim.export.judge import Run
from tinymim.export.model_card import ExportedForm
from tinymim.export.network_runs import onnx_run, openvino_run, program_run
from tinymim.export.source import Outputs, Source, difference, resized_side, sample
from tinymim.files import write_json

FILES = FILE, ONNX, *OPENVINO = "model.pt2", "model.onnx", "model.xml", "model.bin"
MOST, MOST_ONNX = 1e-5, 1e-4  # largest differences allowed between a graph's outputs and ours

IN_OPENVINO = (
    "OpenVINO computes in bfloat16 where the processor can, unasked, and features are then off by some 1e-2; "
    "`INFERENCE_PRECISION_HINT: f32` gives those of float32."
)
BATCHES = (1, 2, 5)  # numbers of images that a written file is tried with; it was traced with 3


def write(source: Source, folder: Path) -> ExportedForm:
    """Fill ``folder`` with ``model.pt2`` and ``config.json``, and load and try the program."""
    outputs = Outputs(source.backbone)
    torch.export.save(traced(outputs), folder / FILE)
    write_config(source, outputs, folder)
    return ExportedForm(
        library="pytorch",
        snippet=SNIPPET.format(file=FILE, preparing=preparing(source), outputs=", ".join(outputs.names)),
        notes=notes(outputs),
        differences=compare(outputs, program_run(folder / FILE), MOST, "the program's"),
        packages=["torch"],
    )


def write_onnx(
    source: Source, folder: Path, rewrite: Callable[[ExportedProgram], ExportedProgram] | None = None
) -> ExportedForm:
    """Fill ``folder`` with ``model.onnx`` and ``config.json``, and try the graph with onnxruntime; of a program that
    ``rewrite`` gives for the traced one, where it is given."""
    outputs = Outputs(source.backbone)
    program = rewrite(traced(outputs)) if rewrite else traced(outputs)
    with _quietly():
        graph = torch.onnx.export(program, input_names=["images"], output_names=outputs.names, dynamo=True)
    assert graph is not None
    graph.save(folder / ONNX)
    write_config(source, outputs, folder)
    return ExportedForm(
        library="onnx",
        snippet=ONNX_SNIPPET.format(file=ONNX, preparing=preparing(source), outputs=", ".join(outputs.names)),
        notes=[*notes(outputs), IN_OPENVINO],
        differences=compare(outputs, onnx_run(folder / ONNX), MOST_ONNX, "onnxruntime's"),
        packages=["torch", "onnx", "onnxscript", "onnxruntime"],
    )


def write_openvino(source: Source, folder: Path) -> ExportedForm:
    """Fill ``folder`` with ``model.xml``, ``model.bin`` and ``config.json``, and try the graph with OpenVINO."""
    import openvino

    form = write_onnx(source, folder)
    # read as it is: OpenVINO's converter would tell its makers of each call
    model = openvino.Core().read_model(folder / ONNX)
    openvino.save_model(model, folder / OPENVINO[0], compress_to_fp16=False)
    (folder / ONNX).unlink()
    outputs = Outputs(source.backbone)
    form.library = "openvino"
    form.snippet = OPENVINO_SNIPPET.format(
        file=OPENVINO[0], preparing=preparing(source), outputs=", ".join(outputs.names)
    )
    run = openvino_run(folder / OPENVINO[0], exact=True)
    form.differences = compare(outputs, run, MOST_ONNX, "OpenVINO's")
    form.packages.append("openvino")
    return form


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


def traced(outputs: Outputs) -> ExportedProgram:
    """The graph, for any number of images."""
    images = sample(outputs.backbone, 3)
    with torch.no_grad():
        program = torch.export.export(outputs, (images,), dynamic_shapes={"images": {0: Dim("batch")}})
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine, which are nobody else's business
    return program


def compare(outputs: Outputs, run: Run, most: float, whose: str) -> dict[str, float]:
    """Largest differences between a written graph, read again, and the network, over several numbers of images.

    Raises:
        TinymimError: more than ``most``; the message begins with ``whose`` outputs.
    """
    differences = dict.fromkeys(outputs.names, 0.0)
    for count in BATCHES:
        images = sample(outputs.backbone, count)
        with torch.inference_mode():
            got = run(images)
            for name, expected in zip(outputs.names, outputs(images), strict=True):
                differences[name] = max(differences[name], difference(got[name], expected, most, f"{whose} {name}"))
    return differences


def write_config(source: Source, outputs: Outputs, folder: Path) -> None:
    """``config.json``: what goes in and comes out, and our record."""
    network = outputs.backbone
    content: dict[str, Any] = {
        "input": {"images": ["batch", 3, *network.image_size], "range": [0, 1], "normalised_inside": True},
        "outputs": outputs.names,
        "backbone": network.record(),
        **({"classifier": asdict(network.classifier.form)} if network.classifier else {}),
        **source.kept(),
    }
    write_json(folder / "config.json", content)


def preparing(source: Source) -> str:
    """Lines of a snippet that make ``images`` of a file as the project does, with torchvision alone."""
    size = source.backbone.image_size[0]
    return PREPARING.format(side=resized_side(size), size=size)


def notes(outputs: Outputs) -> list[str]:
    """Notes of the model card on a graph."""
    height, width = outputs.backbone.image_size
    block = outputs.backbone.output_block
    return [
        f"The input is `images`, `(batch, 3, {height}, {width})`, RGB in [0, 1]: the normalisation is inside.",
        f"The outputs are `features`, the mean patch token of block {block}, and `tokens`, all of that block's, "
        f"the first {outputs.backbone.prefix} not patches" + ("; and `logits`." if outputs.backbone.classes else "."),
    ]


PREPARING = """\
view = v2.Compose([v2.Resize([{side}], interpolation=v2.InterpolationMode.BICUBIC), v2.CenterCrop([{size}, {size}])])
image = v2.functional.pil_to_tensor(view(Image.open("image.jpg").convert("RGB")))
images = image.unsqueeze(0) / 255  # in [0, 1]"""

SNIPPET = """\
import torch
from PIL import Image
from torchvision.transforms import v2

program = torch.export.load("{file}").module()
{preparing}
with torch.inference_mode():
    {outputs} = program(images)
"""

ONNX_SNIPPET = """\
import numpy as np
import onnxruntime
from PIL import Image
from torchvision.transforms import v2

session = onnxruntime.InferenceSession("{file}")
{preparing}
{outputs} = session.run(None, {{"images": images.numpy()}})
"""

OPENVINO_SNIPPET = """\
import openvino
from PIL import Image
from torchvision.transforms import v2

model = openvino.Core().compile_model("{file}", "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})
{preparing}
{outputs} = model(images.numpy()).values()
"""
