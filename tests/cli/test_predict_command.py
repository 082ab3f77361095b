"""Features and classes of any folder of images, without a recipe."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.conftest import tiny
from tests.data.images import write
from tests.training.made import NAMES, checkpoint, network
from tinymim.cli import main
from tinymim.cli.predict_command import predict
from tinymim.data.transforms import PlainView
from tinymim.errors import TinymimError
from tinymim.export.export_forms import export_folder
from tinymim.training import predictions
from tinymim.vit.backbone import Backbone
from tinymim.vit.classifier_head import HeadForm
from tinymim.vit.taps import Tap

RELATIVE = ["a.png", "deep/c.png", "deep/er/b.png", "z.png"]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for number, name in enumerate(reversed(RELATIVE)):
        write(tmp_path / "images" / name, seed=number)
    return tmp_path / "images"


def views(folder: Path, names: list[str] = RELATIVE) -> Tensor:
    return torch.stack([PlainView(16)(Image.open(folder / name).convert("RGB"))["image"] for name in names]) / 255


def student(folder: Path) -> tuple[Backbone, str]:
    made = network(tiny(24, 4), taps=[Tap(3, "q")])
    return made, str(checkpoint(folder / "student.ckpt", made))


def classifier(folder: Path, **record: Any) -> tuple[Backbone, str]:
    made = network(tiny(24, 4), HeadForm(3))
    return made, str(checkpoint(folder / "tuned.ckpt", made, **record))


def features(made: Backbone, pictures: Tensor) -> np.ndarray:
    with torch.no_grad():
        tokens = made.read(pictures, [Tap(2, "ffn_post")])[Tap(2, "ffn_post")]
    return tokens[:, 1:].mean(dim=1).numpy()


def close(one: Any, other: Any) -> bool:
    return np.allclose(np.asarray(one), np.asarray(other), atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.parametrize("ending", [".parquet", ".npz"])
def test_features__of_nested_folders_by_path(ending: str, batch_size: int, images: Path, tmp_path: Path) -> None:
    made, source = student(tmp_path)
    out = tmp_path / f"new/features{ending}"
    arguments = ["predict", source, "--images", str(images), "--out", str(out), "--batch_size", str(batch_size)]
    assert main.main([*arguments, "--num_workers", "0", "--device", "cpu", "--precision", "32-true"]) == 0
    if ending == ".npz":
        table = np.load(out)
        paths, values = table["path"].tolist(), table["features"]
        assert values.dtype == np.float32
    else:
        stored = pq.read_table(out)
        paths, values = stored["path"].to_pylist(), stored["features"].to_pylist()
        assert str(stored.schema.field("features").type) == "fixed_size_list<element: float>[24]"
    assert paths == RELATIVE
    assert close(values, features(made, views(images)))
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_features__of_a_block_and_the_cls_token(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, source = student(tmp_path)
    predict(source, images, tmp_path / "out.npz", block=3, pool="cls", precision="32-true")
    with torch.no_grad():
        expected = made.read(views(images), [Tap(3, "ffn_post")])[Tap(3, "ffn_post")][:, 0]
    assert close(np.load(tmp_path / "out.npz")["features"], expected)
    said = capsys.readouterr().err
    assert "block 3 was not trained whole; the output block is 2" in said
    assert "24 features (block 3, CLS token) of 4 images" in said


def test_precision__bf16_is_near(images: Path, tmp_path: Path) -> None:
    made, source = student(tmp_path)
    predict(source, images, tmp_path / "out.npz", precision="bf16")
    found, expected = np.load(tmp_path / "out.npz")["features"], features(made, views(images))
    assert 1e-5 < np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
    assert found.dtype == np.float32


@pytest.mark.parametrize("ending", [".parquet", ".npz"])
@pytest.mark.parametrize("names", [NAMES, None])
def test_classes__with_their_names_where_known(
    names: list[str] | None, ending: str, images: Path, tmp_path: Path
) -> None:
    made, source = classifier(tmp_path, **({"classes": names} if names else {}))
    out = tmp_path / f"out{ending}"
    predict(source, images, out, classes=True, precision="32-true")
    with torch.no_grad():
        expected = made.read(views(images), [Tap(3, "logits")])[Tap(3, "logits")].softmax(-1).numpy()
    table = dict(np.load(out)) if ending == ".npz" else pq.read_table(out).to_pydict()
    labels = expected.argmax(axis=1)
    assert list(table) == ["path", "label", *(["class"] if names else []), "probability", "probabilities"]
    assert list(table["label"]) == labels.tolist()
    assert close(table["probability"], expected.max(axis=1))
    assert close(list(table["probabilities"]), expected)
    if names:
        assert list(table["class"]) == [NAMES[label] for label in labels]


def test_source__a_folder_exported_for_timm(images: Path, tmp_path: Path) -> None:
    _, source = classifier(tmp_path, classes=NAMES)
    folder = export_folder(source, "timm", tmp_path / "exported")
    for name in (source, str(folder)):
        predict(name, images, tmp_path / f"{Path(name).name}.npz", classes=True)
    one, other = (np.load(tmp_path / f"{name}.npz") for name in ("tuned.ckpt", "exported"))
    assert close(one["probabilities"], other["probabilities"])
    assert one["class"].tolist() == other["class"].tolist()


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_images__are_named_and_left_out(
    workers: int, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "b [bold].jpg").write_bytes(b"no image")
    (images / "deep/short.png").write_bytes((images / "z.png").read_bytes()[:300])
    made, source = student(tmp_path)
    arguments = ["predict", source, "--images", str(images), "--out", str(tmp_path / "out.npz"), "--batch_size", "2"]
    assert main.main([*arguments, "--num_workers", str(workers), "--precision", "32-true"]) == 0
    table = np.load(tmp_path / "out.npz")
    assert table["path"].tolist() == RELATIVE
    assert close(table["features"], features(made, views(images)))
    said = capsys.readouterr().err
    assert "unreadable, left out: b [bold].jpg: cannot identify an image: it is a text" in said
    assert "unreadable, left out: deep/short.png: " in said
    assert "of 4 images" in said
    assert said.rstrip().endswith("; 2 unreadable, left out")


def test_names__that_are_no_utf8(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    write(folder / "ok.png").rename(folder / os.fsdecode(b"odd\xff.png"))
    _, source = student(tmp_path)
    for ending in (".parquet", ".npz"):
        predict(source, folder, tmp_path / f"out{ending}")
    assert pq.read_table(tmp_path / "out.parquet")["path"].to_pylist() == [r"odd\xff.png"]
    assert np.load(tmp_path / "out.npz")["path"].tolist() == [r"odd\xff.png"]


def test_parquet__is_written_in_groups_as_rows_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions, "ROWS", 4)
    alive: list[int] = []

    def batches() -> Any:
        for start in range(0, 15, 3):
            written = sum(path.stat().st_size for path in tmp_path.iterdir())
            alive.append(written)
            yield {"n": np.arange(start, start + 3), "v": np.ones((3, 100), dtype=np.float32)}

    predictions.write_table(tmp_path / "out.parquet", batches())
    stored = pq.ParquetFile(tmp_path / "out.parquet")
    assert [stored.metadata.row_group(i).num_rows for i in range(stored.num_row_groups)] == [6, 6, 3]
    assert stored.read()["n"].to_pylist() == list(range(15))
    assert alive[0] == 0
    assert alive[2] > 0, "rows are on disk before the next are asked for"


@pytest.mark.parametrize("ending", [".parquet", ".npz"])
def test_cut_off__leaves_what_was_there(ending: str, tmp_path: Path) -> None:
    out = tmp_path / f"out{ending}"
    out.write_text("before")

    def batches() -> Any:
        yield {"n": np.arange(3)}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predictions.write_table(out, batches())
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    assert out.read_text() == "before"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out": "out.csv"}, "out: out.csv ends in neither .npz nor .parquet, which choose the form"),
        ({"images": "nowhere"}, "images: nowhere is no folder"),
        ({"images": "empty"}, "images: no images in empty: looked for .jpg"),
        ({"images": "broken"}, "images: none of the 1 can be read, from a.jpg on"),
        ({"out": "there.npz"}, "out: there.npz is there already; give another, or --overwrite"),
        ({"out": "student.ckpt/out.npz"}, "out: student.ckpt/out.npz cannot be written ("),
        ({"block": "9"}, "block 9 is outside vit_tiny_patch16_224: it has blocks 1 to 3"),
        ({"classes": None}, "student.ckpt has no classifier, so it has no logits"),
        ({"classes": None, "block": "2"}, "--block, --pool: of features, and --classes writes none"),
        ({"num_workers": "-1"}, "num_workers: -1 is not from 0 to "),
        ({"num_workers": "5000"}, "num_workers: 5000 is not from 0 to "),
        ({"device": "gpu"}, "device: 'gpu' is no device; cpu, cuda"),
    ],
)
def test_mistakes(
    options: dict[str, str | None],
    message: str,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    student(tmp_path)
    for folder in ("empty", "broken"):
        Path(folder).mkdir()
    Path("broken/a.jpg").write_text("no image")
    Path("there.npz").write_text("mine")
    before = sorted(path.name for path in tmp_path.iterdir())
    given = {"images": "images", "out": "out.npz", "num_workers": "0", **options}
    flags = [part for name, value in given.items() for part in (f"--{name}", *([value] if value else []))]
    assert main.main(["predict", "student.ckpt", *flags]) == 1
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert Path("there.npz").read_text() == "mine"


def test_passed_over__is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    student(tmp_path)
    for name in ("a.png", "b.tif", "c.txt"):
        write(tmp_path / f"images/{name.replace('txt', 'png')}")
    (tmp_path / "images/c.png").rename(tmp_path / "images/c.txt")
    predict(str(tmp_path / "student.ckpt"), tmp_path / "images", tmp_path / "out.npz")
    said = capsys.readouterr().err
    assert f"images: 1 image of other kinds in {tmp_path}/images is not read (1 .tif)" in said
    assert f"images: 1 file in .txt in {tmp_path}/images is not read, and c.txt begins as an image does" in said
    with pytest.raises(SystemExit):
        main.main(["predict", "student.ckpt", "--images", ""])
    assert "no folder is named, or a variable that holds its name is empty" in capsys.readouterr().err


def test_recipe_form__is_still_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["predict", "--config", "relation_digits"]) == 1
    assert "ckpt_path: name a checkpoint" in capsys.readouterr().err


def test_error__of_an_image_that_does_not_fit_is_ours(tmp_path: Path) -> None:
    made = network(tiny(24, 4, img_size=(16, 8)))
    source = str(checkpoint(tmp_path / "it.ckpt", made))
    write(tmp_path / "images/a.png")
    with pytest.raises(TinymimError, match="checkpoint: it takes images of 16x8 px"):
        predict(source, tmp_path / "images", tmp_path / "out.npz")
