#!/usr/bin/env bash
# ptflops 0.7.5: counting a ViT of timm 1.0.31 with the default backend leaves out the projections of every attention (qkv and proj, a
# third of a block's weights), while their products are counted. Its rule for timm's Attention says that the projections are
# counted as Linear layers; but a module with a rule of its own is not looked into. More than a quarter of a tiny ViT is missing
# and a third of a base one, with no warning, and fused or explicit attention makes no difference. backend="aten" counts them.
# Output seen, GMACs: width 192: 0.913 of 1.254; width 768: 12.018 of 17.564
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
packages=(torch==2.14.1 torchvision==0.29.1 timm==1.0.31 ptflops==0.7.5 numpy==2.4.6)
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
from ptflops import get_model_complexity_info

print(*(f"{name} {version(name)}" for name in ("ptflops", "timm", "torch")))
tokens, same = 197, True
for width, heads in ((192, 3), (768, 12)):
    vit = timm.create_model("vit_tiny_patch16_224", embed_dim=width, num_heads=heads).eval()
    said, _ = get_model_complexity_info(vit, (3, 224, 224), as_strings=False, print_per_layer_stat=False, verbose=False)
    stem, head, depth = 196 * 768 * width, width * 1000, 12
    products, projections, mlp = 2 * tokens * tokens * width, 4 * tokens * width * width, 8 * tokens * width * width
    whole = stem + head + depth * (products + projections + mlp)
    less = whole - depth * projections
    print(f"width {width}: ptflops {said / 1e9:.3f}, whole {whole / 1e9:.3f}, without attention's projections {less / 1e9:.3f} GMACs")
    same &= abs(said / less - 1) < 0.02 and said / whole < 0.8
sys.exit(0 if same else "this has changed")
PYTHON
