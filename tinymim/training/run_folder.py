"""The folder of a run: what lies in it, when a run may begin there, and its record of recipe and environment.

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

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import yaml
from lightning.pytorch.cli import SaveConfigCallback
from typing_extensions import override

from tinymim import precision
from tinymim.config import recipe as recipes
from tinymim.config import references
from tinymim.config.spec import differences
from tinymim.errors import TinymimError
from tinymim.files import write_json, write_text
from tinymim.log import say
from tinymim.safety import text
from tinymim.training import lock, metrics_log, overview, test_report

PROGRESS, ENVIRONMENT = "progress.json", "environment.json"
RESULTS = ("checkpoints", PROGRESS, metrics_log.NAME, "results.json", "predictions.npz", "masks", "nonfinite")
OURS_BY_ENDING = (".ckpt", ".sha256", ".pt", ".html")
FOLDERS = ("checkpoints", "masks", "nonfinite")  # the others are files
KEPT = (*RESULTS, *test_report.FILES)
WRITTEN = (*KEPT, "config.yaml", ENVIRONMENT, "hparams.yaml", overview.FILE)
PACKAGES = (
    *("tinymim", "torch", "torchvision", "timm", "lightning"),
    *("torchmetrics", "jsonargparse", "omegaconf", "numpy"),
)


def claim(folder: Path, resume: bool, overwrite: bool, held: ExitStack) -> None:
    """Lock ``folder`` until ``held`` is closed, check that a run may begin there, and make room for it.

    Args:
        folder: run folder.
        resume: go on with the run that it holds.
        overwrite: start that run again and lose it.
        held: gets the lock.

    Raises:
        TinymimError: another command works there, or see :func:`check`.
    """
    used = (folder / lock.NAME).is_file()
    if used:  # by a run that may still be at work: that comes before what it has written
        held.enter_context(lock.hold(folder, "run_dir"))
    check(folder, resume, overwrite)
    if not used:
        held.enter_context(lock.hold(folder, "run_dir"))
    clear(folder, resume)


def check(folder: Path, resume: bool, overwrite: bool) -> None:
    """Check that a run may begin in ``folder``, so that none is overwritten or resumed by accident. Writes nothing.

    A start that failed before anything was trained leaves nothing to lose, and does not count as a run.

    Raises:
        TinymimError: it holds a run and neither flag was given, or it holds something else.
    """
    if folder.exists() and not folder.is_dir():
        raise TinymimError(f"run_dir: {folder} is a file; give a folder with --run_dir")
    names = sorted(path.name for path in folder.iterdir() if path.name != lock.NAME) if folder.is_dir() else []
    if resume:
        _check_kinds(folder)
    if not names or resume:
        return
    if not any(_is_ours(name) for name in names):
        raise TinymimError(f"run_dir: {folder} holds other files ({', '.join(names[:4])}); give a new folder")
    if not overwrite and any(name in KEPT for name in names):
        raise TinymimError(
            f"run_dir: {folder} holds a run already. Go on with it: --ckpt_path last. "
            "Start it again and lose it: --overwrite true. Keep it: --run_dir ANOTHER_FOLDER"
        )


def _check_kinds(folder: Path) -> None:
    """Raise where a run would come upon a folder in place of a file, or the other way round, after its first epoch."""
    inside = [f"checkpoints/{name}.ckpt" for name in ("best", "last")]
    for name in (*WRITTEN, *inside):
        path, is_folder = folder / name, name in FOLDERS
        if path.exists() and path.is_dir() != is_folder:
            found, wanted = ("file", "folder") if is_folder else ("folder", "file")
            raise TinymimError(f"run_dir: {path} is a {found}, where a run has a {wanted}; move it away")


def clear(folder: Path, resume: bool) -> None:
    """Make room for a run in ``folder``, which :func:`check` has passed and the caller holds the lock of."""
    hidden = [path for place in ("", "checkpoints/", "nonfinite/") for path in folder.glob(f"{place}.*")]
    for path in [*filter(_is_half_written, hidden), *folder.glob("hpc_ckpt_*")]:
        path.unlink()  # half written when the run before was killed; or SLURM's copy of ours
    if resume:
        metrics_log.set_aside(folder)
        return
    for path in [path for path in folder.iterdir() if _is_ours(path.name)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _is_half_written(path: Path) -> bool:
    """Whether a hidden file is a temporary of one of ours: others, and hidden folders, are left by a user's tools."""
    name = re.fullmatch(r"\.(.+)\.\w+", path.name)
    return name is not None and (_is_ours(name[1]) or name[1].endswith(OURS_BY_ENDING)) and not path.is_dir()


