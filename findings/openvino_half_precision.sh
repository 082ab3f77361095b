#!/usr/bin/env bash
# OpenVINO 2026.4.1 with torch 2.14.1: half precision within a converted module is kept in one place and dropped in another. A cast to
# float16 and back is left out, so that 100000 stays 100000 where torch has inf, and nothing is rounded; but two constant
# factors are multiplied beforehand in float16, so that x * 300 * 300 / 300 is inf for every x, however small, where torch's own
# steps stay below 65504. With INFERENCE_PRECISION_HINT f32 both.
# Output seen: x.half().float() of 100000, 2049: OpenVINO 100000, 2049 (torch inf, 2048);
#              x.half() * 300 * 300 / 300 of 1/3: OpenVINO inf (torch 100)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
packages=(torch==2.14.1 numpy==2.4.6 openvino==2026.4.1)
if command -v uv >/dev/null; then
  uv venv -q "$folder/venv" && uv pip install -q --python "$folder/venv" "${packages[@]}"
else
  python3 -m venv "$folder/venv" && "$folder/venv/bin/pip" install -q "${packages[@]}"
fi
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import warnings
from importlib.metadata import version

import openvino
import torch

warnings.filterwarnings("ignore", category=FutureWarning)  # of tracing


class Call(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


def openvinos(function, *inputs):
    model = openvino.convert_model(Call(function).eval(), example_input=inputs)
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return torch.from_numpy(compiled([x.numpy() for x in inputs])[0].copy())


print(*(f"{name} {version(name)}" for name in ("openvino", "torch")))
wide, small = torch.tensor([100000.0, 2049.0]), torch.tensor([1 / 3, 1 / 300])


def there(x):
    return x.half().float()


def factors(x):
    return (x.half() * 300 * 300 / 300).float()


found = [(openvinos(function, x).tolist(), function(x).tolist()) for function, x in ((there, wide), (factors, small))]
print("to float16 and back, of", wide.tolist(), ": OpenVINO {}, torch {}".format(*found[0]))
print("times 300, times 300, by 300, of", small.tolist(), ": OpenVINO {}, torch {}".format(*found[1]))
inf = float("inf")
seen = found[0] == ([100000.0, 2049.0], [inf, 2048.0]) and found[1][0] == [inf, inf] and max(found[1][1]) < 101
sys.exit(0 if seen else "this has changed")
PYTHON
