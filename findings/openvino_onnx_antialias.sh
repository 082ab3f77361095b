#!/usr/bin/env bash
# OpenVINO 2026.4.1 with onnx 1.23.2 and torch 2.14.1: ONNX's Resize with antialias=1 is computed without it, in silence. A
# resize in front of a network, or positions resampled within one, then shrink as by plain bicubic or bilinear sampling:
# wrong by more than the values' own deviation. onnxruntime 1.32.0 computes the very file as torch does, and OpenVINO's own
# reading of the torch module does, too, so that the ONNX way alone is wrong. (Enlarging bilinearly nothing is lost.)
# Output seen, largest difference to torch, 14 to 8: bicubic: onnxruntime 1e-06, OpenVINO from ONNX 1.7e+00, from torch 1e-06
#                                                   bilinear: onnxruntime 1e-06, OpenVINO from ONNX 1.3e+00, from torch 1e-06
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
from importlib.metadata import version

import numpy as np
import onnx
import onnxruntime
import openvino
import torch
import torch.nn.functional as F


class Shrink(torch.nn.Module):
    def __init__(self, mode):
        super().__init__()
        self.mode = mode

    def forward(self, x):
        return F.interpolate(x, size=(8, 8), mode=self.mode, antialias=True)


def openvinos(model):
    return openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x.numpy())[0]


print(*(f"{name} {version(name)}" for name in ("openvino", "onnx", "onnxruntime", "torch")))
torch.manual_seed(0)
x, same = torch.randn(1, 2, 14, 14), True
for mode in ("bicubic", "bilinear"):
    module = Shrink(mode)
    torch.onnx.export(module, (x,), "shrink.onnx", dynamo=True, external_data=False, verbose=False)
    node = next(node for node in onnx.load("shrink.onnx").graph.node if node.op_type == "Resize")
    assert {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}["antialias"] == 1
    session = onnxruntime.InferenceSession("shrink.onnx", providers=["CPUExecutionProvider"])
    made = {
        "onnxruntime": session.run(None, {session.get_inputs()[0].name: x.numpy()})[0],
        "OpenVINO from ONNX": openvinos(openvino.Core().read_model("shrink.onnx")),
        "from torch": openvinos(openvino.convert_model(module, example_input=x)),
    }
    off = {name: float(np.abs(y - module(x).numpy()).max()) for name, y in made.items()}
    print(f"{mode}:", ", ".join(f"{name} {value:.0e}" if value < 1e-4 else f"{name} {value:.1e}" for name, value in off.items()))
    plain = F.interpolate(x, size=(8, 8), mode=mode).numpy()
    print("  the same as without antialias:", np.allclose(made["OpenVINO from ONNX"], plain, atol=0.3))
    same &= off["onnxruntime"] < 1e-4 and off["from torch"] < 1e-4 and off["OpenVINO from ONNX"] > 0.5
sys.exit(0 if same else "this has changed")
PYTHON