def _is_ours(name: str) -> bool:
    return name in WRITTEN or name.startswith(("events.out.", "metrics-"))


NOTES = {
    "model.init_args.init": " (which has no effect on weights that are already trained)",
    "model.init_args.weights": " (which has no effect on weights that are already trained)",
    "model.init_args.compile": " (compiled code draws other random numbers, so drop path and masks are not the same)",
}
"""Options that mean something else to a run that goes on."""


def changed(before: recipes.Config, now: recipes.Config) -> list[str]:
    """Differences between the recipe that a run had and the one it goes on with, and whether they have any effect.
    the run lies is none: `tinymim resume` names its folder, which a first command may have left to the rule."""
    before, now = ({name: value for name, value in each.items() if name != "run_dir"} for each in (before, now))
    return [line + NOTES.get(line.partition(":")[0], "") for line in differences(before, now)]


class SaveRecipe(SaveConfigCallback):
    """Write the resolved recipe and the environment into the run folder, once a checkpoint has been accepted.

    The recipe is saved with its references to the environment, which ``kept`` has.
    """

    def __init__(self, *args: Any, kept: list[tuple[references.Place, str]] | None = None, **options: Any):
        super().__init__(*args, **options)
        self.kept = kept or []

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        # Lightning would write here already, before it is known whether the checkpoint fits the recipe
        pass

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            self.save_config(trainer, pl_module, "fit")

    @override
    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        folder = Path(trainer.default_root_dir)
        recipe = self.parser.dump(self.config, skip_unset=False)
        # defaults that no text holds, such as a callback's device, are left to it
        recipe = re.sub(r"^[ -]*\w+: Unable to serialize instance .*\n", "", recipe, flags=re.MULTILINE)
        for line in ("ckpt_path: null", "overwrite: false"):  # options of this command alone
            recipe = re.sub(rf"^{line.partition(':')[0]}: .*$", line, recipe, flags=re.MULTILINE)
        if self.kept:
            recipe = yaml.safe_dump(references.put_back(yaml.safe_load(recipe), self.kept), sort_keys=False)
        path = folder / "config.yaml"
        if path.exists():
            try:
                changes = changed(text.read_yaml(path, "the recipe that the run had"), yaml.safe_load(recipe))
            except TinymimError as error:
                changes = [str(error)]
            if changes:
                say(f"the run goes on with another recipe than it had: {'; '.join(changes)}")
        write_text(path, recipe)
        now, before = environment(), _environment_before(folder)
        if now["device"] == "cpu" and before.get("threads", now["threads"]) != now["threads"]:
            say(f"threads: the run had {before['threads']}, and now has {now['threads']}: sums are rounded otherwise")
        write_json(folder / ENVIRONMENT, now)


def _environment_before(folder: Path) -> dict[str, Any]:
    try:
        return text.mapping(json.loads(text.contents(folder / ENVIRONMENT, ENVIRONMENT)), ENVIRONMENT)
    except (TinymimError, ValueError):
        return {}


def precision_before(config: recipes.Config) -> str | None:
    """Precision of the run that a resolved recipe goes on with; ``None`` where it goes on with none."""
    checkpoint = config.get("ckpt_path")
    if not checkpoint:
        return None
    folder = Path(config.get("run_dir") or Path("runs") / str(config.get("name", "run")))
    return precision_in([folder if checkpoint == "last" else Path(checkpoint).parent.parent])


def precision_in(folders: Iterable[Path]) -> str | None:
    """Precision in the first of these run folders that holds a recipe."""
    for folder in folders:
        try:
            recipe = text.read_yaml(folder / "config.yaml", "a recipe")
            trainer = references.filled(recipe.get("trainer")) if isinstance(recipe, dict) else None
        except TinymimError:
            continue
        if isinstance(trainer, dict):
            return precision.of({"trainer": trainer}) or precision.EXACT  # none is Lightning's, which is that
    return None


def environment() -> dict[str, Any]:
    """Everything a run depends on besides its recipe."""
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": shlex.join(sys.argv),
        "git": _git(),
        "python": sys.version.split()[0],
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
    }


def _git() -> dict[str, Any]:
    """Revision of the project, and whether files differ from it; empty outside a repository."""

    def git(*arguments: str) -> str:
        options: dict[str, Any] = {"capture_output": True, "text": True, "check": True, "timeout": 10}
        return subprocess.run(["git", *arguments], cwd=Path(__file__).parent, **options).stdout.strip()

    try:
        return {"revision": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return {}
