"""A reader that has seen enough ends a command's words, and is no error."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tinymim.cli.closed_pipe import UntilClosed


def test_stream__goes_on_into_nothing() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        output = UntilClosed(stream)
        print("first", file=output, flush=True)
        assert os.read(reading, 100) == b"first\n"
        os.close(reading)
        print("x" * 100_000, file=output)
        print("last", file=output, flush=True)
        assert output.encoding == stream.encoding


@pytest.mark.parametrize(("words", "code"), [(["recipes"], 0), (["recipes", "show", "nothing"], 1)])
def test_command__ends_with_its_own_code(words: list[str], code: int) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    run = [sys.executable, "-c", "from tinymim.cli.main import command; command()", *words]
    with os.fdopen(writing, "w") as closed:
        done = subprocess.run(run, stdout=closed, stderr=subprocess.PIPE, text=True, check=False, timeout=120)
    assert done.returncode == code
    assert ("BrokenPipe" in done.stderr, "Traceback" in done.stderr) == (False, False)
    assert len(done.stderr.splitlines()) == code
