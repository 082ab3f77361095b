"""The command as a whole: what it writes is what measuring by hand gives, and mistakes are said in a line."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pandas import DataFrame

from tests.conftest import tiny
from tests.data.images import write
from tests.training.made import checkpoint, network
from tinymim import files
from tinymim.analysis import agreement, analysis_page, cka, results
from tinymim.cli import analyze_command, main
from tinymim.config import recipe
from tinymim.data import DigitsData
from tinymim.data.image_files import evenly
from tinymim.report import figures
from tinymim.teachers import locate
from tinymim.vit.taps import Tap

IMAGES = 13
BATCH = 8


def run(*arguments: object) -> int:
    return main.main(["analyze", "--device", "cpu", *map(str, arguments)])


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a student of digits_mae in its run folder: of block 6 only q, k and v were trained."""
    folder = tmp_path_factory.mktemp("runs") / "student"
    made = network(tiny(24, 3, depth=6, img_size=32), taps=[Tap(6, name) for name in "qkv"])
    teacher = {"name": "digits_mae", "sha256": files.sha256(locate.locate("digits_mae").card.weights_path())}
    path = checkpoint(folder / "checkpoints/last.ckpt", made, teacher=teacher)
    (folder / "config.yaml").write_text(yaml.safe_dump(recipe.resolve(["--config", "relation_digits"])[0]))
    return path


