"""Mistakes in a command's words end it in a line that says what would be right, and the usage in another."""

from __future__ import annotations

import pytest

from tinymim.cli import main
from tinymim.config.argument_errors import in_words

MISTAKES = {
    "report": "run is missing, as in: tinymim report runs/relation_digits",
    "bench": "NETWORK is missing, as in: tinymim bench runs/",
    "predict x": "--images is missing, as in: tinymim predict runs/",
    "predict": "checkpoint and --images are missing",
    "bench x --threads 0": "--threads: '0' is not a whole number, 1 or more",
    "bench x --threads -2": "--threads: '-2' is not a whole number, 1 or more",
    "bench x --threads many": "--threads: 'many' is not a whole number, 1 or more",
    "bench x --seconds long": "--seconds: 'long' is not a number",
    "report x --count x": "--count: 'x' is not a whole number",
    "report x --countt 3": "--countt: no such option; did you mean --count?",
    "predict x --images y --num_workers 1.5": "--num_workers: '1.5' is not a whole number, 0 or more, or auto",
    "predict x --images y --pool maen": "--pool: 'maen' is none of mean, cls; did you mean mean?",
    "predict x --images y --block": "--block: its value is missing",
    "analyze x --data y --measures heads,ckaa": "--measures: there is no 'ckaa'; did you mean cka?",
    "cache lst": "'lst' is none of list, clear; did you mean list?",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_error__is_a_line_in_our_words(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main(words.split())
    assert ended.value.code == 2
    told, usage = capsys.readouterr().err.splitlines()
    command = words.split()[0]
    assert told.startswith(f"tinymim {command}: ")
    assert MISTAKES[words] in told
    assert usage.startswith(f"usage: tinymim {command} ")
    assert usage.endswith("--help` says more)")


def test_in_words__of_any_python() -> None:
    assert in_words("argument -o/--out: invalid choice: 'x' (choose from a, b)") == "--out: 'x' is none of a, b"
    assert in_words("unrecognized arguments: foo bar") == "foo bar: more than is asked for"


PAGES = "recipes teachers data export bench predict analyze cache report replay study chain scaling search papers"


@pytest.mark.parametrize("words", [f"{name} --help{all}" for name in PAGES.split() for all in ("", " all")])
def test_page__is_80_columns_wide_and_of_plain_text(
    words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main.main(words.split())
    page = capsys.readouterr().out
    assert "``" not in page
    about = page.split("\n\n")[1]
    assert max(map(len, about.splitlines())) <= 78
    assert not about.startswith("tinymim")
