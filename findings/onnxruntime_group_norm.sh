#!/usr/bin/env bash
# onnxruntime 1.32.0: GroupNormalization (opset 21) of values far from 0 is wrong, LayerNormalization of the very values is right. It is
# computed as the function that the standard defines it by, with the variance as the mean of squares less the square of the mean, in
# float32: 64 values a group of deviation 1 come out 3 % too small with a mean of 1,000, and 200 times too large or a quarter of
# their size with one of 10,000. OpenVINO 2026.4.1 has them right on the very file.
# Output seen, size of the result over the right one: mean 100 1.000, 1000 0.967, 10000 221; LayerNormalization, OpenVINO: 1.000
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
packages=(numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.1)
if command -v uv >/dev/null; then
  uv venv -q "$folder/venv" && uv pip install -q --python "$folder/venv" "${packages[@]}"
else
  python3 -m venv "$folder/venv" && "$folder/venv/bin/pip" install -q "${packages[@]}"
fi
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import helper

print(*(f"{name} {version(name)}" for name in ("onnxruntime", "onnx", "openvino")))
noise = np.random.default_rng(0).normal(size=(2, 64)).astype(np.float32)


def model(operator, shape, scales, **attributes):
    one, zero = (onnx.numpy_helper.from_array(np.full(scales, value, np.float32), name) for value, name in ((1, "w"), (0, "b")))
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", "w", "b"], ["y"], **attributes)],
        "norm",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, shape)],
        [one, zero],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()


group = model("GroupNormalization", (1, 2, 64), 2, num_groups=2)
layer = model("LayerNormalization", (2, 64), 64, axis=-1)


def size(made):
    right = (noise - noise.mean(1, keepdims=True)) / noise.std(1, keepdims=True)
    return float(np.linalg.norm(made) / np.linalg.norm(right))


def onnxruntimes(content, x):
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


found = {}
for mean in (0, 100, 1000, 10000):
    x = noise + np.float32(mean)
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(group), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found[mean] = [
        size(made)
        for made in (onnxruntimes(group, x[None]), onnxruntimes(layer, x), compiled([x[None]])[0])
    ]
    print("mean {}: GroupNormalization {:.3f}, LayerNormalization {:.3f}, OpenVINO's GroupNormalization {:.3f}".format(mean, *found[mean]))
right = all(abs(value - 1) < 0.01 for sizes in found.values() for value in sizes[1:])
sys.exit(0 if right and abs(found[0][0] - 1) < 1e-3 and found[1000][0] < 0.99 and abs(found[10000][0] - 1) > 0.5 else "this has changed")
PYTHON
