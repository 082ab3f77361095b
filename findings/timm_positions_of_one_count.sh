#!/usr/bin/env bash
# timm 1.0.31: a ViT's positions of 14x14 are read into one of 7x28 as they are. checkpoint_filter_fn resamples the table where the
# number of tokens differs, which is 196 for both, so that the position of row 1, column 0 goes to row 0, column 14 and so on,
# without a word. set_input_size on the network itself, and dynamic_img_size, compare grids and do resample, so that
# one file and one size of images give two networks. The remedy is to read at the file's own size, then set_input_size.
# Output seen: read at 112x448: the file's own table; set_input_size: another, off by 0.89 deviations on the mean;
#              patch features of one image: cosine 0.39
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
import sys
from importlib.metadata import version

import timm
import torch


def vit(**options):
    return timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=0, **options).eval().requires_grad_(False)


print("timm", version("timm"), "torch", version("torch"))
torch.manual_seed(0)
trained = vit()
torch.nn.init.normal_(trained.pos_embed)  # as a trained network's, which are not near 0
torch.save(trained.state_dict(), "vit.pth")
read = vit(img_size=(112, 448), checkpoint_path="vit.pth")
dynamic = vit(dynamic_img_size=True, checkpoint_path="vit.pth")
own = torch.equal(read.pos_embed, trained.pos_embed)
trained.set_input_size((112, 448))
off = (read.pos_embed - trained.pos_embed).abs()[:, 1:].mean().item()
image = torch.randn(1, 3, 112, 448)
alike = torch.cosine_similarity(read.forward_features(image)[:, 1:], trained.forward_features(image)[:, 1:], dim=-1).mean().item()
same = torch.equal(trained(image), dynamic(image))
print(f"read at 112x448: the file's own table {own}; set_input_size: off by {off:.2f} deviations on the mean, as dynamic_img_size"
      f" {same}; patch features of one image: cosine {alike:.2f}")
sys.exit(0 if own and same and off > 0.5 and alike < 0.8 else "this has changed")
PYTHON
