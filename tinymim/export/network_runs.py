"""Networks in any written form as functions of images: ours in PyTorch, ONNX, OpenVINO and ``torch.export``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinymim import extras
from tinymim.errors import TinymimError
from tinymim.export.judge import Run
from tinymim.export.source import Outputs
from tinymim.safety import text
from tinymim.vit.backbone import Backbone

OUTPUTS = ("features", "tokens", "logits")


def torch_run(backbone: Backbone) -> Run:
    """The network itself, in float32."""
    outputs = Outputs(backbone.eval())

    def run(images: Tensor) -> dict[str, Tensor]:
        with torch.inference_mode():
            return dict(zip(outputs.names, outputs(images), strict=True))

    return run


def program_run(file: Path) -> Run:
    """A program of ``torch.export``."""
    program: Any = torch.export.load(file).module()
    names = _names(file)

    def run(images: Tensor) -> dict[str, Tensor]:
        with torch.inference_mode():
            return dict(zip(names, program(images), strict=True))

    return run


def onnx_run(file: Path, threads: int = 0) -> Run:
    """An ONNX graph, by onnxruntime on the CPU; ``threads`` 0 is all cores."""
    extras.need(f"{file.name} needs", "onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Its threads would go on spinning after each run, and take a core from the network that is measured next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(images: Tensor) -> dict[str, Tensor]:
        arrays = session.run(names, {"images": images.numpy()})
        return {name: torch.from_numpy(array) for name, array in zip(names, arrays, strict=True)}

    return run


def openvino_run(file: Path, threads: int = 0, exact: bool = False) -> Run:
    """A graph of OpenVINO on the CPU, which computes in bfloat16 where the processor can unless ``exact`` is asked."""
    extras.need(f"{file.name} needs", "openvino")
    import openvino

    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"} if exact else {}
    settings |= {"INFERENCE_NUM_THREADS": threads} if threads else {}
    compiled = openvino.Core().compile_model(str(file), "CPU", settings)
    names = _names(file)

    def run(images: Tensor) -> dict[str, Tensor]:
        result = compiled(images.numpy())
        return {name: torch.from_numpy(result[number].copy()) for number, name in enumerate(names)}

    return run


def _names(file: Path) -> list[str]:
    """Names of the outputs, as ``config.json`` beside a graph has them."""
    path = file.parent / "config.json"
    names = text.mapping(text.read_json(path, str(path)), str(path)).get("outputs")
    if not isinstance(names, list) or not names or not set(map(str, names)) <= {*OUTPUTS}:
        raise TinymimError(f"{path}: outputs: {names!r} is no list of {', '.join(OUTPUTS)}; export the network again")
    return names
