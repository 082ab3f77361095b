"""Checkpoints on disk: written whole with their checksum, checked when read, and read without running code."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from typing_extensions import override

from tinymim.errors import TinymimError
from tinymim.files import checksum_beside, sha256, write_atomically, write_text
from tinymim.log import detail, say
from tinymim.teachers import record_schemas, safe_pickle
from tinymim.training import run_schemas
from tinymim.training.run_folder import RECIPE


def newest(run: Path, parts: bool = False) -> Path | None:
    """Newest whole checkpoint of a run, or ``None`` where there is none at all. Says which ones are damaged.

    Args:
        run: the run folder.
        parts: one that lacks a part that training goes on with is damaged, too.

    Raises:
        TinymimError: there are some, and all of them are damaged.
    """
    folder = run / "checkpoints"
    damaged: list[str] = []
    for path in candidates(folder):
        if not (problem := problem_of(path, parts)):
            if damaged:
                say(f"{'; '.join(damaged)}. Going back to the one before: {path}")
            return path
        damaged.append(problem)
    if damaged:
        raise TinymimError(
            f"ckpt_path: no checkpoint in {folder} is whole: {'; '.join(damaged)}. Restore one, or start again "
            "with --overwrite true"
        )
    return None


def candidates(folder: Path) -> Iterator[Path]:
    """Checkpoints to resume from, best first, each file once: what ``last.ckpt`` names, and the others by age. Without
    that link the folder is a copy, whose files may have any age, and their steps decide."""
    last = folder / "last.ckpt"
    named = Path(os.path.realpath(last)) if last.is_file() else last
    if last.is_file():
        yield last
    whose = age if last.is_file() else _name
    steps = sorted(filter(Path.is_file, folder.glob("step-*.ckpt")), key=whose, reverse=True)
    yield from (path for path in steps if path != folder / named.name)


def _name(path: Path) -> tuple[int, str]:
    return 0, path.name


def age(path: Path) -> tuple[int, str]:
    """Key that sorts checkpoints, the oldest first."""
    return path.stat().st_mtime_ns, path.name


def problem_of(path: Path, parts: bool = False) -> str | None:
    """Reason why a checkpoint cannot be resumed from, or ``None``. Its list of contents is read, no values.

    Args:
        path: of the file, or a link to it.
        parts: whether it must hold all that training goes on with.
    """
    real = Path(os.path.realpath(path))
    recorded = checksum_beside(real)
    if recorded.is_file() and sha256(real) not in recorded.read_text(errors="replace").split():
        return f"{real} is damaged: its sha256 is not the one in {recorded.name}"
    try:  # a checksum is right of whatever it was made of; where none is beside the file, those within are compared
        content = safe_pickle.load(real, "meta")
        if parts:
            record_schemas.fit(content, run_schemas.Checkpoint, f"{real} is damaged")
    except TinymimError as error:
        return str(error)
    return None


def say_beginning(last: Path | None, run: Path) -> None:
    """Say where a fit in the folder ``run`` goes on, or that it begins; of a new run that is no news."""
    if last is None:
        told = say if (run / RECIPE).exists() else detail
        return told(f"nothing to resume in {run}: starting from zero")
    real = last.resolve()
    other = f", which is {real}" if real.parent != (run / "checkpoints").resolve() else ""
    say(f"resuming from {last}{other}")


def absent(path: Path) -> str:
    """Words for the path of a checkpoint that is no file."""
    if not path.is_dir():
        return f"there is no checkpoint at {path}"
    places = [*path.glob("last.ckpt"), *path.glob("checkpoints/last.ckpt"), *sorted(path.glob("*.ckpt"))]
    return f"{path} is a folder; name a file{f', such as {places[0]}' if places else ''}"


class _Stream(io.FileIO):
    """A file that remembers why a write failed, which torch's writer forgets."""

    failed: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            left = memoryview(data).cast("B")
            while left:
                left = left[super().write(left) :]
        except OSError as error:
            self.failed = error
            raise
        return len(data)


class SafeCheckpointIO(TorchCheckpointIO):
    """Checkpoints that appear whole or not at all, with their checksum, and load without running code."""

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        # write, flush, rename; a full disk leaves the previous checkpoint as it was
        path = Path(path)
        recorded = checksum_beside(path)

        def write(temporary: Path) -> None:
            with _Stream(temporary, "wb") as stream:
                try:
                    torch.save(checkpoint, stream)
                except RuntimeError as error:
                    raise stream.failed or error from None
            line = f"{sha256(temporary)}  {path.name}\n"
            before = recorded.read_text(errors="replace") if path.is_file() and recorded.is_file() else ""
            write_text(recorded, line + before)  # until the rename, the file of that name is the one before

        try:
            write_atomically(path, write)
            lines = recorded.read_text().splitlines(keepends=True)
            if len(lines) > 1:
                write_text(recorded, lines[0])
        except (OSError, RuntimeError) as error:
            before = any(candidates(path.parent))
            remedy = "the one before it is untouched. Make room, and go on with --ckpt_path last"
            raise TinymimError(
                f"checkpoint {path} could not be written ({error}); {remedy if before else 'there is none before it'}"
            ) from error

    @override
    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = None) -> dict[str, Any]:
        # read weights and plain values alone, whatever ``weights_only`` says
        if not Path(path).is_file():
            raise TinymimError(f"ckpt_path: there is no checkpoint at {path}")
        try:
            content: dict[str, Any] = safe_pickle.load(Path(path), map_location)
        except TinymimError as error:
            raise TinymimError(f"ckpt_path: {error}") from None
        return content

    @override
    def remove_checkpoint(self, path: Any) -> None:
        super().remove_checkpoint(path)
        checksum_beside(Path(path)).unlink(missing_ok=True)
