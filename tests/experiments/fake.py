"""Stands in for ``tinymim``: a stage of no time that keeps to what a run folder looks like and how a fit ends.

What a stage does at each of its calls is a list of words in ``$FAKE/STAGE``, one a line, ``done`` where it has ended:

done        trains and ends well
fail        ends with 1
killed      ends by SIGKILL
preempted   saves half of its work and ends with 75
launcher    the same behind a launcher that makes a 1 of it
wait        saves half of its work once it is asked to, and ends with 75
slow        is still saving when it is asked again, and ends with 130
deaf        hears nothing
empty       ends well and leaves no results
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

PATIENCE = 120
"""Seconds after which nobody asks any more."""


def option(name: str) -> str | None:
    """The value of an option."""
    given = [text.partition("=")[2] for text in sys.argv if text.startswith(f"--{name}=")]
    return json.loads(given[0]) if given else None


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def main() -> int:
    folder = Path(os.environ["FAKE"])
    with (folder / "calls").open("a") as calls:
        calls.write(json.dumps([*sys.argv[1:], os.environ.get("LAUNCHED", "")]) + "\n")
    if sys.argv[1] == "export":
        write(Path(sys.argv[3]), "exported " + Path(sys.argv[2]).read_text())
        return 0
    place = Path(str(option("run_dir")))
    planned = folder / place.name
    words = planned.read_text().split() if planned.is_file() else []
    if words:
        planned.write_text("\n".join(words[1:]))
    return act(words[0] if words else "done", place)


def act(word: str, place: Path) -> int:
    checkpoint = place / "checkpoints" / "last.ckpt"
    half = checkpoint.read_text() if checkpoint.is_file() else ""
    start = option("model.teacher") or option("model.weights")
    whole = f"{place.name}({Path(start).read_text() if start else ''})"
    print(f"{place.name}: {word}", flush=True)
    if word == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        write(place / "progress.json", "{}")
        time.sleep(PATIENCE)
    if word in ("wait", "slow"):
        word = wait(place, times=1 if word == "wait" else 2)
    if word in ("preempted", "launcher"):
        write(checkpoint, half + "half of ")
        write(place / "progress.json", json.dumps({"state": "preempted", "epoch": 1, "epochs": 2, "seconds": 5.0}))
        return 75 if word == "preempted" else 1
    if word == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "fail":
        print("tinymim fit: so it goes", file=sys.stderr)
        return 1
    if word == "twice":
        return 130
    write(checkpoint, half + whole)
    if word != "empty":
        metrics = {"val/top1": 0.5, "val/knn_top1": 0.25}
        write(place / "results.json", json.dumps({"metrics": metrics, "seconds": 61, "epochs": 2, "parameters": 9}))
    return 0


def wait(place: Path, times: int) -> str:
    """Until it is asked to stop as often as that; ``asked`` in its folder says that it was."""
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
    write(place / "progress.json", json.dumps({"state": "running", "epoch": 0, "epochs": 2, "seconds": 1.0}))
    end = time.monotonic() + PATIENCE
    while len(asked) < times and time.monotonic() < end:
        if asked:
            write(place / "asked", "")
        time.sleep(0.01)
    return "twice" if len(asked) > 1 else "preempted"


if __name__ == "__main__":
    sys.exit(main())
