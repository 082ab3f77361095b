#!/usr/bin/env bash
# torchmetrics 1.9.0: MetricCollection can report top-5 accuracy that is top-1. To save work it joins metrics whose states
# are equal after the first batch, and macro accuracies of k=1 and k=5 have equal states when that batch has none right
# at either k (a fresh network) or all right at k=1 (a good one). From then on only the first is updated. Averaged over
# samples ("micro") the two are not joined. compute_groups=False, or the groups written out, is right.
# Output seen, top-1 and top-5 in the collection (alone): none right at first: 0.00, 0.00 (0.00, 0.50);
# all right at first: 0.50, 0.50 (0.50, 1.00)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
packages=(torch==2.14.1 torchmetrics==1.9.0 numpy==2.4.6)
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
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

print("torchmetrics", version("torchmetrics"), "torch", version("torch"))


def metrics():
    return {f"top{k}": MulticlassAccuracy(num_classes=10, top_k=k, average="macro") for k in (1, 5)}


falling = torch.arange(10.0, 0.0, -1.0).repeat(8, 1)  # class 0 is likeliest, then 1, 2 and so on
cases = {"none right at first": torch.full((8,), 9), "all right at first": torch.full((8,), 0)}
results = {}
for name, first in cases.items():
    collection, alone = MetricCollection(metrics()), metrics()
    for target in (first, torch.full((8,), 3)):  # 3 is among the five likeliest
        for metric in (collection, *alone.values()):
            metric.update(falling, target)
    results[name] = [{k: float(v) for k, v in collection.compute().items()}, {k: float(m.compute()) for k, m in alone.items()}]
    together, apart = results[name]
    print(f"{name}: {together['top1']:.2f}, {together['top5']:.2f} ({apart['top1']:.2f}, {apart['top5']:.2f});"
          f" groups {collection.compute_groups}")
together, apart = results["none right at first"]
sys.exit(0 if together["top5"] == together["top1"] != apart["top5"] else "this has changed")
PYTHON
