"""The folder of a run: what lies in it, and when a run may begin there. Nothing heavy is imported for that.

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

import re
import shutil
from contextlib import ExitStack, nullcontext
from pathlib import Path

from tinymim.errors import TinymimError
from tinymim.safety import names
from tinymim.training import lock, metrics_log

PROGRESS, ENVIRONMENT, SUMMARY = "progress.json", "environment.json", "summary.txt"
RECIPE, TESTED = "config.yaml", ("test.json", "test.md")
RESULTS = ("checkpoints", PROGRESS, metrics_log.NAME, "results.json", "predictions.npz", "masks", "nonfinite")
OURS_BY_ENDING = (".ckpt", ".sha256", ".pt", ".html")
FOLDERS = ("checkpoints", "masks", "nonfinite")  # the others are files
KEPT = (*RESULTS, *TESTED)
WRITTEN = (*KEPT, RECIPE, ENVIRONMENT, "hparams.yaml", SUMMARY)


def place(folder: str | Path | None, name: str) -> Path:
    """The folder of a run: the one that is given, or that of its recipe's ``name``.

    Raises:
        TinymimError: a name that is needed, and is no plain one.
    """
    if not folder:
        names.check(name, "name")
    return Path(folder or Path("runs") / name)


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


def goes_on(folder: Path, checkpoint: object, overwrite: bool = False) -> bool:
    """Whether a checkpoint is one of the run in ``folder``, or ``last``.

    Raises:
        TinymimError: it is, and that run is to be overwritten.
    """
    its_own = checkpoint == "last" or (bool(checkpoint) and folder.resolve() in Path(str(checkpoint)).resolve().parents)
    if its_own and overwrite:
        raise TinymimError(
            f"--overwrite true and --ckpt_path {checkpoint} contradict each other: one loses the run in {folder} and "
            "begins again, the other goes on with it; leave one of the two out"
        )
    return its_own


def look(folder: Path, resume: bool, overwrite: bool) -> None:
    """:func:`check`, and whether another command works there, long before :func:`claim`. Leaves nothing."""
    with lock.hold(folder, "run_dir") if (folder / lock.NAME).is_file() else nullcontext():
        check(folder, resume, overwrite)


def check_run(place: Path) -> None:
    """Check that a folder is that of a run.

    Raises:
        TinymimError: no run there; where it is a chain's or a demo's folder, the message names the runs in it.
    """
    if (place / RECIPE).is_file():
        return
    inside = sorted(path.parent for path in place.glob(f"**/{RECIPE}")) if place.is_dir() else []
    if inside:
        shown = ", ".join(str(path) for path in inside[:6]) + (", ..." if len(inside) > 6 else "")
        raise TinymimError(f"run: {place} holds {len(inside)} runs; name one: {shown}")
    what = f"has no {RECIPE}, so it is no run folder" if place.is_dir() else "is no folder"
    raise TinymimError(f"run: {place} {what}; give one that `tinymim fit` wrote, such as runs/relation_digits")


def check_capture(path: Path) -> None:
    """Raise where there is no file that a captured step could be."""
    if not path.is_file():
        raise TinymimError(f"there is no file at {path}; captures lie in the run folder, as nonfinite/step_N.pt")


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
