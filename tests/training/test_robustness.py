"""`tinymim test` on ImageNet's test sets, in tiny folders of their layouts, and under corruptions."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

from tests.conftest import tiny
from tests.data.images import write
from tests.methods.test_distillation import NoiseData, trainer
from tinymim.cli.main import main
from tinymim.data import DigitsData, imagenet_variants
from tinymim.data.corruption_error import corruption_errors
from tinymim.data.corruptions import corrupt
from tinymim.data.sampler import Draw
from tinymim.tasks import Classifier

INFO = resources.files("timm.data._info")
SYNSETS = INFO.joinpath("imagenet_synsets.txt").read_text().split()
INDICES = {
    name: [int(one) for one in INFO.joinpath(f"imagenet_{name}_indices.txt").read_text().split()] for name in "ar"
}

# AlexNet's errors by severity; their means are what is published
ALEXNET = """
gaussian_noise 0.69528 0.82542 0.93554 0.98138 0.99452
shot_noise 0.71224 0.85108 0.93574 0.98182 0.99146
impulse_noise 0.78374 0.89808 0.94870 0.98720 0.99548
defocus_blur 0.65624 0.73202 0.85036 0.91364 0.94714
glass_blur 0.64308 0.75054 0.88806 0.91622 0.93344
motion_blur 0.58430 0.70048 0.82108 0.89750 0.92638
zoom_blur 0.70008 0.76992 0.80784 0.84198 0.87198
snow 0.71726 0.88392 0.86468 0.91870 0.94952
frost 0.61390 0.79734 0.88790 0.89942 0.93430
fog 0.67474 0.76050 0.84378 0.87260 0.94500
brightness 0.45140 0.48502 0.54048 0.62166 0.72440
contrast 0.64548 0.76150 0.88874 0.97760 0.99270
elastic_transform 0.52596 0.70116 0.55686 0.64076 0.80554
pixelate 0.52218 0.54620 0.73728 0.87092 0.91262
jpeg_compression 0.51002 0.54718 0.57294 0.65458 0.74778
"""
BY_SEVERITY = {line.split()[0]: [float(x) for x in line.split()[1:]] for line in ALEXNET.strip().splitlines()}


def network(folder: Path, name: str, classes: int, size: int = 16, seed: int = 0) -> Path:
    """A checkpoint of random weights whose answers differ from image to image."""
    torch.manual_seed(seed)
    options = {**tiny(24, 3).options, "img_size": size, "patch_size": size // 4}
    architecture = {"arch": tiny(24, 3).arch, "options": options}
    recipe = {
        "name": name,
        "run_dir": str(folder / name),
        "seed_everything": 0,
        "trainer": {"accelerator": "cpu", "enable_progress_bar": False},
        "model": {"class_path": "tinymim.modules.Classifier", "init_args": {"architecture": architecture}},
        "data": {"class_path": "tinymim.data.DigitsData", "init_args": {"image_size": size}},
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
    module = Classifier(
        architecture=tiny(24, 3, **{k: options[k] for k in ("img_size", "patch_size")}), num_classes=classes
    )
    data = NoiseData()
    data.image_size = size
    runner = trainer(folder, max_epochs=0)
    runner.fit(module, datamodule=data)
    torch.nn.init.normal_(module.net.head.weight, std=5)
    runner.save_checkpoint(folder / name / "checkpoints" / "last.ckpt")
    return folder / f"{name}.yaml"


def sharp(path: Path, seed: int) -> None:
    """Coloured noise; images differ much, so answers do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((40, 50), Image.Resampling.NEAREST).save(path, "JPEG")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The five test sets, and two classifiers."""
    folder, seed = tmp_path_factory.mktemp("sets"), 0
    layouts = {"val": SYNSETS[:6], "v2": ["0", "1", "2", "10", "100", "999"]}
    layouts |= {name: [SYNSETS[one] for one in INDICES[name][3:200:40]] for name in "ar"}
    places = [f"{'imagenet/' * (name == 'val')}{name}/{one}" for name, classes in layouts.items() for one in classes]
    places += [f"c/{name}/{severity}/{SYNSETS[7]}" for name in BY_SEVERITY for severity in range(1, 6)]
    for place in places:
        for file in ("x.JPEG", "y.JPEG"):
            sharp(folder / place / file, seed := seed + 1)
    network(folder, "thousand", 1000)
    network(folder, "ten", 10)
    return folder


def run_test(folder: Path, *arguments: str, name: str = "thousand") -> int:
    recipes = ["--config", str(folder / f"{name}.yaml"), "--config", "parts/robustness"]
    small = ["--data.image_size=16", "--data.num_workers=0", "--data.batch_size=5"]
    return main(["test", *recipes, *small, "--ckpt_path", "last", *arguments])


@pytest.fixture(scope="module")
def module(folder: Path) -> Classifier:
    """The classifier of 1000 classes, loaded by hand."""
    module = Classifier(architecture=tiny(24, 3), num_classes=1000)
    trainer(folder, max_epochs=0).fit(module, datamodule=NoiseData())
    path = folder / "thousand" / "checkpoints" / "last.ckpt"
    module.load_state_dict(torch.load(path, weights_only=True)["state_dict"])
    return module.eval()


def view(path: Path, shorter: int) -> Tensor:
    """Shorter side to so many pixels, then the middle 16 x 16."""
    image = Image.open(path).convert("RGB")
    width, height = image.size
    scale = shorter / min(width, height)
    image = image.resize((int(width * scale), int(height * scale)), Image.Resampling.BICUBIC)
    left, top = round((image.width - 16) / 2), round((image.height - 16) / 2)
    pixels = np.asarray(image.crop((left, top, left + 16, top + 16)), dtype=np.float32)
    return torch.from_numpy(pixels.transpose(2, 0, 1) / 255)


def accuracy(module: Classifier, folder: Path, label: Any, among: list[int], shorter: int = 18) -> float:
    """By hand: an answer is the class of the largest logit ``among`` those that compete."""
    right = []
    for path in sorted(folder.glob("*/*.JPEG")):
        with torch.no_grad():
            logits = module(view(path, shorter)[None])[0].tolist()
        right.append(max(among, key=lambda one: logits[one]) == label(path.parent.name))
    return sum(right) / len(right)


def relabelled(module: Classifier, folder: Path, among: list[int], shorter: int = 18) -> dict[str, int]:
    """What it answers to the first image of each class folder."""
    found = {}
    for place in sorted(folder.iterdir()):
        with torch.no_grad():
            logits = module(view(place / "x.JPEG", shorter)[None])[0].tolist()
        found[place.name] = max(among, key=lambda one: logits[one])
    return found


@pytest.fixture(scope="module")
def tested(folder: Path, module: Classifier) -> dict[str, Any]:
    """All five sets; two files are moved to where the classifier would have them, so that some answers are right."""
    for name, among in (("a", INDICES["a"]), ("r", INDICES["r"]), ("imagenet/val", range(1000)), ("v2", range(1000))):
        answers = relabelled(module, folder / name, list(among))
        for place, answer in list(answers.items())[:2]:
            target = folder / name / (str(answer) if name == "v2" else SYNSETS[answer])
            target.mkdir(exist_ok=True)
            (folder / name / place / "x.JPEG").rename(target / f"{place}.JPEG")
    for place in (folder / "c").glob("*/[12]"):
        (answer,) = relabelled(module, place, list(range(1000)), shorter=16).values()
        target = place / SYNSETS[answer]
        target.mkdir(exist_ok=True)
        (place / SYNSETS[7] / "x.JPEG").rename(target / "z.JPEG")
    (folder / "r" / SYNSETS[INDICES["r"][3]] / "broken.JPEG").write_bytes(b"no image")
    assert run_test(folder, f"--data.imagenet_c={folder / 'c'}") == 0  # every corruption, and few of the classes
    partial = json.loads((folder / "thousand" / "test.json").read_text())
    assert "mce" not in partial["report"]["imagenet_c"]
    assert any("partial, so no mCE; not whole: its 1000 classes" in note for note in partial["definitions"])
    paths = {"imagenet": "imagenet", "imagenet_v2": "v2", "imagenet_a": "a", "imagenet_r": "r", "imagenet_c": "c"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(imagenet_variants, "CLASSES", 1)
        assert run_test(folder, *(f"--data.{name}={folder / path}" for name, path in paths.items())) == 0
    return json.loads((folder / "thousand" / "test.json").read_text())


@pytest.mark.parametrize(("name", "place"), [("imagenet", "imagenet/val"), ("imagenet_v2", "v2")])
def test_accuracy__of_all_classes(name: str, place: str, tested: Any, module: Classifier, folder: Path) -> None:
    label = int if name == "imagenet_v2" else SYNSETS.index
    expected = accuracy(module, folder / place, label, list(range(1000)))
    assert 0 < expected < 1
    assert tested["sets"][name]["top1"] == tested["report"][name]["top1"] == pytest.approx(expected)
    assert tested["sets"][name]["images"] == 12


@pytest.mark.parametrize("name", ["a", "r"])
def test_accuracy__within_the_two_hundred(name: str, tested: Any, module: Classifier, folder: Path) -> None:
    broken = folder / "r" / SYNSETS[INDICES["r"][3]] / "broken.JPEG"
    broken.unlink(missing_ok=True)
    expected = accuracy(module, folder / name, SYNSETS.index, INDICES[name])
    assert 0 < expected != accuracy(module, folder / name, SYNSETS.index, list(range(1000)))
    found = tested["sets"][f"imagenet_{name}"]
    assert found["top1"] == pytest.approx(expected)
    assert (found["images"], found["unreadable"]) == (10, int(name == "r"))


def test_mce__by_hand(tested: Any, module: Classifier, folder: Path) -> None:
    ratios, means = [], []
    for name, alexnet in BY_SEVERITY.items():
        errors = [
            1 - accuracy(module, folder / "c" / name / str(severity), SYNSETS.index, list(range(1000)), shorter=16)
            for severity in range(1, 6)
        ]
        assert [tested["report"]["imagenet_c"]["errors"][name][str(s)] for s in range(1, 6)] == pytest.approx(errors)
        ratios.append(sum(errors) / sum(alexnet))
        means.append(sum(errors) / 5)
    found = tested["report"]["imagenet_c"]
    assert found["mce"] == pytest.approx(sum(ratios) / 15, rel=1e-5)
    assert found["mean_error"] == pytest.approx(sum(means) / 15)
    assert found["images"] == 150


def test_report__has_the_papers_columns_and_says_what_is_partial(tested: Any, folder: Path) -> None:
    text = (folder / "thousand" / "test.md").read_text()
    for head in ("IN-1K ↑", "IN-A ↑", "IN-R ↑", "IN-C mCE ↓", "IN-V2 ↑"):
        assert head in text
    assert "IN-C: no resizing at 224" in text
    assert "of its 200 classes are in the folder" in text
    assert "1 files could not be read" in text
    assert tested["checkpoint"].endswith("last.ckpt")


def test_corruptions__that_are_not_whole_give_no_mce(folder: Path, tmp_path: Path, capsys: Any) -> None:
    for severity in (1, 2):
        write(tmp_path / "c" / "blur" / "zoom_blur" / str(severity) / SYNSETS[3] / "1.jpg")
    assert run_test(folder, f"--data.imagenet_c={tmp_path / 'c'}", f"--run_dir={folder / 'thousand'}") == 0
    said = capsys.readouterr().out
    assert "partial, so no mCE; not whole: gaussian_noise" in said
    assert "mCE ↓" not in said
    report = json.loads((folder / "thousand" / "test.json").read_text())["report"]["imagenet_c"]
    assert set(report["errors"]["zoom_blur"]) == {"1", "2"}
    assert "mce" not in report


def test_limit__of_batches_is_of_each_set(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = [f"--data.imagenet={folder / 'imagenet'}", f"--data.imagenet_v2={folder / 'v2'}"]
    assert run_test(folder, *both, "--trainer.limit_test_batches=1") == 0
    sets = json.loads((folder / "thousand" / "test.json").read_text())["sets"]
    assert {name: one["images"] for name, one in sets.items()} == {"imagenet": 5, "imagenet_v2": 5}
    assert "limited: 10 of 24 images were tested" in capsys.readouterr().out


WRONG = {
    "no set": ([], "no test set is named; give a folder with one of --data.imagenet"),
    "no folder": (["--data.imagenet_a=nowhere"], "data.imagenet_a: nowhere is no folder"),
    "other classes": (["--data.imagenet_a={}/imagenet/val"], "of IN-A are synsets such as n01498041"),
    "indices": (["--data.imagenet={}/v2"], "classes named 0, 1, 10 and"),
    "no corruption": (["--data.imagenet_c={}/v2"], "ImageNet-C's folders are corruptions such as gaussian_noise/1"),
    "option": (["--data.imagenet_b=x"], "data.init_args.imagenet_b: no such option"),
}


@pytest.mark.parametrize("case", WRONG)
def test_refused__in_one_line(case: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, words = WRONG[case]
    assert run_test(folder, *(one.format(folder) for one in arguments)) == 1
    said = capsys.readouterr().err
    assert words in said
    assert len(said.splitlines()) < 5


def test_refused__a_classifier_of_other_classes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_test(folder, f"--data.imagenet={folder / 'imagenet'}", name="ten") == 1
    assert "its classifier has 10 classes, and RobustnessData 1000" in capsys.readouterr().err


def test_refused__what_is_no_classifier_and_what_is_no_test(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    part = ["--config", "parts/corruptions"]
    assert main(["test", "--config", "mae_digits", *part, "--ckpt_path", "last"]) == 1
    assert "corruptions: they are for a classifier, and model is MAEPretrainer" in capsys.readouterr().err
    elsewhere = ["--run_dir", str(folder / "elsewhere")]
    assert main(["fit", "--config", str(folder / "ten.yaml"), *part, *elsewhere, "--corruptions.severities=[6]"]) == 1
    assert "corruptions.severities: [6] is not a list of some of 1, 2, 3, 4, 5" in capsys.readouterr().err
    assert main(["fit", "--config", str(folder / "ten.yaml"), *part, *elsewhere]) == 1
    assert "corruptions: they are for `tinymim test`" in capsys.readouterr().err


def test_corruptions__on_the_fly_with_a_baseline(folder: Path) -> None:
    network(folder, "other", 10, seed=1)
    baseline = folder / "other" / "checkpoints" / "last.ckpt"
    asked = ["--corruptions.names=[contrast,gaussian_noise]", "--corruptions.severities=[2,5]"]
    command = ["test", "--config", str(folder / "ten.yaml"), "--config", "parts/corruptions", "--ckpt_path", "last"]
    assert main([*command, *asked, f"--corruptions.baseline={baseline}"]) == 0
    content = json.loads((folder / "ten" / "test.json").read_text())
    data = DigitsData(image_size=16)
    data.setup("test")
    errors: dict[str, dict[str, dict[int, float]]] = {}
    for name, path in (("ten", folder / "ten" / "checkpoints" / "last.ckpt"), ("other", baseline)):
        module = Classifier(architecture=tiny(24, 3), num_classes=10)
        trainer(folder, max_epochs=0).fit(module, datamodule=NoiseData())
        module.load_state_dict(torch.load(path, weights_only=True)["state_dict"])
        module.eval()
        for kind in ("contrast", "gaussian_noise"):
            for severity in (2, 5):
                samples = [data.held_out[Draw(0, index)] for index in range(360)]  # type: ignore[index]
                images = [corrupt(sample["image"], kind, severity, i) for i, sample in enumerate(samples)]
                labels = torch.stack([sample["label"] for sample in samples])
                with torch.no_grad():
                    wrong = (module(torch.stack(images)).argmax(-1) != labels).float().mean()
                errors.setdefault(name, {}).setdefault(kind, {})[severity] = float(wrong)
    for kind, by_severity in errors["ten"].items():
        found = content["report"]["errors"][kind]
        assert {int(s): value for s, value in found.items()} == pytest.approx(by_severity, abs=1e-6)
    ratios = [sum(errors["ten"][kind].values()) / sum(errors["other"][kind].values()) for kind in errors["ten"]]
    assert content["report"]["mce"] == pytest.approx(sum(ratios) / 2, rel=1e-5)
    assert content["sets"]["clean"]["images"] == 360


def test_corruption_error__of_a_baseline_without_errors() -> None:
    assert corruption_errors({"fog": {1: 0.5, 2: 0.7}, "snow": {1: 0.1}}, {"fog": 0.0}) == {"fog": float("inf")}


def test_figures__of_an_ordinary_test_are_shown_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network(folder, "plain", 10)
    assert main(["test", "--config", str(folder / "plain.yaml"), "--ckpt_path", "last"]) == 0
    assert capsys.readouterr().out.count("test/top1") == 1
    content = json.loads((folder / "plain" / "test.json").read_text())
    assert set(content["metrics"]) == {"test/loss", "test/top1", "test/top5"}


def test_limit__to_no_image_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_test(folder, f"--data.imagenet={folder / 'imagenet'}", "--trainer.limit_test_batches=0") == 1
    assert "no image was tested" in capsys.readouterr().err
