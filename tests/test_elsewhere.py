"""Systems that are not POSIX's: what they lack is used in one package alone, which does without it."""

from __future__ import annotations

import ast
import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.commands import Forked
from tests.elsewhere import ATTRIBUTES, LACKING, Lacking
from tests.test_floors import modules
from tinymim import files, system
from tinymim.errors import TinymimError
from tinymim.system import disk, workers
from tinymim.training import lock

WORDS = {"symlink_to", "hardlink_to", "readlink_to"}
"""Methods of paths that need privileges elsewhere."""


def posix_alone(tree: ast.AST) -> list[str]:
    """What a file uses that is POSIX's alone, with its lines."""
    used = []
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Attribute):
            module = node.value.id if isinstance(node.value, ast.Name) else ""
            names = [f"{module}.{node.attr}"] if node.attr in ATTRIBUTES.get(module, ()) or node.attr in WORDS else []
        elif isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", "") or ""
            imported = [alias.name for alias in node.names]
            names = [name for name in (module, *imported) if name in LACKING[""].split()]
            names += [f"{module}.{name}" for name in imported if name in ATTRIBUTES.get(module, ())]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value] if node.value.startswith(("/proc/", "/sys/", "forkserver")) else []
        used += [f"{name} in line {node.lineno}" for name in names]  # type: ignore[attr-defined]
    return used


def test_posix__is_used_in_one_package_alone() -> None:
    used = {name: posix_alone(ast.parse(path.read_text())) for name, path in modules().items()}
    assert {name: there for name, there in used.items() if there and not name.startswith("system.")} == {}
    assert {"import resource", "os.pread"} - set(used["system.__init__"]), "and is found where it is"
    assert any("os.preadv" in line for line in used["system.disk"])


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Without locks, reads at a place, holes, links, timers and more."""
    monkeypatch.setattr(disk, "fcntl", None)
    monkeypatch.setattr(system, "resource", None)
    for module, name in ((disk, "os"), (system, "os"), (workers, "os"), (system, "signal"), (workers, "signal")):
        monkeypatch.setattr(module, name, Lacking(getattr(module, name)))

    def forbidden(*_: Any, **options: Any) -> None:
        raise OSError(errno.EPERM, "A required privilege is not held by the client")

    monkeypatch.setattr(os, "symlink", forbidden)
    return monkeypatch


@pytest.mark.usefixtures("bare")
def test_places__are_read_and_written(tmp_path: Path) -> None:
    path = tmp_path / "records"
    path.write_bytes(b"")
    file = os.open(path, disk.flags("O_RDWR", "O_NONBLOCK"))
    try:
        assert disk.write_at(file, memoryview(b"abcdef"), 4) == 6
        assert disk.read_at(file, 3, 5) == b"bcd"
        numbers = np.zeros(2, "<u4")
        assert disk.read_into(file, numbers.data, 4) == 6, "fewer than asked for: the file ends"
        assert numbers.tobytes() == b"abcdef\0\0"
        assert list(disk.written(file, 10)) == [(0, 10)]
        assert disk.lock(file)
    finally:
        os.close(file)
    assert disk.size_on_disk(path) > 0


@pytest.mark.parametrize("hard", [True, False], ids=["hard link", "copy"])
def test_link__has_the_content(hard: bool, tmp_path: Path, bare: pytest.MonkeyPatch) -> None:
    if not hard:
        bare.setattr(os, "link", os.symlink)
    (tmp_path / "step-1.ckpt").write_text("weights")
    disk.link(tmp_path / "last.ckpt", "step-1.ckpt")
    assert (tmp_path / "last.ckpt").read_text() == "weights"
    assert not (tmp_path / "last.ckpt").is_symlink()


@pytest.mark.usefixtures("bare")
def test_files__are_written_whole(tmp_path: Path) -> None:
    files.write_text(tmp_path / "state.json", "old")
    files.write_text(tmp_path / "state.json", "new")
    for words in ("one", "two"):
        files.write_folder(tmp_path / "export", lambda folder, words=words: (folder / "x").write_text(words))
    assert (tmp_path / "state.json").read_text() == "new"
    assert (tmp_path / "export" / "x").read_text() == "two"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export", "state.json"], "and nothing is left beside"


def test_lock__keeps_others_out_by_a_file_beside_the_owners_name(tmp_path: Path, bare: pytest.MonkeyPatch) -> None:
    bare.setattr(lock, "LOCKED", ".locked")
    with lock.hold(tmp_path / "run", "run_dir"):
        assert f"pid {os.getpid()}" in str(lock.owner(tmp_path / "run"))
        with pytest.raises(TinymimError, match="another command is working in"), lock.hold(tmp_path / "run", "run_dir"):
            pass
    assert lock.owner(tmp_path / "run") is None
    with pytest.raises(ZeroDivisionError), lock.hold(tmp_path / "refused", "run_dir"):
        raise ZeroDivisionError
    assert not (tmp_path / "refused").exists()


@pytest.mark.usefixtures("bare")
def test_system__says_what_it_can() -> None:
    assert system.peak_memory() == 0
    assert system.free_memory() > 0
    system.start_timer(0)
    with workers.signals_blocked():
        workers.block_signals()
    workers.leave_group()
    workers.forget_children()


def test_command_line__of_a_process() -> None:
    assert "python" in workers.command_line(os.getpid())
    assert workers.command_line(2**22 + 1) == ""


def test_run__as_elsewhere_with_the_core_alone(tmp_path: Path) -> None:
    code, said = Forked(log=tmp_path / "log", module="tests.elsewhere", cwd=tmp_path).ended()
    assert code == 0, said
    assert "lacking:\n- analysis without pandas\n- cli without pandas\n- scaling without pandas\n$" in said
    codes = [int(line.removeprefix("exit code ")) for line in said.splitlines() if line.startswith("exit code ")]
    assert codes == [0, 0, 0, 0, 0, 1], said
    assert "needs matplotlib and pandas and scipy, not installed here: pip install 'tinymim[analysis]'" in said
    page = (tmp_path / "run" / "report.html").read_text()
    assert "curves need matplotlib, not installed here: pip install" in page
    assert "attention of teacher" in page
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").stat().st_nlink == 2
    assert (tmp_path / "student.safetensors").is_file()
