"""Tables of a study, and the sentences computed from them."""

from __future__ import annotations

from pathlib import Path

from tinymim.experiments import loss_curves, tables
from tinymim.experiments.questions import FIGURES, Curve, Question

ROWS = {"a": "way A", "b": "way B", "c": "way C"}
FINE = "fine-tuned"


def records(**figures: dict[int, float]) -> tables.Records:
    """Finished cells with the same value for every figure."""
    return {
        row: {seed: {"status": "done", "figures": dict.fromkeys(FIGURES, value)} for seed, value in by_seed.items()}
        for row, by_seed in figures.items()
    }


def question(**paper: float) -> Question:
    return Question("Which way?", ROWS, "Table 1", "A is best.", paper)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_markdown__mean_spread_seeds_and_the_papers_figure() -> None:
    found = records(a={0: 0.9, 1: 0.92}, b={0: 0.8})
    found["b"][1] = {"status": "failed", "error": "no"}
    found["c"] = {0: {"status": "started"}}
    lines = tables.section(question(a=84.62, c=1), found).markdown().splitlines()
    assert lines[0] == "## Which way?"
    head, _, *rows = [cells(line) for line in lines if line.startswith("|")]
    assert head == ["row", *FIGURES, "seeds", "paper"]
    assert rows == [
        ["way A", *["91.0 ± 1.4"] * 3, "2", "84.6"],
        ["way B", *["80.0 %"] * 3, "1, 1 failed", "-"],
        ["way C", "-", "-", "-", "0", "1.0"],
    ]
    assert "The paper (Table 1): A is best." in lines


def test_markdown__before_anything_is_there() -> None:
    text = tables.section(question(a=1, b=2), {}).markdown()
    assert "| way A | - | - | - | 0 | 1.0 |" in text.splitlines()
    assert "fine-tuned:" not in text


def test_table__the_same_as_csv() -> None:
    read = tables.csv_rows(question(a=84.6), records(a={0: 0.9, 1: 0.92}, b={0: 0.8}))
    assert [row["title"] for row in read] == list(ROWS.values())
    assert (read[0]["fine-tuned mean"], read[0]["fine-tuned std"], read[0]["seeds"]) == ("91.000", "1.414", 2)
    assert (read[1]["fine-tuned mean"], read[1]["fine-tuned std"], read[1]["paper"]) == ("80.000", "", "")
    assert (read[2]["fine-tuned mean"], read[2]["seeds"], read[0]["paper"]) == ("", 0, 84.6)


def test_agreement__the_same_best_row() -> None:
    found = records(a={0: 0.90, 1: 0.92}, b={0: 0.80, 1: 0.84}, c={0: 0.7, 1: 0.7})
    text = tables.agreement(question(a=3, b=2, c=1), found, FINE, FIGURES[FINE])
    assert "best, *way A*, is best here too, over *way B* by 9.0 ± 1.4 (outside the spread)" in text
    assert "Spearman +1.00" in text


def test_agreement__equal_rows_are_told_as_equal() -> None:
    even = records(a={0: 0.9}, b={0: 0.9}, c={0: 0.7})
    for paper in ({"a": 3, "b": 2, "c": 1}, {"a": 2, "b": 3, "c": 1}):
        text = tables.agreement(question(**paper), even, FINE, FIGURES[FINE])
        assert "are equal here, best of all, with a difference of 0.0 (one seed" in text
        assert "best here too" not in text
    nearly = records(a={0: 0.9}, b={0: 0.90001})
    assert "are equal here" in tables.agreement(question(a=2, b=1), nearly, FINE, FIGURES[FINE]), "as they are shown"
    assert tables.agreement(question(), records(a={0: 0.9}, b={0: 0.9}), FINE, FIGURES[FINE]).endswith("in all rows.")
    assert "best *way A* and *way B*, worst *way C*" in tables.agreement(question(), even, FINE, FIGURES[FINE])
    figures = {title: FIGURES[title] for title in ("10-NN", FINE)}
    assert "*way A* and *way B* are best in both" in tables.against(question(), even, figures)


def test_agreement__another_best_row() -> None:
    found = records(a={0: 0.90, 1: 0.92}, b={0: 0.99, 1: 0.84}, c={0: 0.7, 1: 0.7})
    text = tables.agreement(question(a=3, b=2, c=1), found, FINE, FIGURES[FINE])
    assert "the paper's best is *way A*; here *way B* is, by 0.5 ± 12.0 (within the spread)" in text
    assert "Spearman +0.50" in text


def test_agreement__differences_are_taken_seed_by_seed() -> None:
    found = records(a={0: 0.6, 1: 0.9}, b={0: 0.5, 1: 0.8, 2: 0.1})
    assert "by 10.0 ± 0.0 (outside the spread)" in tables.agreement(question(a=2, b=1), found, FINE, FIGURES[FINE])
    one = records(a={0: 0.6}, b={0: 0.5})
    assert "one seed: no spread" in tables.agreement(question(a=2, b=1), one, FINE, FIGURES[FINE])
    apart = records(a={0: 0.6}, b={1: 0.5})
    assert "no seed in common" in tables.agreement(question(a=2, b=1), apart, FINE, FIGURES[FINE])


def test_agreement__rows_the_paper_has_not_are_left_out_of_it() -> None:
    found = records(a={0: 0.6}, b={0: 0.5}, c={0: 0.9})
    text = tables.agreement(question(a=2, b=1), found, FINE, FIGURES[FINE])
    assert "way C" not in text
    assert "Spearman" not in text, "of two rows it says no more than the best row"


def test_agreement__without_the_papers_figures() -> None:
    found = records(a={0: 0.6, 1: 0.7}, b={0: 0.5, 1: 0.5})
    text = tables.agreement(question(), found, FINE, FIGURES[FINE])
    assert text == "fine-tuned: best *way A*, worst *way B*; difference 15.0 ± 7.1 (outside the spread)."
    assert tables.agreement(question(), records(a={0: 0.6}), FINE, FIGURES[FINE]) == ""


def test_reading__of_one_seed_has_no_spread() -> None:
    assert "standard deviation" in tables.reading(records(a={0: 1.0, 1: 1.0}, b={0: 1.0}))
    assert "standard deviation" in tables.reading({"a": {}})
    assert "of one seed" in tables.reading(records(a={0: 1.0}, b={0: 1.0}))
    assert "standard deviation" not in tables.reading(records(a={0: 1.0}))


def test_curves__of_one_seed_have_no_band(tmp_path: Path) -> None:
    asked = Question("Which way?", {"a": "way A"}, "", "", {})
    line = {"val/loss": ([1.0, 2.0], [0.5, 0.25])}
    for seeds in (1, 2):
        logged = {"a": {seed: {"fit": line} for seed in range(seeds)}}
        picture = loss_curves.draw(asked, Curve("fit", "loss", "loss"), logged, tmp_path / f"{seeds}", "curves")
        assert picture
        assert ("standard deviation" in picture.text) == (seeds == 2)
