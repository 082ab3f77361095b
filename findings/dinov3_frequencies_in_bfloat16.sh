#!/usr/bin/env bash
# DINOv3 in bfloat16: transformers 5.24.0 and timm 1.0.31 do not round the same things. Called .bfloat16() (or put under
# Lightning's "bf16-true"), transformers' network rounds the frequencies of its rotary positions, and keeps them rounded
# when it goes back to float32; read with from_pretrained(dtype=torch.bfloat16), the same class keeps them in float32.
# timm's DINOv3 keeps its periods in float32 either way, while timm's EVA-02 rounds its whole table of sines.
# Output seen, type of the positions: transformers .bfloat16() bfloat16, from_pretrained float32; timm DINOv3 float32, EVA-02 bfloat16;
# frequencies after a round trip: transformers off by 0.37 %, timm 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
packages=(torch==2.14.1 torchvision==0.29.1 timm==1.0.31 transformers==5.24.0 safetensors==0.8.0 numpy==2.4.6)
if command -v uv >/dev/null; then
  uv venv -q "$folder/venv" && uv pip install -q --python "$folder/venv" "${packages[@]}"
else
  python3 -m venv "$folder/venv" && "$folder/venv/bin/pip" install -q "${packages[@]}"
fi
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

import timm
import torch
from transformers import DINOv3ViTConfig, DINOv3ViTModel

print(*(f"{name} {version(name)}" for name in ("transformers", "timm", "torch")))
form = DINOv3ViTConfig(hidden_size=384, num_hidden_layers=1, num_attention_heads=6, intermediate_size=96, image_size=64)
theirs = DINOv3ViTModel(form)
theirs.save_pretrained("dinov3")
read = DINOv3ViTModel.from_pretrained("dinov3", dtype=torch.bfloat16)
timms = timm.create_model("vit_small_patch16_dinov3", depth=1, img_size=64)
eva = timm.create_model("eva02_tiny_patch14_224", depth=1, img_size=56)
before = {"transformers": theirs.rope_embeddings.inv_freq.clone(), "timm": timms.rope.periods.clone()}
types = {
    "transformers .bfloat16()": theirs.bfloat16().rope_embeddings.inv_freq.dtype,
    "from_pretrained": read.rope_embeddings.inv_freq.dtype,
    "timm DINOv3": timms.bfloat16().rope.periods.dtype,
    "EVA-02": eva.bfloat16().rope.pos_embed.dtype,
}
after = {"transformers": theirs.float().rope_embeddings.inv_freq, "timm": timms.float().rope.periods}
off = {name: float((after[name] / value - 1).abs().max()) for name, value in before.items()}
print(", ".join(f"{name} {str(kind).removeprefix('torch.')}" for name, kind in types.items()))
print(", ".join(f"{name}: off by {100 * value:.2f} %" for name, value in off.items()))
half, full = torch.bfloat16, torch.float32
seen = list(types.values()) == [half, full, full, half] and off["timm"] == 0 < off["transformers"]
sys.exit(0 if seen else "this has changed")
PYTHON
