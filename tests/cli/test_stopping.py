"""A signal to a command that has nothing to save: one line, and an exit code that says whose signal it was."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tinymim.cli import main
from tinymim.system import SIGNALS


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Whoever started the tests may have had some ignored."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def command(monkeypatch: pytest.MonkeyPatch, act: object) -> None:
    """``tinymim recipes`` does that."""
    monkeypatch.setattr(main.Command, "module", lambda *_: SimpleNamespace(main=act))


@pytest.mark.parametrize("number", SIGNALS)
def test_main__ends_in_a_line_at_a_signal_also_where_it_comes_twice_from_make(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cleaned: list[bool] = []

    def work(arguments: list[str]) -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(60)
        finally:
            os.kill(os.getpid(), number)
            cleaned.append(True)

    command(monkeypatch, work)
    assert main.main(["recipes"]) == (130 if number == signal.SIGINT else 75)
    assert cleaned, "what is half written is taken away"
    assert capsys.readouterr().err.startswith(
        f"tinymim recipes: stopped by {number.name}; nothing is left half written"
    )
    assert signal.getsignal(number) is signal.SIG_DFL


def test_main__ends_at_once_at_the_second_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(arguments: list[str]) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            time.sleep(0.6)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)

    command(monkeypatch, work)
    if (child := os.fork()) == 0:
        try:
            main.main(["recipes"])
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 75


def test_main__ends_in_the_line_where_an_import_swallows_what_is_raised(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "swallowing.py").write_text(
        "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGTERM)\nexcept BaseException:\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    command(monkeypatch, lambda arguments: importlib.import_module("swallowing"))
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.dup2(writing, 2)
            main.main(["recipes"])
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as stream:
        assert stream.read().startswith("tinymim recipes: stopped by SIGTERM; nothing is left half written")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 75


def test_command__imports_nothing_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a signal has left half imported would be tripped over."""
    monkeypatch.setattr(main, "main", lambda: 75)
    monkeypatch.setattr(main, "until_closed", lambda: None)
    monkeypatch.delitem(sys.modules, main.PROCESSES, raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)  # its import fails
    with pytest.raises(SystemExit) as ended:
        main.command()
    assert ended.value.code == 75
    assert main.PROCESSES not in sys.modules


def test_main__says_nothing_of_what_was_half_made(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Half:
        def __del__(self) -> None:
            raise AttributeError("_shutdown")

    def work(arguments: list[str]) -> None:
        made = Half()
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
        del made

    command(monkeypatch, work)
    complain = sys.unraisablehook
    assert main.main(["recipes"]) == 130
    assert "_shutdown" not in capfd.readouterr().err
    assert sys.unraisablehook is complain


def test_main__leaves_ignored_signals_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    command(monkeypatch, lambda arguments: os.kill(os.getpid(), signal.SIGHUP))
    assert main.main(["recipes"]) == 0


@pytest.mark.parametrize("number", main.FULL)
def test_main__a_full_disk_is_a_line(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(arguments: list[str]) -> None:
        raise OSError(number, os.strerror(number), "here/table.csv")

    command(monkeypatch, work)
    assert main.main(["recipes"]) == 1
    assert f"tinymim recipes: here/table.csv cannot be written ({os.strerror(number)})" in capsys.readouterr().err
    command(monkeypatch, lambda arguments: open(os.devnull + "/x"))  # noqa: SIM115, PTH123
    with pytest.raises(OSError, match=os.strerror(errno.ENOTDIR)):
        main.main(["recipes"])


def test_main__a_misspelt_command_is_told_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main.main(["fitt"])
    assert "there is no command 'fitt'; did you mean fit?" in capsys.readouterr().err
