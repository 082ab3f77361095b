#!/usr/bin/env bash
# pillow 13.0.0: BICUBIC is another kernel where an image is rotated, sheared or shifted than where it is resized. resize has a = -0.5
# (weights -1/16, 9/16 at half a pixel), transform and rotate a = -1 (-1/8, 5/8), which overshoots twice as far: an edge from
# 50 to 200 gets 31 and 218 beside it. So the affine part of an augmentation sharpens, and undoing a shift with resize's box
# does not undo it. torch's own (grid_sample, interpolate) has a = -0.75.
# Output seen, at half a pixel: transform -0.125 0.625, resize -0.0625 0.5625; beside the edge transform 31 218
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
packages=(pillow==13.0.0 numpy==2.4.6)
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
from PIL import Image

print(*(f"{name} {version(name)}" for name in ("pillow", "numpy")))
point = np.zeros((21, 21), np.float32)
point[:, 10] = 1
half = (1, 0, 0.5, 0, 1, 0)
moved = np.asarray(Image.fromarray(point).transform((21, 21), Image.Transform.AFFINE, half, Image.Resampling.BICUBIC))[10]
resized = np.asarray(Image.fromarray(point).resize((20, 21), Image.Resampling.BICUBIC, box=(0.5, 0, 20.5, 21)))[10]
print("at half a pixel: transform", moved[8:12].tolist(), "resize", resized[8:12].tolist())
edge = Image.fromarray(np.where(np.arange(21) < 10, 50, 200).astype(np.uint8)[None].repeat(21, 0))
over = np.asarray(edge.transform((21, 21), Image.Transform.AFFINE, half, Image.Resampling.BICUBIC))[10, :20]
print("beside the edge: transform", over.min(), over.max())
same = moved[8:12].tolist() == [-0.125, 0.625, 0.625, -0.125] and (int(over.min()), int(over.max())) == (31, 218)
sys.exit(0 if same and np.allclose(sorted(resized)[-2:], 0.5625, atol=1e-3) else "this has changed")
PYTHON
