#!/usr/bin/env bash
# A map enlarged by F.interpolate(mode="nearest"), 14x14 to 16x16 as masks of patches are, takes another row and column once exported.
# torch 2.14.1 multiplies the place by 14/16 and rounds down; onnxruntime 1.32.0, on the file that torch.onnx.export writes, and
# OpenVINO 2026.4.1, even on the torch module itself, divide it by 16/14, which in float32 is just below the whole number where
# torch is just at it: 8 / (16/14) gives 6 and not 7. So 14 to 8. onnx's own reference evaluator agrees with torch.
# Output seen, sources of 16: torch ... 5 6 7 7 8 ..., onnxruntime and OpenVINO ... 5 6 6 7 8 ...
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
packages=(torch==2.14.1 numpy==2.4.6 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0 openvino==2026.4.1)
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

import onnxruntime
import openvino
import torch
import torch.nn.functional as F

warnings.filterwarnings("ignore", category=FutureWarning)  # of tracing


class Enlarge(torch.nn.Module):
    def __init__(self, side):
        super().__init__()
        self.side = side

    def forward(self, x):
        return F.interpolate(x, size=(self.side, self.side), mode="nearest")


print(*(f"{name} {version(name)}" for name in ("torch", "onnxruntime", "openvino")))
x, seen = torch.arange(14.0).expand(1, 1, 14, 14).contiguous(), True
for side, place in ((16, 8), (8, 4)):
    module = Enlarge(side)
    torch.onnx.export(module, (x,), "nearest.onnx", dynamo=True, external_data=False, verbose=False)
    session = onnxruntime.InferenceSession("nearest.onnx", providers=["CPUExecutionProvider"])
    converted = openvino.Core().compile_model(openvino.convert_model(module, example_input=x), "CPU")
    sources = {
        "torch": module(x)[0, 0, 0].int().tolist(),
        "onnxruntime": session.run(None, {session.get_inputs()[0].name: x.numpy()})[0][0, 0, 0].astype(int).tolist(),
        "OpenVINO": converted([x.numpy()])[0][0, 0, 0].astype(int).tolist(),
    }
    print(f"14 to {side}:", "; ".join(f"{name} {' '.join(map(str, found))}" for name, found in sources.items()))
    others = [sources["torch"][:place] + [6] + sources["torch"][place + 1 :]] * 2
    seen &= sources["torch"][place] == 7 and [sources["onnxruntime"], sources["OpenVINO"]] == others
sys.exit(0 if seen else "this has changed")
PYTHON
