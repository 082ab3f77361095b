"""Chains that run, fail, are stopped and go on, with stages of no time."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.experiments.conftest import Fake, branched
from tinymim import system
from tinymim.errors import TinymimError
from tinymim.experiments import stop_signals
from tinymim.experiments.runner import Runner
from tinymim.experiments.state import State, begin, load
from tinymim.experiments.tally import Tally
from tinymim.training import lock
from tinymim.training.preemption import Preempted

WHOLE = ["medium", "tiny", "other", "probe", "tuned", "shipped"]


def states(state: State) -> dict[str, str]:
    return {key: entry.state for key, entry in load(state.place).entries.items()}


def again(state: State, jobs: int = 1) -> int:
    """A new sitting, from the file."""
    return Runner(load(state.place), jobs=jobs).run()


def when(condition: Callable[[], bool], act: Callable[[], None]) -> threading.Thread:
    """Act from beside, once the condition holds."""

    def watch() -> None:
        end = time.monotonic() + 120
        while not condition() and time.monotonic() < end:
            time.sleep(0.02)
        act()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_run__each_stage_from_the_one_before(state: State, fake: Fake) -> None:
    assert Runner(state).run() == 0
    calls = fake.calls()
    place = state.place
    assert calls[0][:-1] == [
        "fit",
        "--config",
        str(place / "recipes/medium.yaml"),
        f'--run_dir="{place}/medium"',
        "--ckpt_path",
        "last",
    ]
    assert f'--model.teacher="{place}/medium/checkpoints/last.ckpt"' in calls[1]
    assert f'--model.weights="{place}/tiny/checkpoints/last.ckpt"' in calls[4]
    assert calls[5][:2] == ["export", f"{place}/tiny/checkpoints/last.ckpt"]
    assert (place / "shipped/student.safetensors").read_text() == "exported tiny(medium())"
    written = json.loads((place / "chain.json").read_text())["stages"]
    sha = {
        name: hashlib.sha256(text.encode()).hexdigest()
        for name, text in (("medium", "medium()"), ("tiny", "tiny(medium())"))
    }
    assert written["medium"]["outputs"]["checkpoints/last.ckpt"] == sha["medium"]
    assert set(written["medium"]["outputs"]) == {"checkpoints/last.ckpt", "results.json"}
    assert written["tiny"]["inputs"] == {"medium": sha["medium"]}
    assert written["shipped"]["inputs"] == {"tiny": sha["tiny"]}
    assert {entry["state"] for entry in written.values()} == {"done"}
    assert {entry["exit_code"] for entry in written.values()} == {0}
    assert again(state) == 0
    assert fake.calls() == [], "nothing is run twice"


def test_run__seeds_have_folders_of_their_own(fake: Fake, tmp_path: Path) -> None:
    state = begin(tmp_path / "chain", branched(seeds=[4, 5]), "env LAUNCHED=yes")
    state.place.mkdir()
    assert Runner(state).run() == 0
    calls = fake.calls()
    assert len(calls) == 12
    assert "--seed_everything=4" in calls[1]
    assert f'--model.teacher="{state.place}/seed5/medium/checkpoints/last.ckpt"' in calls[7]
    assert {call[-1] for call in calls if call[0] == "fit"} == {"yes"}, "behind the launcher"
    assert {call[-1] for call in calls if call[0] == "export"} == {""}


@pytest.mark.parametrize(("jobs", "order"), [(1, ["probe", "tuned"]), (2, ["tuned", "probe"])])
def test_run__several_at_once_begin_with_the_longest(
    jobs: int, order: list[str], state: State, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tally, "_expected", lambda self, key: {"tiny": 5.0, "tuned": 4.0}.get(key, 1.0))
    assert Runner(state, jobs=jobs).run() == 0
    assert [stage for stage in fake.stages() if stage in order] == order


def test_run__a_failure_stops_what_starts_from_it_alone(
    state: State, fake: Fake, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.plan("tiny", "fail", "killed", "empty", "done")
    with pytest.raises(TinymimError) as raised:
        Runner(state).run()
    assert "1 of 6 stages failed, and 3 that build on them wait" in str(raised.value)
    assert f"tinymim chain resume {state.place}: tiny: ended with exit code 1; what it said is above" in str(
        raised.value
    )
    waiting = dict.fromkeys(("probe", "tuned", "shipped"), "waiting")
    assert states(state) == {"medium": "done", "tiny": "failed", "other": "done", **waiting}
    assert capfd.readouterr().err.count("so it goes") == 1
    for error in ("was ended by signal 9", "ended without results.json"):
        with pytest.raises(TinymimError, match=error):
            again(state)
    fake.calls()
    assert again(state) == 0
    assert fake.stages() == ["tiny", "probe", "tuned", "shipped"]


@pytest.mark.parametrize("how", ["preempted", "launcher"])
def test_run__a_preempted_stage_interrupts_the_chain(
    how: str, state: State, fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.plan("tiny", how)
    assert Runner(state).run() == Preempted.code == 75
    assert (
        f"interrupted, 1 of 6 stages done; go on with: tinymim chain resume {state.place}\n" in capsys.readouterr().err
    )
    assert (states(state)["tiny"], states(state)["other"]) == ("interrupted", "waiting")
    fake.calls()
    assert again(state) == 0
    assert fake.stages() == WHOLE[1:]
    assert (state.place / "tiny/checkpoints/last.ckpt").read_text() == "half of tiny(medium())", "it went on"


def test_run__a_failure_after_an_old_preemption_is_a_failure(state: State, fake: Fake) -> None:
    fake.plan("tiny", "launcher", "fail")
    assert Runner(state).run() == Preempted.code
    with pytest.raises(TinymimError, match="exit code 1"):
        again(state)
    assert states(state)["tiny"] == "failed"


@contextlib.contextmanager
def heard(number: signal.Signals, handler: Any = signal.SIG_DFL) -> Iterator[Any]:
    """Whoever started the tests, in the background or under nohup, may have had it ignored."""
    before = signal.signal(number, handler)
    try:
        yield handler
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP])
def test_run__a_signal_reaches_the_stage(
    number: signal.Signals, state: State, fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.plan("medium", "wait")
    thread = when((state.place / "medium/progress.json").exists, lambda: os.kill(os.getpid(), number))
    with heard(number) as before:
        assert Runner(state).run() == (130 if number == signal.SIGINT else Preempted.code)
        thread.join()
        assert signal.getsignal(number) is before
    assert "stopping: medium is asked to save" in capsys.readouterr().err
    entry = load(state.place).entries["medium"]
    assert (entry.state, entry.exit_code) == ("interrupted", 75)
    assert fake.stages() == ["medium"], "no other is begun"


def test_run__a_signal_is_told_though_the_stage_has_ended_by_the_time_of_the_next_look(
    state: State, fake: Fake, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.plan("medium", "wait")
    poll, written, sent = subprocess.Popen.poll, state.place / "medium/progress.json", list[bool]()

    def late(stage: subprocess.Popen[bytes]) -> int | None:
        """The look that finds the stage ended comes right after the signal."""
        if written.exists() and not sent:
            sent.append(True)
            os.kill(os.getpid(), signal.SIGTERM)
            stage.wait()
        return poll(stage)

    monkeypatch.setattr(subprocess.Popen, "poll", late)
    assert Runner(state).run() == Preempted.code
    assert capsys.readouterr().err.count("stopping: medium is asked to save") == 1


def test_run__a_signal_that_is_ignored_stops_nothing(state: State, fake: Fake) -> None:
    fake.plan("medium", "done")
    with heard(signal.SIGHUP, signal.SIG_IGN):
        thread = when((state.place / "medium").exists, lambda: os.kill(os.getpid(), signal.SIGHUP))
        assert Runner(state).run() == 0
        thread.join()
    assert fake.stages() == WHOLE


def test_run__a_second_signal_too(state: State, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "ECHO", 0)
    fake.plan("medium", "slow")
    place = state.place / "medium"
    first = when((place / "progress.json").exists, lambda: os.kill(os.getpid(), signal.SIGTERM))
    second = when((place / "asked").exists, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert Runner(state).run() == Preempted.code
    first.join()
    second.join()
    entry = load(state.place).entries["medium"]
    assert (entry.state, entry.exit_code) == ("interrupted", 130)


def test_run__a_stage_that_hears_nothing_is_killed_at_the_second(
    state: State, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stop_signals, "GRACE", 0.05)
    fake.plan("medium", "deaf")

    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(system.ECHO + 0.1)
        os.kill(os.getpid(), signal.SIGINT)

    thread = when((state.place / "medium/progress.json").exists, twice)
    with heard(signal.SIGINT):
        assert Runner(state).run() == 130
        thread.join()
    entry = load(state.place).entries["medium"]
    assert (entry.state, entry.exit_code) == ("interrupted", -signal.SIGKILL)


def test_run__what_make_forwards_to_the_group_that_has_it_counts_once(
    state: State, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.plan("medium", "wait")

    def both() -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)

    thread = when((state.place / "medium/progress.json").exists, both)
    with heard(signal.SIGTERM, lambda *_: None):  # the second may come when the stage has ended
        assert Runner(state).run() == Preempted.code
        thread.join()
    assert load(state.place).entries["medium"].exit_code == Preempted.code, "it saved"


def test_run__a_folder_that_moves_is_not_made_anew(state: State, tmp_path: Path) -> None:
    (state.place / lock.NAME).touch()
    elsewhere = tmp_path / "elsewhere"
    with pytest.raises(TinymimError, match=r"chain cannot be written: it was moved or removed meanwhile.* go on with"):
        Runner(state, ended=lambda _: state.place.rename(elsewhere)).run()
    assert not state.place.exists()
    assert load(elsewhere).entries["medium"].state == "done"


def test_run__a_full_disk_is_a_line_and_the_stage_at_work_is_asked_to_save(
    state: State, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.plan("other", "wait")

    def full(_: State) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def ended(key: str) -> None:
        if key == "tiny":
            when((state.place / "other/progress.json").exists, lambda: None).join()  # it hears a signal from then on
            monkeypatch.setattr(State, "save", full)

    runner = Runner(state, jobs=2, ended=ended)
    with pytest.raises(TinymimError, match="the disk is full; put that right, then go on with: tinymim chain resume"):
        runner.run()
    monkeypatch.undo()
    assert state.entries["other"].exit_code == Preempted.code


def test_run__several_at_once(state: State, fake: Fake, capfd: pytest.CaptureFixture[str]) -> None:
    fake.plan("other", "fail")
    with pytest.raises(
        TinymimError, match=r"other: ended with exit code 1: tinymim fit: so it goes \(.*logs/other.txt\)"
    ):
        Runner(state, jobs=2).run()
    assert sorted(fake.stages()) == sorted(WHOLE)
    assert (state.place / "logs/tiny.txt").read_text() == "tiny: done\n"
    assert "tiny: done" not in capfd.readouterr().out


def test_run__a_launcher_that_is_not_there(state: State) -> None:
    state.launch = "srunn -n 2"
    with pytest.raises(TinymimError, match="medium: srunn cannot be started: No such file"):
        Runner(state).run()


def test_run__killed_between_a_stages_end_and_the_note_of_it(state: State, fake: Fake) -> None:
    Runner(state).run()
    cut = load(state.place)
    cut.entries["tiny"].state, cut.entries["tiny"].outputs = "running", {}
    cut.forget({"probe", "tuned", "shipped"})
    cut.save()
    fake.calls()
    assert again(state) == 0
    assert fake.stages() == ["tiny", "probe", "tuned", "shipped"]


def test_run__a_stage_that_begins_finds_nothing_of_an_earlier_one(state: State) -> None:
    Runner(state).run()
    cut = load(state.place)
    cut.forget({"tiny"})
    cut.save()
    (state.place / "tiny/checkpoints/last.ckpt").write_text("of another recipe ")
    assert again(state) == 0
    assert (state.place / "tuned/checkpoints/last.ckpt").read_text() == "tuned(tiny(medium()))"


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="asks /proc what a process is")
def test_run__a_stage_that_outlived_its_chain_is_not_run_twice(state: State, fake: Fake) -> None:
    place = state.place / "medium"
    orphan = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(900)", str(place)])
    try:
        state.entries["medium"].state = "running"
        state.entries["medium"].process = {"host": os.uname().nodename, "pid": orphan.pid}
        state.save()
        with pytest.raises(TinymimError, match=f"stage medium is still being run by pid {orphan.pid}, which outlived"):
            again(state)
    finally:
        orphan.kill()
        orphan.wait()
    assert again(state) == 0


def test_run__in_another_place(state: State, fake: Fake, tmp_path: Path) -> None:
    fake.plan("tiny", "preempted")
    Runner(state).run()
    shutil.move(state.place, tmp_path / "moved")
    assert Runner(load(tmp_path / "moved")).run() == 0
    assert (tmp_path / "moved/tiny/checkpoints/last.ckpt").read_text() == "half of tiny(medium())"
    assert not state.place.exists()
