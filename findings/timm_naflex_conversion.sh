#!/usr/bin/env bash
# timm 1.0.31: converting the weights of a ViT for NaFlexViT changes the ViT that they were taken from. The class token's
# position is added to the class token in place, in the tensor that state_dict() shares with the network, so the
# original has it twice from then on, without a word; weights read from a file are not concerned. Two converted one after
# the other differ as well. Hand a copy over: {k: v.clone() for k, v in vit.state_dict().items()}.
# Output seen: NaFlexViT and the ViT of before: off by 1e-07; the ViT itself has moved by 5e-02: cls_token
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
packages=(torch==2.14.1 torchvision==0.29.1 timm==1.0.31 numpy==2.4.6)
if command -v uv >/dev/null; then
  uv venv -q "$folder/venv" && uv pip install -q --python "$folder/venv" "${packages[@]}"
else
  python3 -m venv "$folder/venv" && "$folder/venv/bin/pip" install -q "${packages[@]}"
fi
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import copy
import sys
from importlib.metadata import version

import timm
import torch
from timm.models.naflexvit import checkpoint_filter_fn

print("timm", version("timm"), "torch", version("torch"))
torch.manual_seed(0)
vit = timm.create_model("vit_tiny_patch16_224", depth=2).eval().requires_grad_(False)
torch.nn.init.normal_(vit.pos_embed)  # as a trained network's, which are not near 0
flexible = timm.create_model("vit_tiny_patch16_224", depth=2, use_naflex=True).eval().requires_grad_(False)
before, images = copy.deepcopy(vit), torch.randn(1, 3, 224, 224)
flexible.load_state_dict(checkpoint_filter_fn(vit.state_dict(), flexible))
off = (flexible(images) - before(images)).abs().max().item()
moved = (vit(images) - before(images)).abs().max().item()
changed = [k for k, v in vit.state_dict().items() if not torch.equal(v, before.state_dict()[k])]
print(f"NaFlexViT and the ViT of before: off by {off:.0e}; the ViT itself has moved by {moved:.0e}: {', '.join(changed)}")
sys.exit(0 if off < 1e-4 < moved and changed == ["cls_token"] else "this has changed")
PYTHON
