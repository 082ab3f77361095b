#!/usr/bin/env bash
# One module, scaled_dot_product_attention with a boolean mask that excludes every key for one query, has three results.
# torch 2.14.1 gives zeros. Its ONNX export (opset 20, the default) turns "excluded" into a large negative number, so that
# onnxruntime 1.32.0 and OpenVINO 2026.4.1 give the mean of all values, the excluded ones included; with opset 23, which has an
# Attention of its own, zeros again. openvino.convert_model of the very module gives nan. A batch with padding, or a
# mask of patches with nothing left to look at, is such a mask.
# Output seen: torch zeros; onnxruntime mean (opset 23: zeros); OpenVINO from ONNX mean, from torch nan
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
import onnxruntime
import openvino
import torch
import torch.nn.functional as F


class Attend(torch.nn.Module):
    def forward(self, x, mask):
        return F.scaled_dot_product_attention(x, x, x, attn_mask=mask)


def onnxruntimes(**options):
    torch.onnx.export(module, (x, mask), "a.onnx", dynamo=True, external_data=False, verbose=False, **options)
    session = onnxruntime.InferenceSession("a.onnx", providers=["CPUExecutionProvider"])
    given = zip(session.get_inputs(), (x, mask), strict=True)
    return session.run(None, {which.name: value.numpy() for which, value in given})[0]


def openvinos(model):
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled([x.numpy(), mask.numpy()])[0]


def word(output):
    row, mean = output[0, :, 1], x.numpy()[0].mean(1)
    if np.isnan(row).all():
        return "nan"
    return "zeros" if not row.any() else "mean" if np.allclose(row, mean, atol=1e-5) else "other"


print(*(f"{name} {version(name)}" for name in ("torch", "onnx", "onnxruntime", "openvino")))
torch.manual_seed(0)
module, x, mask = Attend(), torch.randn(1, 2, 4, 8), torch.ones(4, 4, dtype=torch.bool)
mask[1] = False
right = module(x, mask).numpy()
outputs = {"torch": right, "onnxruntime": onnxruntimes()}
outputs["OpenVINO from ONNX"] = openvinos(openvino.Core().read_model("a.onnx"))
outputs["OpenVINO from torch"] = openvinos(openvino.convert_model(module, example_input=(x, mask)))
outputs["onnxruntime, opset 23"] = onnxruntimes(opset_version=23)
others = [0, 2, 3]
same = all(np.allclose(y[:, :, others], right[:, :, others], atol=1e-5) for y in outputs.values())
print("; ".join(f"{name} {word(y)}" for name, y in outputs.items()), "- the other queries agree:", same)
seen = [word(y) for y in outputs.values()] == ["zeros", "mean", "mean", "nan", "zeros"]
sys.exit(0 if same and seen else "this has changed")
PYTHON
