#!/usr/bin/env bash
# pandas 3.1.1 with pyarrow 26.0.1: float16 features survive Parquet, and sums of them depend on how they are asked for.
# Series.sum() adds in a wider type and gives 100000.0, groupby.sum() of the same column is inf (float16 ends at 65504) and
# groupby.mean() is right, and float64. So one column of a table of grouped figures is infinite beside its own, right mean.
# Read with dtype_backend="pyarrow" the column has no mean at all (TypeError).
# Output seen: read as float16; sum 100000.0, grouped sum inf, grouped mean 1.0 (float64)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
packages=(pandas==3.1.1 pyarrow==26.0.1 numpy==2.4.6)
if command -v uv >/dev/null; then
  uv venv -q "$folder/venv" && uv pip install -q --python "$folder/venv" "${packages[@]}"
else
  python3 -m venv "$folder/venv" && "$folder/venv/bin/pip" install -q "${packages[@]}"
fi
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
import pandas as pd

print(*(f"{name} {version(name)}" for name in ("pandas", "pyarrow", "numpy")))
pd.DataFrame({"teacher": "mae", "feature": np.ones(100_000, np.float16)}).to_parquet("features.parquet")
table = pd.read_parquet("features.parquet")
groups = table.groupby("teacher")["feature"]
total, grouped, mean = table["feature"].sum(), groups.sum(), groups.mean()
print(f"read as {table['feature'].dtype}; sum {total}, grouped sum {grouped.iloc[0]},"
      f" grouped mean {mean.iloc[0]} ({mean.dtype})")
try:
    print("with pyarrow's types: mean", pd.read_parquet("features.parquet", dtype_backend="pyarrow")["feature"].mean())
    arrow = False
except TypeError:
    arrow = True
seen = float(total) == 100_000 and np.isinf(grouped.iloc[0]) and mean.iloc[0] == 1 and arrow
sys.exit(0 if seen else "this has changed")
PYTHON
