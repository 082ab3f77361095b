"""The folder of a run, and what lies in it.

config.yaml          the resolved recipe
environment.json     git revision, package versions, command line, date
checkpoints/         see tinymim/training/checkpoints.py
progress.json        how far it is
metrics.csv          what was logged, by step; metrics-1.csv and on are the pieces before a resume
events.out.*         the same for TensorBoard
results.json         the final figures
predictions.npz      of `tinymim predict`; of a Segmenter, masks/ with a PNG for each image
test.json, test.md   of `tinymim test`
nonfinite/           step_N.pt, for `tinymim replay`: a step whose loss or gradient was not finite;
                     skipped.json: the steps that a rewind passes over
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from tinymim.errors import TinymimError
from tinymim.training import lock, test_report

PROGRESS = "progress.json"
PREDICTED = ("predictions.npz", "masks")
KEPT = ("checkpoints", PROGRESS, "metrics.csv", "results.json", *PREDICTED, *test_report.FILES, "nonfinite")
WRITTEN = (*KEPT, "config.yaml", "environment.json", "hparams.yaml")
PACKAGES = (
    "tinymim",
    "torch",
    "torchvision",
    "timm",
    "lightning",
    "torchmetrics",
    "jsonargparse",
    "omegaconf",
    "numpy",
)


def check(folder: Path, resume: bool, overwrite: bool) -> None:
    """See that a run may begin in ``folder``, so that none is overwritten or resumed by accident. Writes nothing.

    A start that failed before anything was trained leaves nothing to lose, and does not count as a run.

    Raises:
        TinymimError: it holds a run and neither flag was given, or it holds something else.
    """
    if folder.exists() and not folder.is_dir():
        raise TinymimError(f"run_dir: {folder} is a file; give a folder with --run_dir")
    inside = sorted(path.name for path in folder.iterdir() if path.name != lock.NAME) if folder.is_dir() else []
    if not inside or resume:
        return
    if not any(_ours(name) for name in inside):
        raise TinymimError(f"run_dir: {folder} holds other files ({', '.join(inside[:4])}); give a new folder")
    if not overwrite and any(name in KEPT for name in inside):
        raise TinymimError(
            f"run_dir: {folder} holds a run already. Go on with it: --ckpt_path last. "
            "Start it again and lose it: --overwrite true. Keep it: --run_dir ANOTHER_FOLDER"
        )


def clear(folder: Path, resume: bool) -> None:
    """Make room for a run in ``folder``, which :func:`check` has passed and the caller holds the lock of."""
    for path in [*folder.glob(".*"), *folder.glob("checkpoints/.*"), *folder.glob("hpc_ckpt_*")]:
        if path.name != lock.NAME:  # half written when the run before was killed; or SLURM's copy of ours
            path.unlink()
    if not resume:
        for path in filter(lambda path: _ours(path.name), list(folder.iterdir())):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    elif (log := folder / "metrics.csv").is_file():  # the logger would start it afresh
        pieces = len(list(folder.glob("metrics-*.csv")))
        log.rename(folder / f"metrics-{pieces + 1}.csv")


def _ours(name: str) -> bool:
    return name in WRITTEN or name.startswith(("events.out.", "metrics-"))


def environment() -> dict[str, Any]:
    """What a run depends on besides its recipe."""
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": shlex.join(sys.argv),
        "git": _git(),
        "python": sys.version.split()[0],
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def _git() -> dict[str, Any]:
    """Revision of the project, and whether files differ from it; empty outside a repository."""
    try:
        here = Path(__file__).parent
        ask = {"cwd": here, "capture_output": True, "text": True, "check": True, "timeout": 10}
        revision = subprocess.run(["git", "rev-parse", "HEAD"], **ask).stdout.strip()  # type: ignore[call-overload]
        changed = subprocess.run(["git", "status", "--porcelain", "-uno"], **ask).stdout  # type: ignore[call-overload]
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"revision": revision, "changed": bool(changed.strip())}
