"""One worker a folder, whichever way the one before has ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from tinymim.errors import TinymimError
from tinymim.system import disk
from tinymim.training import lock
from tinymim.training.lock import hold


class Owner:
    """A process, forked from this one, that holds ``folder``; with ``parent``, one that does nothing but outlive it."""

    def __init__(self, folder: Path, parent: bool = False):
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            with contextlib.suppress(BaseException), hold(folder, "run_dir"):
                if not parent or os.fork() == 0:
                    os.write(writing, f"{os.getpid()}\n".encode())
                time.sleep(900)
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as stream:
            self.said = int(stream.readline())

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def left_by(folder: Path, host: str, job: str | None = None) -> None:
    """What somebody left in the lock."""
    (folder / ".lock").write_text(
        json.dumps({"pid": 4711, "host": host, "since": "yesterday", "command": "tinymim fit", "job": job})
    )


def test_hold__the_second_process_is_told_who_and_a_dead_one_is_no_owner(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    owner = Owner(folder)
    try:
        with pytest.raises(TinymimError) as raised, hold(folder, "run_dir"):
            pass
        for word in (
            "run_dir: ",
            str(folder),
            f"pid {owner.pid} on {socket.gethostname()}, since 20",
            f"`kill {owner.pid}`",
        ):
            assert word in str(raised.value)
    finally:
        owner.kill()
    with hold(folder, "run_dir"):
        assert json.loads((folder / ".lock").read_text())["pid"] == os.getpid()
    assert f"stale: pid {owner.pid} on {socket.gethostname()}, which took it at 20" in capsys.readouterr().err
    assert (folder / ".lock").read_text() == ""
    with hold(folder, "run_dir"):
        pass
    assert capsys.readouterr().err == "", "an orderly end leaves nothing to say"


def test_hold__an_error_inside_frees_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), hold(tmp_path, "run_dir"):
        raise ZeroDivisionError
    with hold(tmp_path, "run_dir"):
        pass
    assert capsys.readouterr().err == ""


def broken(folder: Path, written: Path) -> None:
    """A command that fails after it has written something."""
    with contextlib.suppress(ZeroDivisionError), hold(folder, "run_dir"):
        written.parent.mkdir(exist_ok=True)
        written.touch()
        raise ZeroDivisionError


def test_hold__an_error_before_anything_is_written_leaves_nothing(tmp_path: Path) -> None:
    for folder, there in (("runs/one", False), ("own", True)):
        if there:
            (tmp_path / folder).mkdir()
        broken(tmp_path / folder, tmp_path / folder / ".lock")
    assert list(tmp_path.rglob("*")) == [tmp_path / "own"]


@pytest.mark.parametrize("name", ["cell.json", "below/cell.json"])
def test_hold__an_error_keeps_what_was_written_and_a_lock_that_was_there(name: str, tmp_path: Path) -> None:
    broken(tmp_path / "runs" / "one", tmp_path / "runs" / "one" / name)
    assert (tmp_path / "runs" / "one" / name).is_file()
    with hold(tmp_path / "two", "run_dir"):
        pass
    broken(tmp_path / "two", tmp_path / "two" / ".lock")
    assert [path.name for path in (tmp_path / "two").iterdir()] == [".lock"]


def test_hold__a_folder_that_is_taken_away_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, take, gone = tmp_path / "run", lock._acquire, []

    def late(*given: object) -> bool:
        if not gone:  # the one before was refused, and took the folder away before it was locked
            gone.append(True)
            folder.rmdir()
        return take(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(lock, "_acquire", late)
    with hold(folder, "run_dir"):
        assert json.loads((folder / ".lock").read_text())["pid"] == os.getpid()
    assert gone


def test_hold__a_child_that_outlives_its_owner_does_not_keep_it(tmp_path: Path) -> None:
    owner = Owner(tmp_path, parent=True)
    child = owner.said
    try:
        owner.kill()
        os.kill(child, 0)
        with hold(tmp_path, "run_dir"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def test_hold__another_host_is_watched_and_a_living_one_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left_by(tmp_path, "elsewhere")
    done = threading.Event()

    def live() -> None:
        while not done.wait(0.05):
            os.utime(tmp_path / ".lock")

    other = threading.Thread(target=live)
    other.start()
    try:
        with pytest.raises(TinymimError, match="pid 4711 on elsewhere"), hold(tmp_path, "run_dir", patience=60):
            pass
    finally:
        done.set()
        other.join()
    assert json.loads((tmp_path / ".lock").read_text())["host"] == "elsewhere"
    assert "watching up to 60 s" in capsys.readouterr().err
    with hold(tmp_path, "run_dir", patience=0.3):
        pass
    assert "stale: pid 4711 on elsewhere, which took it at " in capsys.readouterr().err


def test_hold__a_requeued_job_does_not_wait_for_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    left_by(tmp_path, "elsewhere", "77")
    with hold(tmp_path, "run_dir", patience=60):
        assert json.loads((tmp_path / ".lock").read_text())["job"] == "77"
    assert "watching" not in capsys.readouterr().err


def test_hold__the_owner_shows_that_it_lives(tmp_path: Path) -> None:
    with hold(tmp_path, "run_dir", beat=0.02):
        before = (tmp_path / ".lock").stat().st_mtime_ns
        end = time.monotonic() + 60
        while (tmp_path / ".lock").stat().st_mtime_ns == before:
            assert time.monotonic() < end
            time.sleep(0.01)


def test_hold__half_written_or_without_flock(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".lock").write_text('{"pid": 47')
    with hold(tmp_path, "run_dir"):
        pass

    def unknown(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(disk.fcntl, "flock", unknown)
    left_by(tmp_path, socket.gethostname())
    with hold(tmp_path, "run_dir", patience=0.2):
        pass
    assert "watching" in capsys.readouterr().err, "without flock the host alone decides nothing"


def test_hold__a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(TinymimError, match=r"run_dir: .*file/run cannot be written"),
        hold(tmp_path / "file" / "run", "run_dir"),
    ):
        pass


def test_hold__the_folder_may_be_gone_at_its_end(tmp_path: Path) -> None:
    with hold(tmp_path / "run", "run_dir"):
        (tmp_path / "run" / ".lock").unlink()
        (tmp_path / "run").rmdir()
    assert not (tmp_path / "run").exists()


def test_hold__a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / lock.NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TinymimError, match="is a link, and what it"), hold(tmp_path / "run", "run_dir"):
        pass
    assert not (tmp_path / "elsewhere").exists()
