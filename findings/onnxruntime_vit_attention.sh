#!/usr/bin/env bash
# onnxruntime 1.32.0's transformer optimizer with model_type="vit": it fuses no attention of a ViT that torch 2.14.1 writes,
# neither timm 1.0.31's nor transformers 5.24.0's own ViTModel, for which it is made, and says nothing: GELUs and layer
# norms are fused, so the file does get shorter. Hence float16 and int8 tools that look for the Attention operator find
# none. Count with get_fused_operator_statistics() before a figure is called that of the fused graph.
# Output seen, of 3 attentions: timm 0, transformers (sdpa) 0, transformers (eager) 0; with 3 GELUs and 7 layer norms each
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
packages=(torch==2.14.1 torchvision==0.29.1 timm==1.0.31 transformers==5.24.0 numpy==2.4.6 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0)
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
from onnxruntime.transformers import optimizer
from transformers import ViTConfig, ViTModel

print(*(f"{name} {version(name)}" for name in ("onnxruntime", "onnx", "torch", "timm", "transformers")))
form = ViTConfig(hidden_size=192, num_hidden_layers=3, num_attention_heads=3, intermediate_size=768, image_size=64)
networks = {"timm": timm.create_model("vit_tiny_patch16_224", depth=3, img_size=64, num_classes=0)} | {
    f"transformers ({way})": ViTModel._from_config(form, attn_implementation=way, add_pooling_layer=False)
    for way in ("sdpa", "eager")
}
same = True
for name, network in networks.items():
    images = (torch.randn(1, 3, 64, 64),)
    torch.onnx.export(network.eval(), images, "vit.onnx", dynamo=True, external_data=False, verbose=False)
    counts = optimizer.optimize_model(
        "vit.onnx", model_type="vit", num_heads=3, hidden_size=192, opt_level=0
    ).get_fused_operator_statistics()
    norms = counts["LayerNormalization"] + counts["SkipLayerNormalization"]
    attentions = counts["Attention"] + counts["MultiHeadAttention"]
    print(f"{name}: attentions {attentions}, GELUs {counts['BiasGelu']}, layer norms {norms}")
    same &= attentions == 0 and counts["BiasGelu"] == 3
sys.exit(0 if same else "this has changed")
PYTHON
