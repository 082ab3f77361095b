#!/usr/bin/env bash
# OpenVINO 2026.4.1 with timm 1.0.31: a ViT made with dynamic_img_size, converted with an example at its own size, says that
# it takes any size (shape [?,3,?,?]) and gives features of no image at another one: an array of 0 rows, without a word.
# (At the trained size the positions are not resampled, and the trace keeps that.) Converted with an example at another
# size it is right at that one. Compare shapes, or convert once for each size.
# Output seen: at 224: (1, 192), off by 3e-06; at 192: (0, 192) where timm gives (1, 192); example of 192, at 192: off by 3e-06
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
packages=(torch==2.14.1 torchvision==0.29.1 timm==1.0.31 numpy==2.4.6 openvino==2026.4.1)
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
import openvino
import timm
import torch


def features(model, images):
    return openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(images.numpy())[0]


print(*(f"{name} {version(name)}" for name in ("openvino", "timm", "torch")))
torch.manual_seed(0)
vit = timm.create_model("vit_tiny_patch16_224", depth=1, dynamic_img_size=True, num_classes=0).eval().requires_grad_(False)
own, other = torch.randn(1, 3, 224, 224), torch.randn(1, 3, 192, 192)
model = openvino.convert_model(vit, example_input=own)
print("it takes", model.inputs[0].partial_shape)
at_own, at_other = features(model, own), features(model, other)
again = features(openvino.convert_model(vit, example_input=other), other)
off = [float(np.abs(a - vit(x).numpy()).max()) for a, x in ((at_own, own), (again, other))]
print(f"at 224: {at_own.shape}, off by {off[0]:.0e}; at 192: {at_other.shape} where timm gives {tuple(vit(other).shape)};"
      f" example of 192, at 192: off by {off[1]:.0e}")
dynamic = model.inputs[0].partial_shape[2].is_dynamic
sys.exit(0 if dynamic and max(off) < 1e-4 and at_other.shape == (0, 192) else "this has changed")
PYTHON
