#!/usr/bin/env bash
# Lightning 2.6.6 with torch 2.14.1: a DDP fit in a multiprocessing.Process takes the parent's command for its other ranks.
# Rank 1 is `python SCRIPT ARGUMENTS` as the user typed it, not the worker's function: everything that the script does on
# the way to its worker is done again with LOCAL_RANK=1 set (folders made, files deleted, jobs begun), and rank 1 is the
# second script's worker. Run here with spawn; forkserver and fork do the same. The remedy is to
# set sys.argv and __main__ in the worker to a command that does what the worker does.
# Output seen: the script's own part ran 2 times, LOCAL_RANK None, 1; ranks fitted 0, 1
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
packages=(torch==2.14.1 lightning==2.6.6 numpy==2.4.6)
if command -v uv >/dev/null; then
  uv venv -q "$folder/venv" && uv pip install -q --python "$folder/venv" "${packages[@]}"
else
  python3 -m venv "$folder/venv" && "$folder/venv/bin/pip" install -q "${packages[@]}"
fi
cd "$folder"
cat >script.py <<'PYTHON'
import multiprocessing
import os


def work():
    import lightning.pytorch as pl
    from lightning.pytorch.demos.boring_classes import BoringModel

    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = pl.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", max_steps=1, limit_val_batches=0, **dict.fromkeys(quiet, False)
    )
    trainer.fit(BoringModel())
    print(f"fitted {trainer.global_rank}", flush=True)


if __name__ == "__main__":
    print(f"script {os.environ.get('LOCAL_RANK')}", flush=True)
    worker = multiprocessing.get_context("spawn").Process(target=work)
    worker.start()
    worker.join()
PYTHON
"$folder/venv/bin/python" - <<'PYTHON'
import re
import subprocess
import sys
from importlib.metadata import version

print("lightning", version("lightning"), "torch", version("torch"))
out = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, check=True).stdout
began, ranks = re.findall(r"script (\w+)", out), re.findall(r"fitted (\d)", out)
print(f"the script's own part ran {len(began)} times, LOCAL_RANK {', '.join(began)}; ranks fitted {', '.join(sorted(ranks))}")
sys.exit(0 if (began, sorted(ranks)) == (["None", "1"], ["0", "1"]) else "this has changed")
PYTHON
