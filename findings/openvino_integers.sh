#!/usr/bin/env bash
# OpenVINO 2026.4.1 with torch 2.14.1: integers of a converted module are computed by other rules. Bytes saturate where torch (and numpy,
# and onnxruntime on an ONNX file) wraps, so that a difference of two uint8 images has no negative half instead of a wrapped one;
# `//` of int64 rounds toward zero where torch rounds down, which moves indices below 0 by one (offsets of patches are
# such); what is beyond 31 bits is cut off. No warning, no error.
# Output seen: 200 + 100 as bytes 255 (torch 44), 100 - 200 0 (156), -3 // 2 -1 (-2)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
packages=(torch==2.14.1 numpy==2.4.6 openvino==2026.4.1)
if command -v uv >/dev/null; then
  uv venv -q "$folder/venv" && uv pip install -q --python "$folder/venv" "${packages[@]}"
else
  python3 -m venv "$folder/venv" && "$folder/venv/bin/pip" install -q "${packages[@]}"
fi
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import warnings
from importlib.metadata import version

import openvino
import torch

warnings.filterwarnings("ignore", category=FutureWarning)  # of tracing


class Call(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


def openvinos(function, *inputs):
    model = openvino.convert_model(Call(function).eval(), example_input=inputs)
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return torch.from_numpy(compiled([x.numpy() for x in inputs])[0].copy())


print(*(f"{name} {version(name)}" for name in ("openvino", "torch")))
bytes_, whole = torch.tensor([100, 200, 250], dtype=torch.uint8), torch.tensor([-3, -5, 5])
cases = {
    "x + 100 of bytes": (lambda x: x + 100, bytes_),
    "100 - x of bytes": (lambda x: 100 - x, bytes_),
    "x // 2": (lambda x: x // 2, whole),
}
found = {}
for name, (function, x) in cases.items():
    found[name] = (openvinos(function, x).tolist(), function(x).tolist())
    print(f"{name} of {x.tolist()}: OpenVINO {found[name][0]}, torch {found[name][1]}")
seen = list(found.values()) == [
    ([200, 255, 255], [200, 44, 94]),
    ([0, 0, 0], [0, 156, 106]),
    ([-1, -2, 2], [-2, -3, 2]),
]
sys.exit(0 if seen else "this has changed")
PYTHON
