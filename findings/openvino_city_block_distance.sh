#!/usr/bin/env bash
# OpenVINO 2026.4.1 with torch 2.14.1: torch.cdist(x, y, p=1) of a converted module adds differences with their signs. The distance of
# (3, 5) to (0, 7) is 3 - 2 = 1 in place of 5, and where the sum is below 0 it is nan; so distances are not even symmetric.
# Nearest neighbours by it are others, with no warning. p=2 is right.
# Output seen: OpenVINO [[0, nan, nan], [5, 0, 1], [4, nan, 0]], torch [[0, 5, 6], [5, 0, 5], [6, 5, 0]]
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
x = torch.tensor([[1.0, 2.0], [3.0, 5.0], [0.0, 7.0]])
one, two = (openvinos(lambda x, p=p: torch.cdist(x, x, p=p), x) for p in (1.0, 2.0))
right = torch.cdist(x, x, p=1.0)
print("p=1: OpenVINO", [[round(v, 3) for v in row] for row in one.tolist()], "torch", right.tolist())
euclidean = torch.allclose(two, torch.cdist(x, x), atol=1e-3)
print("p=2 agrees:", euclidean)
signed = abs(one[1, 2].item() - 1) < 1e-3 and one[0, 1].isnan() and abs(one[1, 0].item() - 5) < 1e-3
sys.exit(0 if signed and euclidean else "this has changed")
PYTHON
