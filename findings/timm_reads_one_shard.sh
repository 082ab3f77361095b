#!/usr/bin/env bash
# timm 1.0.31 and huggingface-hub 2.4.0: a folder that huggingface_hub.save_torch_model split into shards, with its
# index, is opened by its first shard. With another number of classes than the file's, which is how a teacher is
# taken over for new labels, the rest stays random: a warning names the file that is used, and no error comes. (With the
# same number it is an error of missing keys.) Write one file: max_shard_size above the network's size.
# Output seen: 3 shards; 45 of 54 tensors of the encoder as they were written, 9 random
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
packages=(torch==2.14.1 torchvision==0.29.1 timm==1.0.31 huggingface-hub==2.4.0 safetensors==0.8.0 numpy==2.4.6)
if command -v uv >/dev/null; then
  uv venv -q "$folder/venv" && uv pip install -q --python "$folder/venv" "${packages[@]}"
else
  python3 -m venv "$folder/venv" && "$folder/venv/bin/pip" install -q "${packages[@]}"
fi
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version
from pathlib import Path

import timm
import torch
from huggingface_hub import save_torch_model

print(*(f"{name} {version(name)}" for name in ("timm", "huggingface-hub", "safetensors", "torch")))
torch.manual_seed(0)
folder = Path("teacher")
written = timm.create_model("vit_tiny_patch16_224", depth=4)
timm.models.save_for_hf(written, folder, model_args={"depth": 4})
for path in folder.iterdir():
    if path.name != "config.json":
        path.unlink()
save_torch_model(written, folder, max_shard_size="4MB")
shards = len(list(folder.glob("*.safetensors")))
read = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=10).state_dict()
equal = [torch.equal(value, read[key]) for key, value in written.state_dict().items() if not key.startswith("head.")]
print(f"{shards} shards; {sum(equal)} of {len(equal)} tensors of the encoder as they were written,"
      f" {len(equal) - sum(equal)} random")
sys.exit(0 if shards > 1 and 0 < sum(equal) < len(equal) else "this has changed")
PYTHON
