"""Checkpoints on disk: whole or not there, checked, kept, and fallen back on."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tinymim.config.options import Saving
from tinymim.errors import TinymimError
from tinymim.training import exact_resume
from tinymim.training.checkpoint_files import SafeCheckpointIO, absent, newest, problem_of
from tinymim.training.checkpoints import Checkpoints
from tinymim.training.preemption import Preemption
from tinymim.training.progress import Elapsed


def save(run: Path, step: int, **parts: object) -> Path:
    """A checkpoint as a run leaves it."""
    path = run / "checkpoints" / f"step-{step:08d}.ckpt"
    SafeCheckpointIO().save_checkpoint({"step": step, **parts}, path)
    link = path.with_name("last.ckpt")
    link.unlink(missing_ok=True)
    link.symlink_to(path.name)
    return path


def damage(path: Path) -> None:
    """Change one byte in the middle, which leaves the size as it was."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)


def test_save__writes_a_checksum_that_sha256sum_checks(tmp_path: Path) -> None:
    path = save(tmp_path, 3)
    digest = path.with_name("step-00000003.ckpt.sha256")
    assert digest.read_text() == f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
    subprocess.run(["sha256sum", "--check", digest.name], cwd=path.parent, check=True, capture_output=True)
    assert problem_of(path) is None


def test_newest__is_what_last_names(tmp_path: Path) -> None:
    assert newest(tmp_path) is None
    save(tmp_path, 3)
    save(tmp_path, 5)
    found = newest(tmp_path)
    assert found == tmp_path / "checkpoints" / "last.ckpt"
    assert SafeCheckpointIO().load_checkpoint(found) == {"step": 5}


@pytest.mark.parametrize("harm", [damage, lambda path: path.write_bytes(path.read_bytes()[:100]), Path.unlink])
def test_newest__a_damaged_one_is_reported_and_the_one_before_is_used(
    tmp_path: Path, harm, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = save(tmp_path, 3), save(tmp_path, 5)
    harm(bad)
    assert newest(tmp_path) == good
    assert ("step-00000005.ckpt is damaged" in capsys.readouterr().err) == bad.exists()


def test_newest__without_a_whole_one_nothing_starts_again_by_itself(tmp_path: Path) -> None:
    for step in (3, 5):
        damage(save(tmp_path, step))
    with pytest.raises(TinymimError, match=r"step-00000005.*step-00000003.*--overwrite true"):
        newest(tmp_path)


@pytest.mark.parametrize("harm", [damage, lambda path: path.write_bytes(path.read_bytes()[:100])])
def test_newest__without_a_checksum_the_file_is_read_to_know(tmp_path: Path, harm, capsys) -> None:
    good, bad = (save(tmp_path, step, weight=torch.ones(4000)) for step in (3, 5))
    for path in (good, bad):
        path.with_name(f"{path.name}.sha256").unlink()
    harm(bad)
    assert newest(tmp_path) == good
    assert str(bad) in capsys.readouterr().err


def test_newest__of_a_copy_without_the_link_by_steps(tmp_path: Path) -> None:
    first, second = save(tmp_path, 3), save(tmp_path, 5)
    assert newest(tmp_path) == second.parent / "last.ckpt"
    (second.parent / "last.ckpt").unlink()
    os.utime(second, (1, 1))
    assert newest(tmp_path) == second
    second.unlink()
    assert newest(tmp_path) == first


def test_absent__a_folder_and_what_to_name_in_it(tmp_path: Path) -> None:
    assert absent(tmp_path / "no.ckpt") == f"there is no checkpoint at {tmp_path / 'no.ckpt'}"
    assert absent(tmp_path) == f"{tmp_path} is a folder; name a file"
    last = save(tmp_path, 3).parent / "last.ckpt"
    for place in (tmp_path, last.parent):
        assert absent(place) == f"{place} is a folder; name a file, such as {last}"


def test_newest__a_checksum_that_is_no_text_is_of_another_file(tmp_path: Path, capsys) -> None:
    good, bad = save(tmp_path, 3), save(tmp_path, 5)
    bad.with_name(f"{bad.name}.sha256").write_bytes(bytes(range(256)))
    assert newest(tmp_path) == good
    assert "step-00000005.ckpt is damaged" in capsys.readouterr().err


def test_newest__links_that_lead_nowhere_and_folders_are_passed_over(tmp_path: Path) -> None:
    good = save(tmp_path, 3)
    (good.parent / "step-00000009.ckpt").mkdir()
    (last := good.with_name("last.ckpt")).unlink()
    last.symlink_to("last.ckpt")
    assert newest(tmp_path) == good


COUNTS = dict.fromkeys(("ready", "started", "processed", "completed"), 1)
WHOLE = {
    "state_dict": {"weight": torch.ones(2)},
    "optimizer_states": [{"state": {}, "param_groups": []}],
    "lr_schedulers": [{}],
    "loops": {"fit_loop": {name: {"current": COUNTS} for name in ("epoch_progress", "epoch_loop.batch_progress")}},
    "epoch": 1,
    "global_step": 5,
    "tinymim_position": {"seed": 0, "epoch": 1, "steps": 2, "total_batch": 8},
}


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("state_dict", None),
        ("optimizer_states", []),
        ("lr_schedulers", 5),
        ("loops", "fit"),
        ("loops", {"fit_loop": {"epoch_progress": {"current": COUNTS}}}),
        ("loops", {"fit_loop": {name: {"current": {}} for name in ("epoch_progress", "epoch_loop.batch_progress")}}),
        ("epoch", -1),
        ("tinymim_position", "5"),
        ("tinymim_position", {"seed": 0}),
    ],
)
def test_newest__one_that_lacks_a_part_is_damaged_for_training(
    part: str, value: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = save(tmp_path, 3, **WHOLE), save(tmp_path, 5, **{**WHOLE, part: value})
    assert newest(tmp_path) == bad.with_name("last.ckpt")
    assert newest(tmp_path, parts=True) == good
    assert f"step-00000005.ckpt is damaged: {part}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"max_epochs": 1, "max_steps": -1}, "trainer.max_epochs: 1, and the run is at epoch 2 already; give more"),
        ({"max_epochs": None, "max_steps": 4}, "trainer.max_steps: 4, and the run is at step 5 already; give more"),
        ({"max_epochs": 2, "max_steps": 5}, None),
        ({"max_epochs": -1, "max_steps": -1}, None),
    ],
)
def test_check_ahead__a_run_ends_no_earlier_than_it_is(
    options: dict[str, int | None], told: str | None, tmp_path: Path
) -> None:
    """Which is amid its second epoch, after one whole one."""
    saved = save(tmp_path, 5, **WHOLE).with_name("last.ckpt")
    if told is None:
        exact_resume.check_ahead(saved, options)
        exact_resume.check_ahead(None, {"max_epochs": 0})
    else:
        with pytest.raises(TinymimError, match=re.escape(told)):
            exact_resume.check_ahead(saved, options)
    other = save(tmp_path, 6, **{**WHOLE, "tinymim_position": None})
    with pytest.raises(TinymimError, match="max_epochs: 0, and the run is at epoch 1 already"):
        exact_resume.check_ahead(other, {"max_epochs": 0})


