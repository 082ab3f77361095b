"""The page of a run: what it says, that it needs no other file, and how it looks in a browser."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tinymim.cli.main import main
from tinymim.errors import TinymimError
from tinymim.report import runs
from tinymim.report.attention_figure import attention
from tinymim.report.document import Document, Section, Table
from tinymim.teachers import weights
from tinymim.training import lock
from tinymim.training.checkpoint_files import newest
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone

SHORT = ["--trainer.limit_train_batches=3", "--trainer.limit_val_batches=2", "--data.batch_size=16"]
SHORT += ["--trainer.num_sanity_val_steps=0", "--trainer.enable_progress_bar=false", "--trainer.log_every_n_steps=1"]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars --disable-sync"
FLAGS += " --disable-background-networking --disable-component-update"
PHONE = 390


def fit(place: Path, recipe: str, epochs: int, *more: str) -> Path:
    arguments = ["fit", "--config", recipe, "--trainer.max_epochs", str(epochs), "--run_dir", str(place), *SHORT, *more]
    assert main(arguments) == 0
    return place


@pytest.fixture(scope="module")
def relation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = fit(tmp_path_factory.mktemp("runs") / "relation", "relation_digits", 2)
    fit(place.parent / "cls <b>", "cls_digits", 1)
    return place


@pytest.fixture(scope="module")
def page(relation: Path) -> str:
    assert main(["report", str(relation)]) == 0
    return (relation / "report.html").read_text()


def test_the_page_is_whole(page: str, relation: Path) -> None:
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert addresses
    assert all(address.startswith(("data:image/", "#")) for address in addresses)
    assert not re.search(r"@import|url\((?!#f\d+-)", page)
    assert page.count('class="figure narrow"') == page.count('class="figure wide"') == 1, "the headline, for phones too"
    assert page.count("<svg ") == len(set(runs.read(relation).curves) - {"lr/pg1", "lr/pg2"} - val(relation)) + 2
    assert page.count("data:image/png") == 4 * 3  # an image, teacher and student


def val(place: Path) -> set[str]:
    """Held-out curves that share a picture with a training curve."""
    curves = runs.read(place).curves
    return {name for name in curves if name.startswith("val/") and f"train/{name[4:]}" in curves}


def test_it_says_the_figures_and_compares_them(page: str, relation: Path) -> None:
    metrics = runs.read(relation).metrics
    assert f"{metrics['val/knn_top1']:.1%}" in page
    assert f"{metrics['val/loss']:.4f}" in page
    assert "cls &lt;b&gt;" in page  # another run's name is text, not HTML
    assert "<b>/" not in page
    assert "trainer.max_epochs: 2, there 1" in page
    assert "teacher: block 6, CLS token, mean of 6 heads" in page
    assert "digits_mae" in page
    assert "commercial" not in page  # the digits teacher is free


def test_others_are_those_named(relation: Path, tmp_path: Path) -> None:
    other = fit(tmp_path / "relation", "feature_digits", 1)
    assert main(["report", str(relation), str(other), "--out", str(tmp_path / "page.html"), "--count", "0"]) == 0
    text = (tmp_path / "page.html").read_text()
    assert f"{tmp_path.name}/relation" in text  # two runs of one name are told apart
    assert "cls &lt;b&gt;" not in text
    assert "data:image/png" not in text


def test_a_resumed_runs_pieces_are_one_curve(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("name: x")
    (tmp_path / "metrics-1.csv").write_text("step,train/loss\n1,5\n2,4\n")
    (tmp_path / "metrics-2.csv").write_text("step,val/loss,train/loss\n2,,4.5\n3,,2\n")
    (tmp_path / "metrics.csv").write_text("step,train/loss,val/loss\n4,1,\n4,,7\n")
    found = runs.read(tmp_path).curves
    assert found == {"train/loss": ([2, 3, 4, 5], [5, 4.5, 2, 1]), "val/loss": ([5], [7])}, "the log counts from 0"


def small(place: Path, **files: str) -> Path:
    """A run folder without a network, with files of these contents; ``None`` is a folder in the place of a file."""
    place.mkdir(parents=True)
    for name, content in {"config.yaml": "name: x", "results.json": "{}", **files}.items():
        (place / name).write_text(content) if content != "FOLDER" else (place / name).mkdir()
    return place


def test_a_run_that_nobody_is_at_work_on_is_cut_off(tmp_path: Path) -> None:
    place = small(
        tmp_path / "run", **{"results.json": "", "progress.json": '{"state": "running", "epoch": 1, "epochs": 2}'}
    )
    assert runs.read(place).state == f"cut off; `tinymim resume {place}` goes on, 1 of 2 epochs"
    with lock.hold(place, "run_dir"):
        assert runs.read(place).state == "running, 1 of 2 epochs"


DAMAGES = {
    "a cut recipe": {"config.yaml": "model: {class_path: [1"},
    "a recipe of a list": {"config.yaml": "[1]"},
    "a recipe of other types": {"config.yaml": "model: [1]"},
    "options of other types": {"config.yaml": "model: {class_path: 5, init_args: x}"},
    "a text for a number": {"results.json": '{"metrics": {"val/top1": "high"}, "parameters": "many"}'},
    "no mapping": {"results.json": "[1, 2]"},
    "half a file": {"results.json": '{"metrics": {"val/'},
    "a folder for a table": {"metrics.csv": "FOLDER"},
    "no table": {"metrics.csv": "\x00\x01\nstep,\n,,,,"},
    "progress of other types": {"progress.json": '{"epoch": [], "epochs": {}, "seconds": "long"}'},
    "an environment of other types": {"environment.json": '{"packages": 5, "git": [1]}'},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_neighbour_is_left_out_or_shown_as_far_as_it_goes(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = small(tmp_path / "good", **{"results.json": '{"metrics": {"val/top1": 0.5}}'})
    small(tmp_path / "bad", **DAMAGES[damage])
    assert main(["report", str(good), "--count", "0"]) == 0
    assert "50.0%" in (good / "report.html").read_text()
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert len(told.splitlines()) <= 1, told


def test_what_is_away_is_said_on_the_page(relation: Path, tmp_path: Path) -> None:
    place = tmp_path / "moved"
    shutil.copytree(relation, place, symlinks=True)
    recipe = yaml.safe_load((place / "config.yaml").read_text())
    recipe["model"]["init_args"]["teacher"] = str(tmp_path / "gone.ckpt")
    (place / "config.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["report", str(place)]) == 0
    text = html.unescape((place / "report.html").read_text())
    assert "gone.ckpt cannot be shown beside it" in text
    assert text.count("data:image/png") == 4 * 2


def test_images_of_a_folder(relation: Path, tmp_path: Path) -> None:
    for i in range(3):
        Image.fromarray(np.full((50, 70, 3), 80 * i, np.uint8)).save(tmp_path / f"{i}.jpg")
    out = ["--out", str(tmp_path / "page.html")]
    assert main(["report", str(relation), "--images", str(tmp_path), "--count", "2", *out]) == 0
    assert (tmp_path / "page.html").read_text().count("data:image/png") == 2 * 3
    (tmp_path / "empty").mkdir()
    assert main(["report", str(relation), "--images", str(tmp_path / "empty"), *out]) == 0
    assert "empty holds no images" in (tmp_path / "page.html").read_text()


def test_mistakes(tmp_path: Path, relation: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "none")]) == 1
    assert "is no folder; give one that `tinymim fit` wrote" in capsys.readouterr().err
    assert main(["report", str(relation.parent)]) == 1
    assert f"holds 2 runs; name one: {relation.parent}/cls" in capsys.readouterr().err
    with pytest.raises(TinymimError, match=r"has no config\.yaml"):
        runs.read(tmp_path)
    assert main(["report", str(relation), "--count", "-1"]) == 1
    assert main(["report", str(relation), "--images", str(tmp_path / "nosuch")]) == 1
    assert "images: " in (err := capsys.readouterr().err), err
    assert "nosuch is no folder" in err


@pytest.mark.parametrize("prefix", ["CLS", "none"])
def test_a_map_is_the_attention_that_timm_computes(prefix: str) -> None:
    torch.manual_seed(0)
    size = {"img_size": 24, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
    bare = {"class_token": False, "num_classes": 0} if prefix == "none" else {}
    network = Backbone(Architecture(options=size | bare))
    image, seen = torch.rand(3, 24, 24), []
    attn = network.vit.blocks[1].attn
    attn.qkv.weight.data.mul_(20)  # far from uniform
    attn.fused_attn = False
    attn.attn_drop.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    with torch.inference_mode():
        network.eval().vit.forward_features(network.normalise(image[None]))
    (maps,) = seen
    rows = maps[0].mean(0)
    expected = rows[0, 1:] / rows[0, 1:].sum() if prefix == "CLS" else rows.mean(0)
    assert expected.std() > 0.01
    torch.testing.assert_close(attention(network, 2, image).flatten(), expected)


def test_a_teachers_licence_stands_at_the_top(relation: Path, tmp_path: Path) -> None:
    place = tmp_path / "bound"
    shutil.copytree(relation, place, symlinks=True)
    checkpoint = newest(place)
    assert checkpoint
    content = torch.load(checkpoint, weights_only=True)
    content[weights.RECORD]["licence"] = "CC-BY-NC-4.0"
    for path in (place / "checkpoints").iterdir():
        path.unlink()
    torch.save(content, place / "checkpoints" / "last.ckpt")
    assert main(["report", str(place), "--count", "0"]) == 0
    assert "not for commercial use" in (place / "report.html").read_text()


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_in_a_browser(page: str, tmp_path: Path) -> None:
    """No wider than a phone, in colour where curves and maps are, every picture is one; the script tells a value under
    the pointer, and sorts a table by a click."""
    table = Table(["run", "top-1", "time"], [["a", "-", "9:00"], ["b", "9.5%", "0:30"], ["c", "10.5%", "1:00:00"]])
    small = Document("small", [Section("x", tables=[table])]).html()
    script = """
        const [page, small] = [0, 1].map(i => frames[i].document)
        const marks = [...page.querySelectorAll('.values circle')], mark = marks.find(each => each.checkVisibility())
        const box = mark.getBoundingClientRect(), place = {clientX: box.x + 4, clientY: box.y + 4}
        mark.closest('svg').dispatchEvent(new PointerEvent('pointermove', place))
        const orders = [1, 1, 2].map(column => {
            small.querySelectorAll('th')[column].click()
            return [...small.querySelectorAll('tbody td:first-child')].map(cell => cell.textContent).join('')
        })
        const broken = [...page.images].filter(image => !image.naturalWidth).length, tip = page.getElementById('tip')
        document.title = JSON.stringify([page.documentElement.scrollWidth, broken, page.images.length,
                                         tip.hidden ? '' : tip.textContent, orders])
    """
    frames = "".join(
        f'<iframe width={PHONE} height=3000 style="border:0" srcdoc="{html.escape(each)}"></iframe>'
        for each in (page, small)
    )
    phone = tmp_path / "phone.html"
    phone.write_text(f"<!doctype html><title>?</title>{frames}<script>onload = () => {{ {script} }}</script>")
    title = re.search(r"<title>(.*?)</title>", browse(tmp_path, phone, "--dump-dom"))
    assert title
    width, broken, images, tip, orders = json.loads(html.unescape(title[1]))
    assert [width, broken, images] == [PHONE, 0, page.count("<img ")]
    assert re.fullmatch(r".+: .+ at step \d+ \(epoch [\d.]+\)", tip)
    assert orders == ["cba", "bca", "cab"], "largest first, smallest first, hours before minutes"

    desk = tmp_path / "desk.html"
    desk.write_text(page)
    browse(tmp_path, desk, f"--screenshot={tmp_path / 'desk.png'}", "--window-size=1200,2400")
    with Image.open(tmp_path / "desk.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert pixels.shape == (2400, 1200, 3)
    colourful = (pixels.max(-1) - pixels.min(-1) > 60).mean(1)  # by row of pixels
    assert (colourful > 0.1).sum() > 400, "the attention maps"
    assert (abs(pixels - [0, 114, 178]).max(-1) < 30).sum() > 50, "the blue of a held-out curve"


def browse(folder: Path, page: Path, *flags: str) -> str:
    assert CHROMIUM
    command = [CHROMIUM, *FLAGS.split(), f"--user-data-dir={folder / 'profile'}", *flags, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
