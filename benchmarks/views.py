"""Quality against the number of views of the teacher cache: 10-NN of the frozen student, and fine-tuned, as a table.

    python benchmarks/views.py                                       # both data sets, 1, 2, 4, 8, all, off, three seeds
    python benchmarks/views.py --data digits --views 1 --seeds 0 --set trainer.max_epochs=2   # one cell, short

Each cell is `tinymim fit` of relation_DATA and then of finetune_DATA from its student. "all" has as many views as
epochs, so that none comes twice; "off" has no cache, and so no int8 either. The same command goes on where it was cut
off. Cells lie in `--out`, with one cache for all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

METRICS = {"10-NN": ("student", "val/knn_top1"), "fine-tuned": ("tuned", "val/top1")}
EPOCHS = {"digits": 30, "shapes": 20}


def fit(place: Path, recipe: str, sets: list[str], out: Path) -> dict[str, float]:
    """Metrics of a run, which is done, gone on with, or begun."""
    results = place / "results.json"
    if not results.is_file():
        command = [sys.executable, "-m", "tinymim", "fit", "--config", recipe, "--run_dir", str(place)]
        command += ["--ckpt_path", "last", "--trainer.enable_progress_bar=false", *sets]
        variables = {**os.environ, "TINYMIM_TEACHER_CACHE": str(out / "cache")}
        done = subprocess.run(command, env=variables, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{place}: {done.stderr[-2000:]}")
    metrics: dict[str, float] = json.loads(results.read_text())["metrics"]
    return metrics


def cell(data: str, views: str, seed: int, options: argparse.Namespace) -> dict[str, float]:
    """Both figures, in per cent."""
    place = options.out / data / f"views_{views}" / f"seed{seed}"
    asked = [f"--{setting}" for setting in options.set]
    epochs = next((int(s.partition("=")[2]) for s in options.set if s.startswith("trainer.max_epochs=")), EPOCHS[data])
    number = {"off": "null", "all": str(epochs)}.get(views, views)
    sets = [f"--seed_everything={seed}", *asked, f"--model.teacher_cache={number}"]
    if data == "shapes":
        fit(options.out / "mae_shapes", "mae_shapes", asked, options.out)
        sets.append(f"--model.teacher={options.out / 'mae_shapes' / 'checkpoints' / 'last.ckpt'}")
    found = {"student": fit(place / "student", f"relation_{data}", sets, options.out)}
    weights = f"--model.weights={place / 'student' / 'checkpoints' / 'last.ckpt'}"
    sets = [f"--seed_everything={seed}", *asked, weights]
    found["tuned"] = fit(place / "tuned", f"finetune_{data}", sets, options.out)
    return {name: 100 * found[run][metric] for name, (run, metric) in METRICS.items()}


def spread(values: list[float]) -> str:
    """Mean, and standard deviation where there are several."""
    mean = f"{statistics.mean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean


def main() -> None:
    """Run what is missing, and print the table after each row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=list(EPOCHS), choices=list(EPOCHS))
    parser.add_argument("--views", nargs="+", default=["1", "2", "4", "8", "all", "off"], help="numbers, all, or off")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of all runs")
    parser.add_argument("--out", type=Path, default=Path("runs/views"))
    options = parser.parse_args()
    options.out = options.out.absolute()
    print(f"| data | views | {' | '.join(METRICS)} |\n|---|---|{'---:|' * len(METRICS)}", flush=True)
    for data in options.data:
        for views in options.views:
            cells = [cell(data, views, seed, options) for seed in options.seeds]
            figures = [spread([one[name] for one in cells]) for name in METRICS]
            print(f"| {data} | {views} | {' | '.join(figures)} |", flush=True)
    if (options.out / "cache").exists():
        subprocess.run(
            [sys.executable, "-m", "tinymim", "cache", "list", "--dir", str(options.out / "cache")], check=True
        )


if __name__ == "__main__":
    main()
