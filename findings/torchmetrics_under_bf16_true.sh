#!/usr/bin/env bash
# torchmetrics 1.9.0 within Lightning 2.6.6: precision="bf16-true" turns the states of a module's metrics into bfloat16, though
# metrics are said to refuse .half() and .bfloat16() (and do): Lightning calls .to(dtype), which they follow. A count kept
# in a floating-point state (MeanMetric's weight) then stops at 256, since 256 + 1 is 256 in bfloat16, and the mean of
# 256 zeros and 256 ones is 1. Counts in integers (accuracy) are not touched, nor are the means that Lightning logs itself.
# Output seen: states after .bfloat16(): float32; after .to(bfloat16): bfloat16; mean of 256 zeros and 256 ones in a fit: 1.0, weight 256
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
packages=(torch==2.14.1 lightning==2.6.6 torchmetrics==1.9.0 numpy==2.4.6)
if command -v uv >/dev/null; then
  uv venv -q "$folder/venv" && uv pip install -q --python "$folder/venv" "${packages[@]}"
else
  python3 -m venv "$folder/venv" && "$folder/venv/bin/pip" install -q "${packages[@]}"
fi
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import logging
import sys
from importlib.metadata import version

import lightning.pytorch as pl
import torch
from torchmetrics import MeanMetric

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Counting(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer, self.mean = torch.nn.Linear(1, 1), MeanMetric()

    def training_step(self, batch, number):
        self.mean.update(torch.tensor(float(number >= 256)))
        return self.layer(batch[0]).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


print(*(f"{name} {version(name)}" for name in ("torchmetrics", "lightning", "torch")))
refused, followed = MeanMetric().bfloat16().mean_value.dtype, MeanMetric().to(torch.bfloat16).mean_value.dtype
quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
module = Counting()
loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(512, 1)))
pl.Trainer(accelerator="cpu", max_epochs=1, precision="bf16-true", **dict.fromkeys(quiet, False)).fit(module, loader)
mean, weight = float(module.mean.compute()), float(module.mean.weight)
print(f"states after .bfloat16(): {refused}; after .to(bfloat16): {followed};"
      f" mean of 256 zeros and 256 ones in a fit: {mean}, weight {weight:.0f}")
seen = (refused, followed, mean, weight) == (torch.float32, torch.bfloat16, 1.0, 256.0)
sys.exit(0 if seen else "this has changed")
PYTHON
