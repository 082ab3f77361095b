#!/usr/bin/env bash
# torchao 0.18.0's int8 on a ViT: of timm 1.0.31's every Linear is quantised, of torchvision 0.29.1's none of the attention's
# weights, a third of each block: q, k and v are a bare parameter of nn.MultiheadAttention, and its output projection,
# which is a Linear by class, is passed over as well. quantize_ returns without a word, and "int8" of the two networks of
# one architecture is not one thing. (For the same reason a forward hook on that projection never runs.)
# Output seen, share of a block's matrix weights in int8: timm 1.00, torchvision 0.67; hook on out_proj ran 0 times
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
packages=(torch==2.14.1 torchvision==0.29.1 timm==1.0.31 torchao==0.18.0 numpy==2.4.6)
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
from torchao.quantization import Int8WeightOnlyConfig, quantize_
from torchvision.models import VisionTransformer

print(*(f"{name} {version(name)}" for name in ("torchao", "torchvision", "timm", "torch")))
torch.manual_seed(0)
images, ran = torch.randn(1, 3, 64, 64), []
theirs = VisionTransformer(64, 16, 2, 3, 192, 768).eval()
theirs.encoder.layers[0].self_attention.out_proj.register_forward_hook(lambda *_: ran.append(1))
networks = {
    "timm": (timm.create_model("vit_tiny_patch16_224", depth=2, img_size=64).eval(), "blocks.0."),
    "torchvision": (theirs, "encoder.layers.encoder_layer_0."),
}
shares = {}
for name, (network, block) in networks.items():
    quantize_(network, Int8WeightOnlyConfig())
    with torch.no_grad():
        network(images)
    matrices = [p for key, p in network.named_parameters() if key.startswith(block) and p.ndim == 2]
    quantised = sum(p.numel() for p in matrices if "Int8" in type(p.data).__name__ + type(p).__name__)
    shares[name] = quantised / sum(p.numel() for p in matrices)
print(", ".join(f"{name} {share:.2f}" for name, share in shares.items()), f"hook on out_proj ran {len(ran)} times", sep="; ")
seen = shares["timm"] == 1 and abs(shares["torchvision"] - 2 / 3) < 0.01 and not ran
sys.exit(0 if seen else "this has changed")
PYTHON