@pytest.fixture(scope="module")
def analysed(student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an analysis."""
    out = tmp_path_factory.mktemp("out") / "one"
    assert run("digits_mae", student, "--data", "digits", *sizes(), "--out", out) == 0
    return out


def sizes() -> tuple[object, ...]:
    return ("--images", IMAGES, "--batch_size", BATCH)


def digits() -> torch.Tensor:
    data = DigitsData(image_size=32)
    data.prepare()
    return data.held_out.images[evenly(len(data.held_out), IMAGES)]


def table(folder: Path, name: str) -> list[dict[str, Any]]:
    return getattr(results.read(folder), name).to_dict("records")


def test_heads__are_those_of_the_attention_maps(analysed: Path) -> None:
    teacher, _ = locate.locate("digits_mae").load()
    read = teacher.read(digits(), [Tap(2, "q"), Tap(2, "k")])
    q, k = (read[Tap(2, name)].unflatten(-1, (6, 32)).transpose(1, 2) for name in "qk")
    maps = (q @ k.mT / 32**0.5).softmax(-1)[:, :, 1:, 1:].double()
    maps = maps / maps.sum(-1, keepdim=True)
    place = torch.tensor([(row, column) for row in range(8) for column in range(8)], dtype=torch.float64)
    far = 4 * (place[:, None] - place).norm(dim=-1)
    row = next(
        row for row in table(analysed, "heads") if (row["model"], row["block"], row["head"]) == ("digits_mae", 2, 3)
    )
    head = maps[:, 2]
    assert row["distance_px"] == pytest.approx(float((head * far).sum(-1).mean()), rel=1e-5)
    assert row["entropy_nats"] == pytest.approx(float(-(head * head.log()).sum(-1).mean()), rel=1e-5)
    kl = [(head * (head / maps[:, other]).log()).sum(-1).mean() for other in (0, 1, 3, 4, 5)]
    lk = [(maps[:, other] * (maps[:, other] / head).log()).sum(-1).mean() for other in (0, 1, 3, 4, 5)]
    assert row["diversity_kl"] == pytest.approx(float(torch.stack(kl + lk).mean()), rel=1e-4)
    assert row["images"] == IMAGES


def test_cka_and_relations__are_those_of_the_networks(analysed: Path, student: Path) -> None:
    networks = {"digits_mae": locate.locate("digits_mae").load()[0], "student": locate.locate(str(student)).load()[0]}
    both, pair = cka.CKA(networks), agreement.Agreement(*networks.values())
    for images in digits().split(BATCH):
        grams = {}
        for name, one in networks.items():
            taps = [Tap(block, "ffn_post") for block in range(1, one.output_block + 1)]
            read = one.read(images, taps)
            grams[name] = [cka.gram(read[tap], 1) for tap in taps]
        both.add(grams)
        pair.add(images)
    found = {
        (row["model_a"], row["block_a"], row["model_b"], row["block_b"]): row["cka"] for row in table(analysed, "cka")
    }
    assert found["digits_mae", 4, "student", 2] == pytest.approx(float(both.matrix("digits_mae", "student")[3, 1]))
    assert len(found) == 6 * 6 + 6 * 5 + 5 * 5, "block 6 of the student gives out what nothing has trained"
    expected = {(row["relation"], row["teacher_block"], row["student_block"]): row["kl"] for row in pair.records()}
    rows = table(analysed, "relations")
    assert {(row["relation"], row["teacher_block"], row["student_block"]): row["kl"] for row in rows} == pytest.approx(
        expected
    )
    assert {(row["teacher"], row["student"]) for row in rows} == {("digits_mae", "student")}


def test_untrained_blocks__are_left_out_and_named(analysed: Path) -> None:
    found = results.read(analysed)
    assert set(found.heads_of("student")["block"]) == {1, 2, 3, 4, 5, 6}
    assert set(found.cka["block_b"][found.cka["model_b"] == "student"]) == {1, 2, 3, 4, 5}
    assert "student: the outputs of block 6 left out, which nothing has trained" in found.about["notes"]
    assert "Student: the outputs of block 6 left out" in (analysed / analysis_page.NAME).read_text()


def test_about__says_what_was_measured_on_what(analysed: Path) -> None:
    about = json.loads((analysed / results.ABOUT).read_text())
    teacher, student = about["models"]
    assert teacher["sha256"] == files.sha256(locate.locate("digits_mae").card.weights_path())
    assert (student["taught_by_sha256"], student["distilled_blocks"]) == (teacher["sha256"], [[6, 6]])
    assert about["options"]["heads"] == {"cls": "drop", "kl": "both"}
    assert about["options"]["relations"]["cls"] == "keep"
    assert about["images"] == {"what": "13 of 360 held-out images of digits", "used": 13, "unreadable": []}
    assert about["environment"]["packages"]["torch"]


def test_page__needs_no_other_file(analysed: Path) -> None:
    text = (analysed / analysis_page.NAME).read_text()
    assert not re.search(r'src="(?!data:)', text)
    linked = re.findall(r'href="(?!#|data:)([^"]+)"', text)
    assert linked
    assert all((analysed / name).is_file() for name in linked)
    assert "A frame marks the pair of blocks that was distilled" in text
    assert "At the distilled pair of student (teacher's block 6, student's 6)" in text
    assert "Licence of student: CC-BY-NC-4.0: not for commercial use" in text
    assert "arXiv 2205.13543" in text


def test_sections__link_to_their_files_from_a_page_elsewhere(analysed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "save", lambda drawn, stem: b"")  # they lie there already
    made = analysis_page.sections(analysed, analysed.parent / "report")
    titles = [section.title for section in made]
    assert titles == [
        "Attention distance",
        "Attention entropy",
        "Head diversity",
        "Likeness of blocks (CKA)",
        "Relation agreement",
        "The models",
    ]
    assert made[0].pictures[0].files == ["../one/figures/distance_heads.png", "../one/figures/distance_heads.svg"]
    assert made[0].tables[0].files == ["../one/heads.csv"]


def test_again__gives_the_same_bytes_and_nothing_of_before_is_left(
    analysed: Path, student: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    again.mkdir()
    (again / "cka.csv").write_text("of before")
    (again / "analysis.json").write_text("{}")
    chosen = ("--measures", "heads,relations", "--relations", "vv")
    assert run("digits_mae", student, "--data", "digits", *sizes(), *chosen, "--out", again) == 0
    assert not (again / "cka.csv").exists()
    assert (again / "heads.csv").read_bytes() == (analysed / "heads.csv").read_bytes()
    assert table(again, "relations") == [row for row in table(analysed, "relations") if row["relation"] == "vv"]
    drawn = sorted(path.name for path in (again / "figures").glob("*.svg"))
    assert len(drawn) == 7
    for name in drawn:
        assert (again / "figures" / name).read_bytes() == (analysed / "figures" / name).read_bytes(), name


def test_csv__numbers_read_back_as_they_were(tmp_path: Path) -> None:
    rows = [{"model": "1", "block": 2, "cka": 0.1 + 0.2}, {"model": "b", "block": 3, "cka": float("nan")}]
    results.AnalysisResults({}, heads=DataFrame(rows)).write(tmp_path)
    read = table(tmp_path, "heads")
    assert read[0] == rows[0]
    assert read[1]["cka"] != read[1]["cka"]
    with (tmp_path / "heads.csv").open() as stream:
        assert next(csv.reader(stream)) == ["model", "block", "cka"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["timm:resnet50"], "models: resnet50 has no attention, so there are no heads to look at"),
        (["digits_may"], "models: no card 'digits_may'; near it: digits_mae"),
        (["mae_vitb16"], "the weights of mae_vitb16 are not here"),
        (["a=nothing.ckpt", "b=digits_may"], "models:\n  - no weights file at nothing.ckpt"),
        (["digits_mae", "digits_mae"], "models: several are called digits_mae; give them titles: digits_mae=MODEL"),
        (["=digits_mae"], "models: '=digits_mae' is not TITLE=MODEL"),
        (["digits_mae", "--data", "nowhere"], "data: nowhere is no folder of images, neither digits nor shapes"),
        (["digits_mae", "--data", "empty"], "data: no images in empty: looked for .jpg"),
        (["digits_mae", "--data", "broken"], "data: no image of 1 can be read, from a.png on"),
        (
            ["digits_mae", "--data", "relation_vits"],
            "data: relation_vits cannot be used; a folder of images is named by",
        ),
        (["digits_mae", "--teacher", "x"], "teacher: none of the models is 'x'; there is digits_mae"),
        (["digits_mae", "--batch_size", "3"], "batch_size: 3 is not 4 or more, which CKA needs"),
        (["digits_mae", "--relations", "qx"], "relations: ['qx'] is not pairs of q, k, v"),
        (["digits_mae", "bare.ckpt", "--tokens", "cls"], "cka.tokens: cls, but bare has no CLS token"),
        (["digits_mae", "--device", "gpu"], "device: 'gpu' is no device"),
        (["digits_mae", "--device", "meta"], "device: meta cannot be used"),
        (["digits_mae", "--out", "mine"], "out: mine holds notes.txt, which no analysis wrote; give another folder"),
        (["digits_mae", "--out", "bare.ckpt"], "out: bare.ckpt is a file; give a folder"),
    ],
)
def test_mistakes__are_one_line_and_leave_nothing(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "broken", "mine"):
        Path(folder).mkdir()
    Path("broken/a.png").write_text("no image")
    Path("mine/notes.txt").write_text("mine")
    checkpoint(Path("bare.ckpt"), network(tiny(24, 3, class_token=False, global_pool="avg")))
    before = sorted(tmp_path.rglob("*"))
    if "--data" not in arguments:
        arguments = [*arguments, "--data", "digits"]
    assert run(*arguments, "--images", 4) == 1
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert sorted(tmp_path.rglob("*")) == before


def test_ctrl_c__leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "out"
    out.mkdir()
    (out / "analysis.json").write_text("before")
    monkeypatch.setattr(analyze_command, "measure", interrupted)
    assert run("digits_mae", "--data", "digits", "--out", out) == 130
    assert "tinymim analyze: stopped by SIGINT; nothing is left half written" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["analysis.json"]


@pytest.mark.parametrize(
    ("files", "named"),
    [(["index.html", "heads.csv"], "heads.csv"), (["analysis.json", "figures/mine.pdf"], "figures/mine.pdf")],
)
def test_out__of_somebody_elses_files_is_refused(
    files: list[str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert run("digits_mae", "--data", "digits", "--out", tmp_path) == 1
    assert f"holds {named}, which no analysis wrote" in capsys.readouterr().err
    assert all((tmp_path / name).exists() for name in files)


def test_folder__unreadable_images_are_named_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(5):
        write(tmp_path / f"images/{number}.png", seed=number)
    (tmp_path / "images/2.png").write_bytes(b"no image")
    out = tmp_path / "out"
    assert run("random:digits_mae", "--data", tmp_path / "images", "--measures", "relations", "--out", out) == 0
    assert "unreadable, left out: 2.png: cannot identify an image: it is a text" in capsys.readouterr().err
    about = results.read(out).about
    assert about["images"]["used"] == 4
    assert about["images"]["unreadable"] == ["2.png"]
    assert about["notes"] == ["relation agreement: left out, it takes two models"]
    assert "1 unreadable images were passed over: 2.png." in (out / analysis_page.NAME).read_text()


def test_image_size__positions_are_resampled_and_the_page_says_so(
    student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, few = tmp_path / "out", ("--data", "digits", "--images", 4, "--batch_size", 4)
    assert run("digits_mae", student, *few, "--image_size", 48, "--out", out) == 0
    about = json.loads((out / "analysis.json").read_text())
    assert [model["grid"] for model in about["models"]] == [[12, 12], [12, 12]]
    assert "digits_mae: positions resampled from 8x8 patches to 12x12" in about["notes"]
    assert about["options"]["image_size"] == 48
    assert "positions resampled" in (out / analysis_page.NAME).read_text()
    assert run("digits_mae", "timm:vit_tiny_patch16_224", *few, "--image_size", 50) == 1
    assert "image_size: 50 is no multiple of the backbone's 4x4 px patches" in capsys.readouterr().err