@pytest.mark.parametrize("moment", ["digest", "checkpoint"])
def test_save__killed_over_a_file_of_the_same_name_leaves_one_that_passes(
    tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path, 3)
    rename = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if (target.suffix == ".ckpt") == (moment == "digest"):
            raise KeyboardInterrupt  # in place of the rename
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        SafeCheckpointIO().save_checkpoint({"step": 4}, path)
    monkeypatch.undo()
    assert problem_of(path) is None
    assert SafeCheckpointIO().load_checkpoint(path) == {"step": 3}


def test_save__over_a_file_of_the_same_name(tmp_path: Path) -> None:
    path = save(tmp_path, 3)
    SafeCheckpointIO().save_checkpoint({"step": 4}, path)
    assert problem_of(path) is None
    assert len(path.with_name(f"{path.name}.sha256").read_text().splitlines()) == 1


def test_max_time__shorter_than_a_validation_lets_each_piece_take_a_step(tmp_path: Path) -> None:
    saving = Checkpoints(tmp_path, Saving(), Preemption(), Elapsed())
    connector = SimpleNamespace(cluster_environment=None)
    trainer: Any = SimpleNamespace(world_size=1, global_step=4, _accelerator_connector=connector)
    saving._begun, saving.preemption.deadline = 4, 0.0
    assert saving._agree(trainer) == (0, False)
    saving.preemption.received = signal.SIGTERM
    assert saving._agree(trainer) == (1, False)
    saving.preemption.received, trainer.global_step = None, 5
    assert saving._agree(trainer) == (1, False)


def test_saving__values_out_of_range() -> None:
    assert Saving().problems() == []
    found = Saving(every_steps=0, every_minutes=-1, keep=0).problems()
    assert [line.partition(":")[0] for line in found] == [
        "checkpoint.every_steps",
        "checkpoint.every_minutes",
        "checkpoint.keep",
    ]


def test_checkpoints__a_failed_write_keeps_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    io, path = SafeCheckpointIO(), tmp_path / "last.ckpt"
    io.save_checkpoint({"step": 1}, path)

    def full(checkpoint: object, where: Path) -> None:
        where.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TinymimError, match=r"No space left.*untouched"):
        io.save_checkpoint({"step": 2}, path)
    assert io.load_checkpoint(path) == {"step": 1}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["last.ckpt", "last.ckpt.sha256"]


def test_checkpoints__code_is_never_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "boom",))  # type: ignore[return-value]

    good, bad = save(tmp_path, 3), save(tmp_path, 5)
    torch.save({"a": Bomb()}, bad)
    bad.with_name(f"{bad.name}.sha256").write_text(f"{hashlib.sha256(bad.read_bytes()).hexdigest()}  {bad.name}\n")
    with pytest.raises(TinymimError, match="reading it would run code") as caught:
        SafeCheckpointIO().load_checkpoint(bad, weights_only=False)
    assert str(caught.value).count(str(bad)) == 1
    assert "weights_only" not in str(caught.value)
    assert newest(tmp_path) == good, "a checksum is right of whatever it was made of"
    assert "which is never done" in capsys.readouterr().err
    assert not (tmp_path / "boom").exists()
