#!/usr/bin/env bash
# torchdistill 1.1.5: a teacher with `requires_grad: False` ("Freezing the whole teacher model") stays in the mode it was
# given. `pre_epoch_process` puts the student into train mode and does not touch the teacher (earlier versions called its
# `eval()`), so a fresh network, which PyTorch makes in train mode, teaches with batch statistics, and its running
# statistics move. The remedy is one call of `eval()` before the box is made.
# Output seen: teacher: frozen True, training True, running mean moved by 0.068
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
packages=(torch==2.14.1 torchvision==0.29.1 torchdistill==1.1.5)
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
from torch import nn
from torchdistill.core.distillation import get_distillation_box


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 5))


torch.manual_seed(0)
teacher, student = network(), network()
side = {"forward_proc": "forward_batch_only", "forward_hook": {"output": ["3"]}}
ends = {who: {"is_from_teacher": who == "target", "module_path": "3", "io": "output"} for who in ("input", "target")}
term = {
    "criterion": {"key": "MSELoss", "kwargs": {}},
    "criterion_wrapper": {"key": "SimpleLossWrapper", "kwargs": ends},
    "weight": 1.0,
}
box = get_distillation_box(
    teacher, student, {},
    {
        "num_epochs": 1,
        "teacher": {**side, "requires_grad": False},
        "student": side,
        "optimizer": {"key": "SGD", "kwargs": {"lr": 0.1}},
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"mse": term}}},
    },
    torch.device("cpu"), None, False, 1,
)
box.pre_epoch_process(epoch=0)
before = teacher[1].running_mean.clone()
box.post_forward_process(loss=box.forward_process(torch.rand(8, 3, 8, 8) + 1))
moved = (teacher[1].running_mean - before).abs().max().item()
frozen = not any(p.requires_grad for p in teacher.parameters())
print("torchdistill", version("torchdistill"), "torch", version("torch"))
print(f"teacher: frozen {frozen}, training {teacher.training}, running mean moved by {moved:.3f}")
sys.exit(0 if frozen and teacher.training and moved > 0 else "this has changed")
PYTHON
