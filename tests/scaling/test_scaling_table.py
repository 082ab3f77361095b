"""Tables of runs: what is written is read again, the published one is read, bad ones are refused by line and column."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tinymim.errors import TinymimError
from tinymim.scaling import table
from tinymim.scaling.table import RunRow

PUBLISHED = Path(__file__).parent / "simmim_scaling.csv"
HEADS = "objective,model,parameters,data,images,iterations,validation_loss"


def test_published_table__in_our_units() -> None:
    rows = table.read(PUBLISHED)
    assert len(rows) == 63
    assert rows[0] == RunRow("SimMIM", "S", 49_000_000, "10%", 128_117, 125_000, 0.4820, accuracy=pytest.approx(0.8269))
    assert (rows[-1].model, rows[-1].parameters, rows[-1].images) == ("g", 1_060_000_000, 14_200_000)


def test_written_rows__are_read_again(tmp_path: Path) -> None:
    whole = RunRow("MAE", "ViT-T", 7, "5%, a", 3, 2, 0.1, 1 / 3, 1e-5, 0.875, 1.5e17, 64, 0, "done", None)
    failed = RunRow("MAE", "ViT-T", 7, "5%, a", 3, 4, status="failed", error="stopped:\nno memory")
    table.write(tmp_path / "t.csv", [whole, failed])
    first, second = table.read(tmp_path / "t.csv")
    assert first == whole
    assert math.isnan(second.validation_loss)
    assert (second.status, second.error) == ("failed", "stopped: no memory")
    assert table.done([first, second]) == [first]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty; its first line names the columns"),
        ("# a note\n\n", "is empty"),
        (HEADS + "\n", "line 1: columns, and no run below them"),
        ("model,images\nS,3\n", "line 1: no column objective, parameters, data, iterations, validation_loss; it has"),
        (
            "model;images\nS;3\n",
            "data, images, iterations, validation_loss; ';' stands between them, and a comma should",
        ),
        ("# note\n" + HEADS + "\nMAE,S,5,all,9,many,0.4\n", "line 3, iterations: 'many' is not a number"),
        (HEADS + "\nMAE,S,5,all,9,7,nan\n", "line 2, validation_loss: nan is not a number from 0 to"),
        (HEADS + "\nMAE,S,5.5,all,9,7,0.4\n", "line 2, parameters: 5.5 is not a whole number above 0"),
        (HEADS + "\nMAE,S,5,all,9,7,\n", "line 2, validation_loss: is empty"),
        (HEADS + "\nMAE,S,5,all\n", "line 2: 4 cells under 7 columns"),
        (HEADS + ",accuracy\nMAE,S,5,all,9,7,0.4,83\n", "line 2, accuracy: 83 is above 1; it is a share"),
        (HEADS + ",status\nMAE,S,5,all,9,7,0.4,lost\n", "line 2, status: 'lost' is neither done nor failed"),
        (HEADS + "\nMAE,S,5,all,9,7,0.4\nMAE,S,5,all,9,7,0.5\n", "line 3: the same run as line 2"),
        (
            HEADS + "\nMAE,S,5,all,9,7,0.4\nMAE,S,6,all,9,8,0.5\n",
            "line 3, parameters: model S has 6 here and 5 on line 2",
        ),
        (HEADS + "\nMAE,S,5,all,9,7,0.4\nMAE,B,7,all,8,7,0.5\n", "line 3, images: data all has 8 here and 9 on line 2"),
        (
            HEADS + "\nMAE,S,1e30,all,9,7,0.4\n",
            "line 2, parameters: 1e30 is not a whole number above 0, to 9,007,199,254,740,992",
        ),
        (HEADS + ",seed\nMAE,S,5,all,9,7,0.4,-99999999999999999\n", "line 2, seed: -99999999999999999 is not a whole"),
        (HEADS + "\n" + "".join(f"MAE,S{n},5,all,9,7,0.4\n" for n in range(41)), "model: 41 different ones, and 40"),
        (HEADS + "\n" + "".join(f"O{n},S,5,all,9,7,0.4\n" for n in range(5)), "objective: 5 different ones, and 4"),
        (
            HEADS + "\n" + "".join(f"MAE,S{n % 15},5,d{n // 15},9,7,0.4\n" for n in range(225)),
            "model, data: 225 pairs of them, and 200 are taken; leave some out",
        ),
        (HEADS + "\n" + "MAE,S,5,all,9,7,0.4\n" * 2_000, "has 2,001 lines, and 2,000 are taken"),
        (
            HEADS + f"\nMAE,{'S' * 101},5,all,9,7,0.4\n",
            "model: 'SSSSSSSSSSSSSSSSSSSS'... has 101 characters",
        ),
        (HEADS + ",seed\nMAE,S,5,all,9,7,0.4," + "9" * 5000 + "\n", "999' is not a whole number"),
        (HEADS + ",parameters\nMAE,S,5,all,9,7,0.4,5\n", "line 1: two columns are parameters; keep one of them"),
        (HEADS + ",params_millions\nMAE,S,5,all,9,7,0.4,5\n", "line 1: two columns are parameters"),
        (
            "model,params_millions,data,images,iterations,validation_loss,finetune_top1\nS,49,10%,9,7,0.4,0.83\n",
            "finetune_top1: no run is above 1 per cent; write 83.2 for 83.2 %",
        ),
    ],
)
def test_bad_table__one_line_by_line_and_column(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(TinymimError) as caught:
        table.read(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_several_bad_cells__at_once(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(HEADS + "\nMAE,S,x,all,9,7,y\nMAE,,5,all,9,7,0.4\n")
    with pytest.raises(TinymimError) as caught:
        table.read(path)
    assert [line.strip("- ").split(":")[0] for line in str(caught.value).splitlines()[1:]] == [
        "line 2, parameters",
        "line 2, validation_loss",
        "line 3, model",
    ]


def test_many_bad_lines__the_first_are_told(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(HEADS + "\n" + "MAE;S;5\n" * 500)
    with pytest.raises(TinymimError) as caught:
        table.read(path)
    assert str(caught.value).count("\n") == 21
    assert str(caught.value).endswith("- and 480 more")


def test_no_such_table(tmp_path: Path) -> None:
    with pytest.raises(TinymimError, match="there is no file at"):
        table.read(tmp_path / "none.csv")


def test_names__without_characters_that_do_not_print(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"{HEADS}\nMAE,S\x1b]0;x\x07\u202e,5,all,9,7,0.4\n")
    (row,) = table.read(tmp_path / "t.csv")
    assert row.model == "S]0;x"
