"""A run that goes on with other images than it began with says so; one with other classes does not go on."""

from __future__ import annotations

from pathlib import Path

from tests.commands import refused
from tests.data.images import class_folders, write
from tests.training.conftest import Recipe


def test_resume__on_the_command_line(tiny_fit: Recipe, tmp_path: Path) -> None:
    images, run = class_folders(tmp_path / "images", "abc", each=4), str(tmp_path / "run")
    options = ["--data=ImageFolderData", f"--data.root={images}", "--data.image_size=16", "--data.batch_size=2"]
    assert tiny_fit(*options, "--data.num_workers=0", run=run).returncode == 0

    def resumed(epochs: int) -> str:
        done = tiny_fit(*options, "--data.num_workers=0", f"--trainer.max_epochs={epochs}", "--ckpt_path=last", run=run)
        assert "resuming from" in done.stderr
        return done.stderr if not done.returncode else (refused(done), done.stderr)[1]

    write(images / "a/0.jpg", 999)  # another picture under its name
    write(images / "b/new.jpg", 99)
    assert "data: the images to train on have changed (11 before, 12 now): the steps are not those" in resumed(2)
    (images / "b/new.jpg").write_bytes((images / "b/new.jpg").read_bytes() + b" ")
    assert "have changed (files of the same names have other sizes)" in resumed(3)
    (images / "a").rename(images / "z")
    assert "data: the run has 3 classes, and the data now 3; they differ in a, z: give the run" in resumed(4)
