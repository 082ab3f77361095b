#!/usr/bin/env bash
# torchvision 0.29.1: v2.RandomErasing(value="random") on bytes fills the rectangle with black and white, not with grey
# levels. It draws from a normal distribution of deviation 1, for any type, and casts: on uint8 that is 0, 1, 2, 3 and,
# wrapped around, 255 to 252; two thirds are exactly 0. On floats in [0, 1] most of the noise is outside [0, 1].
# It is meant for normalised images. (timm's RandomErasing draws from the same distribution, after its normalisation.)
# Output seen: bytes: at most 3 from 0 or 255, exactly 0 0.68; floats: within [0, 1] 0.34
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
packages=(torch==2.14.1 torchvision==0.29.1 numpy==2.4.6)
if command -v uv >/dev/null; then
  uv venv -q "$folder/venv" && uv pip install -q --python "$folder/venv" "${packages[@]}"
else
  python3 -m venv "$folder/venv" && "$folder/venv/bin/pip" install -q "${packages[@]}"
fi
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

import torch
from torchvision.transforms import v2

print("torchvision", version("torchvision"), "torch", version("torch"))
torch.manual_seed(0)
erase = v2.RandomErasing(p=1, value="random", scale=(0.3, 0.3))
grey = torch.full((3, 96, 96), 100, dtype=torch.uint8)
filled = erase(grey)
noise = filled[filled != 100].long()
print("values on bytes:", sorted(set(noise.tolist())))
far = int(torch.minimum(noise, 255 - noise).max())
zero = float((noise == 0).float().mean())
floats = erase(torch.full((3, 96, 96), 0.5))
inside = floats[floats != 0.5]
inside = float(((inside >= 0) & (inside <= 1)).float().mean())
print(f"bytes: at most {far} from 0 or 255, exactly 0 {zero:.2f}; floats: within [0, 1] {inside:.2f}")
sys.exit(0 if far < 8 and zero > 0.5 and inside < 0.5 else "this has changed")
PYTHON
