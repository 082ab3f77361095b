"""Int8 graphs and the bench: written by onnxruntime's tools, opened by onnxruntime alone, refused where they lose."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tests.conftest import tiny
from tests.export.judged import images
from tests.training.made import checkpoint, network
from tinymim import data as data_modules
from tinymim.cli import bench_command
from tinymim.cli.main import main
from tinymim.data.sampler import Draw
from tinymim.errors import TinymimError
from tinymim.export import bench, comparison, graphs, int8, judge, network_runs, source
from tinymim.export.export_forms import export_folder
from tinymim.export.model_card import ExportedForm
from tinymim.export.products import plain_products
from tinymim.vit.backbone import Backbone
from tinymim.vit.classifier_head import HeadForm

ARCHITECTURE = tiny(24, 4)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Backbone, Path]]:
    """A classifier's checkpoint, its network, and its int8 export; its graph in float32, which takes seconds, is
    written once for all exports."""
    folder = tmp_path_factory.mktemp("int8")
    made = network(ARCHITECTURE, HeadForm(10))
    path = checkpoint(folder / "made.ckpt", made)
    (folder / "exact").mkdir()
    form, asked = graphs.write_onnx(source.load(str(path)), folder / "exact", plain_products), []

    def write(loaded: source.Source, place: Path, rewrite: Any = None) -> ExportedForm:
        asked.append(rewrite)
        shutil.copytree(folder / "exact", place, dirs_exist_ok=True)
        return copy.deepcopy(form)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "write_onnx", write)
        place = export_folder(
            str(path), "onnx", folder / "out", judged=lambda loaded: int8.Int8(images(), images=20, force=True)
        )
        assert asked == [plain_products]
        yield path, made, place


def test_int8__opens_with_onnxruntime_alone_and_is_a_quarter(exported: tuple[Path, Backbone, Path]) -> None:
    import onnxruntime

    _, made, folder = exported
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    batch = next(images().calibration(5))
    features, _, logits = session.run(None, {"images": batch.numpy()})
    assert logits.shape == (5, 10)
    expected = made.features(batch).detach().numpy()
    cosine = (features * expected).sum(1) / np.linalg.norm(features, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() > 0.98
    import onnx

    graph = onnx.load(folder / "model.onnx").graph
    weights = [t for t in graph.initializer if t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 2]
    assert len(weights) == 4 * made.depth + 1  # q, k, v; projection; two of the MLP; and the classifier
    values = np.concatenate([onnx.numpy_helper.to_array(t).ravel() for t in weights])
    assert values.min() >= -64
    assert values.max() <= 64


def test_int8__each_product_of_weights_is_one_kernel(exported: tuple[Path, Backbone, Path], tmp_path: Path) -> None:
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "run.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(str(exported[2] / "model.onnx"), options, providers=["CPUExecutionProvider"])
    run = Counter(node.op_type for node in onnx.load(tmp_path / "run.onnx").graph.node)
    depth = exported[1].depth
    assert run["QGemm"] == run["QuantizeLinear"] == 4 * depth + 1, "its input is quantised, and its bias added inside"
    assert run["MatMul"] + run["FusedMatMul"] == 2 * depth, "attention's own"
    assert run["Add"] == 2 * depth + 1, "residual connections and positions"
    assert not {"DequantizeLinear", "QLinearMatMul", "MatMulInteger", "Gemm"} & {*run}


def test_card__says_what_int8_costs(exported: tuple[Path, Backbone, Path]) -> None:
    card = (exported[2] / "README.md").read_text()
    assert re.search(r"calibrated on 20 images of digits. On 40 held-out images, .* cosine of the features 0\.99", card)
    assert "few held-out images: 40, each 2.5 points of accuracy" in card
    assert "few images to calibrate on: 20, whose values may not span those of others." in card
    assert re.search(r"10-NN \d+\.\d -> \d+\.\d %, top-1 \d+\.\d -> \d+\.\d %", card)


def test_int8__that_loses_too_much_is_refused_and_leaves_nothing(
    exported: tuple[Path, Backbone, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "LEAST_COSINE", 1.1)
    with pytest.raises(TinymimError, match=r"quantize: int8 loses too much on the 40 held-out images of digits: mean"):
        export_folder(str(exported[0]), "onnx", tmp_path / "out", judged=lambda loaded: int8.Int8(images(), images=5))
    assert list(tmp_path.iterdir()) == []


def test_judge__is_the_vote_of_labelled_neighbours_and_of_the_classifier() -> None:
    digits = images(count=60)

    def pixels(batch: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"features": batch[:, 0].flatten(1), "logits": torch.eye(10)[torch.full((len(batch),), 3)]}

    reading = digits.read(pixels)
    assert reading.features.shape == (60, 256)
    assert reading.figures["10-NN"] > 0.6
    assert 0 < reading.figures["top-1"] < 0.3
    assert reading.cosine(reading) == pytest.approx(1)
    with pytest.raises(TinymimError, match="data: digits has 10 classes, and the classifier of mine 5"):
        digits.check("mine", 5, "leave it out")


def test_judge__calibrates_on_training_images_without_labels_too(tmp_path: Path) -> None:
    for number in range(12):
        Image.new("RGB", (16, 16), (20 * number, 0, 0)).save(tmp_path / f"{number}.png")
    found = judge.find(str(tmp_path), 16)
    held = len(found.data.held_out)
    assert 0 < held < 12
    assert found.calibrates_on(128) == 12 - held
    assert sum(map(len, found.calibration(128))) == 12 - held
    kept = {round(float(image[0, 0, 0] * 255)) for batch in found.calibration(128) for image in batch}
    assert len(kept) == 12 - held, "each training image, and no held-out one"


def test_note__of_few_images_without_labels_speaks_of_no_accuracy(tmp_path: Path) -> None:
    for number in range(4):
        Image.new("RGB", (16, 16), (20 * number, 0, 0)).save(tmp_path / f"{number}.png")
    reading = judge.Reading(torch.eye(4)[:1])
    note = int8.Int8(judge.find(str(tmp_path), 16))._note(reading, reading)
    assert "few held-out images: 1, whose mean cosine says little of others" in note
    assert re.search(r"few images to calibrate on: \d, whose values may not span those of others\.$", note)
    assert "accuracy" not in note


def pictures(folder: Path, count: int) -> str:
    folder.mkdir()
    for number in range(count):
        Image.new("RGB", (16, 16), (20 * number % 256, 0, 0)).save(folder / f"{number}.png")
    return str(folder)


@pytest.mark.parametrize(("count", "held"), [(2, 1), (16, 8), (40, 20), (50, 20)])
def test_judge__of_a_small_folder_holds_out_enough_or_half(count: int, held: int, tmp_path: Path) -> None:
    assert judge.find(pictures(tmp_path / "few", count), 16).judges_on == held


def test_int8__is_not_judged_on_few_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged, loaded = judge.find(pictures(tmp_path / "few", 38), 16), replace(images(), queries=19)
    wanted = (
        r"quantize: .*few has 19 held-out images, and 20 are the least on which a loss is judged; .* or say --force"
    )
    with pytest.raises(TinymimError, match=wanted):
        int8.Int8(judged).write(None, tmp_path)
    with pytest.raises(TinymimError, match="quantize: digits has 19 held-out images"):
        int8.Int8(loaded).write(None, tmp_path)
    for forced in (int8.Int8(judged, force=True), int8.Int8(images(count=20))):
        with pytest.raises(AttributeError):  # of no network, which is what comes next
            forced.write(None, tmp_path)


def test_images__that_judge_nothing_are_the_commands_own_mistake(
    exported: tuple[Path, Backbone, Path], tmp_path: Path, capsys: Any
) -> None:
    single = pictures(tmp_path / "single", 1)
    for name in ("bad", "none"):
        (tmp_path / name).mkdir()
    (tmp_path / "bad" / "a.png").write_text("text")
    told = {
        str(tmp_path / "bad"): "no image of {} can be read; a.png: cannot identify an image",
        str(tmp_path / "none"): "{} ",
        single: "{} has one image, and some are held out of the others; give two or more",
    }
    for folder, words in told.items():
        command = ["export", str(exported[0]), "--to", "onnx", "--quantize", "int8", "--images", folder]
        assert main([*command, "--out", str(tmp_path / "out")]) == 1
        assert f"tinymim export: --images: {words.format(folder)}" in capsys.readouterr().err
        assert main(["bench", str(exported[0]), "--data", folder]) == 1
        assert f"tinymim bench: --data: {words.format(folder)}" in capsys.readouterr().err


def sums(dataset: Any) -> tuple[int, list[float]]:
    """The length of a data set, and its first images as sums of their values."""
    return len(dataset), [float(dataset[Draw(0, index)]["image"].double().sum()) for index in range(5)]


@pytest.mark.parametrize("named", ["folder", "recipe", "digits"])
def test_judge__holds_out_what_the_run_held_out(named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options: dict[str, Any] = {"held_out": 0.4, "split_seed": 5, "fraction": 0.5}
    kind = "DigitsData" if named == "digits" else "ImageFolderData"
    if named != "digits":
        for label in "ab":
            (tmp_path / "images" / label).mkdir(parents=True)
            for number in range(10):
                Image.new("RGB", (16, 16), (20 * number, 0, 0)).save(tmp_path / "images" / label / f"{number}.png")
        options["root"] = str(tmp_path / "images")
    written = {"class_path": f"tinymim.data.{kind}", "init_args": options}
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "config.yaml").write_text(yaml.safe_dump({"data": written}))
    (tmp_path / "other.yaml").write_text(yaml.safe_dump({"data": {**written, "init_args": {"root": "images"}}}))
    source = {"folder": "images", "recipe": "other.yaml", "digits": "digits"}[named]
    own: Any = getattr(data_modules, kind)(image_size=16, num_workers=0, **options)
    own.setup("test")
    judged: Any = judge.find(source, 16, run=tmp_path / "runs" / "mine")
    assert judged.what == f"{source}, divided as in run mine"
    for part in ("held_out", "bank"):
        assert sums(getattr(judged.data, part)) == sums(getattr(own, part)), part
    alone: Any = judge.find(source, 16)
    assert sums(alone.data.held_out) != sums(own.held_out)
    other = judge.find("shapes", 16, run=tmp_path / "runs" / "mine")
    assert other.what == "shapes"


def test_refusal__of_few_images_says_what_each_is_worth() -> None:
    judged = int8.Int8(images(count=24))
    few = judged._remedy(judge.Reading(torch.eye(24), {"10-NN": 0.9}))
    assert few.startswith("Few held-out images: 24, each 4.17 points of accuracy, known to ±20 (95 %): judge on more")
    enough = int8.Int8(images(count=100))._remedy(judge.Reading(torch.eye(100), {"10-NN": 0.9}))
    without_labels = judged._remedy(judge.Reading(torch.eye(24)))
    assert enough == without_labels == "Calibrate on more images like those it will see (--calibration)"


def test_bench__measures_each_form_and_writes_it_down(
    exported: tuple[Path, Backbone, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    path, made, folder = exported
    out = tmp_path / "bench.json"
    assert main([*map(str, ("bench", path, folder, "--seconds", "0.01", "--threads", 1, "--out", out))]) == 0
    assert "ratio" in capsys.readouterr().out
    rows = [
        bench.Measured(
            "student", "onnx int8", 5_500_000, 1.2, 6.3, 15.7, 16.2, 47.8, 2.2, {"10-NN": 0.992, "top-1": 0.99}
        )
    ]
    monkeypatch.setenv("COLUMNS", "80")
    bench_command.print_table(rows)
    told = capsys.readouterr().out
    assert {"images/s", "10-NN", "99.2%", "top-1", "2.2"} <= set(told.split())
    long = replace(rows[0], name="relation_fashion/seed0", parameters=304_000_000, gmacs=61.6, size_mb=1216.9)
    slow = replace(long, latency_p50_ms=1250.5, latency_p95_ms=1310.2, images_per_second=1801, times_the_first=0.0532)
    bench_command.print_table([slow])
    assert {"ratio", "304M", "1217", "1801", "0.0532"} <= set(capsys.readouterr().out.split()), "nothing is cut"
    first, second = json.loads(out.read_text())["networks"]
    assert (first["form"], second["form"]) == ("torch", "onnx int8")
    assert first["parameters"] == second["parameters"] == sum(p.numel() for p in made.parameters())
    # by hand: q, k, v, projection and MLP of each token, both products of attention, the patches and the classifier
    tokens, width, depth = 17, 24, made.depth
    products = depth * (tokens * 12 * width**2 + 2 * tokens**2 * width) + 16 * 48 * width + 10 * width
    assert first["gmacs"] == pytest.approx(products / 1e9)
    assert second["size_mb"] < first["size_mb"] * 2
    assert first["times_the_first"] == 1
    assert 0 < first["latency_p50_ms"] <= first["latency_p95_ms"]
    assert main(["export", str(path), "--to", "timm", "--out", str(tmp_path / "timm"), "--bench", str(out)]) == 0
    card = (tmp_path / "timm" / "README.md").read_text()
    assert f"| onnx int8 | {second['parameters']:,} |" in card
    out.write_text(out.read_text().replace('"form": "torch"', '"form": 3'))
    assert main(["export", str(path), "--to", "timm", "--out", str(tmp_path / "other"), "--bench", str(out)]) == 1
    assert "form" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--quantize", "int8"], "--quantize: int8 is of --to onnx, and this is a file"),
        (["--to", "timm", "--quantize", "int8"], "--quantize: int8 is of --to onnx, and this is --to timm"),
        (["--to", "onnx", "--quantize", "int8"], "--quantize: int8 is calibrated on images; give --images"),
        (["--to", "timm", "--images", "digits"], "--images: only with --to onnx, openvino, torch-export"),
        (["--to", "onnx", "--calibration", "9", "--images", "digits"], "--calibration: only with --quantize int8"),
        (["--to", "onnx", "--force"], "--force: only with --images"),
        (["--to", "onnx", "--quantize", "int8", "--images", "nowhere"], "--images: nowhere is no folder of images"),
        (["--to", "onnx", "--quantize", "int8", "--images", "digits", "--calibration", "0"], "--calibration: 0 is no"),
    ],
)
def test_command__mistakes_in_a_line(
    exported: tuple[Path, Backbone, Path], words: list[str], says: str, tmp_path: Path, capsys: Any
) -> None:
    assert main(["export", str(exported[0]), *words, *(["--out", str(tmp_path / "o")] if "--to" in words else [])]) == 1
    assert says in capsys.readouterr().err


def test_bench__mistakes_in_a_line(exported: tuple[Path, Backbone, Path], tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p/model.pt2").touch()
    small = checkpoint(
        tmp_path / "small.ckpt", network(replace(ARCHITECTURE, options={**ARCHITECTURE.options, "img_size": 8}))
    )
    for words, says in (
        ([tmp_path / "p"], "torch.export runs it as PyTorch does; give the checkpoint"),
        (["nothing"], "no card 'nothing'"),
        ([exported[0], small, "--data", "digits"], "--data: the networks take images of different sizes"),
        ([exported[0], "--seconds", "0"], "--seconds: 0.0 is not between"),
    ):
        assert main(["bench", *map(str, words)]) == 1
        assert says in capsys.readouterr().err


def test_openvino__gives_the_networks_outputs(exported: tuple[Path, Backbone, Path], tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    path, made, _ = exported
    folder = export_folder(str(path), "openvino", tmp_path / "out")
    assert {file.name for file in folder.iterdir()} == {"model.xml", "model.bin", "config.json", "README.md"}
    batch = torch.rand(3, 3, 16, 16)
    run = network_runs.openvino_run(folder / "model.xml", threads=1, exact=True)
    assert torch.allclose(run(batch)["features"], made.features(batch), atol=1e-4)
    assert bench.find(str(folder)).form == "openvino"
