"""What an export says of itself, and where it is pushed."""

from __future__ import annotations

import io
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import yaml

from tests.conftest import tiny, write_teacher
from tests.methods.test_distillation import NoiseData, distiller, trainer
from tests.training.made import NAMES, checkpoint, network
from tinymim import files
from tinymim.cli import main
from tinymim.export.export_forms import export_folder
from tinymim.tasks import Classifier
from tinymim.vit.classifier_head import HeadForm
from tinymim.vit.taps import Tap

CONFIG = {
    "name": "relation_mine",
    "seed_everything": 3,
    "trainer": {"max_epochs": 7, "precision": "bf16-mixed", "log_every_n_steps": 11, "logger": None},
    "model": {"class_path": "tinymim.modules.Distiller", "init_args": {"teacher": "/home/somebody/medium/last.ckpt"}},
    "data": {"class_path": "tinymim.data.ImageFolderData", "init_args": {"root": "/home/somebody/birds", "flip": True}},
    "run_dir": "/home/somebody/runs/mine",
}


def run(folder: Path, config: dict[str, Any], **record: Any) -> Path:
    """A run folder with one checkpoint of a relation-distilled student."""
    made = network(tiny(12, 3), taps=[Tap(3, "q"), Tap(3, "k"), Tap(3, "v")])
    source = checkpoint(folder / "checkpoints/last.ckpt", made, **record)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    metrics = {"train/loss": 0.5, "val/loss": 0.25, "val/knn_top1": 0.875, "val/top5": 1.0}
    (folder / "results.json").write_text(json.dumps({"metrics": metrics}))
    (folder / "environment.json").write_text(json.dumps({"packages": {"torch": "2.9.0", "timm": "1.0.20"}}))
    return source


def parts(folder: Path) -> tuple[dict[str, Any], str]:
    """Front matter and text."""
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), text


def test_card__of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYMIM_TEACHERS", str(tmp_path))
    digest = files.sha256(write_teacher(tmp_path).with_suffix(".safetensors"))
    source = run(tmp_path / "runs/mine", CONFIG, teacher={"name": "tiny_teacher", "sha256": digest})
    front, text = parts(export_folder(str(source), "timm", tmp_path / "out"))
    assert (front["license"], front["library_name"]) == ("cc-by-nc-4.0", "timm")
    assert front["pipeline_tag"] == "image-feature-extraction"
    assert {"tinymim", "distillation", "masked-image-modeling"} <= set(front["tags"])
    assert text.startswith("\n# mine\n")
    assert "> **Not for commercial use, and neither are its students.** The licence is inherited: CC-BY-NC-4.0." in text
    assert f"| teacher | tiny_teacher, sha256 `{digest}` |" in text
    assert "| tiny_teacher | a test; labels not seen; licence Apache-2.0 |" in text
    assert f"sha256 `{files.sha256(source)}`" in text
    assert "The output block is 2" in text
    assert "Block 3 of the network is left out, of which no more was trained than q, k, v." in text
    assert "Attention heads of the blocks: 3, 3." in text
    assert "| val/knn_top1 | 0.8750 |" in text
    assert "train/loss" not in text
    assert "top5" not in text
    assert "| timm | 1.0.20 | " in text
    assert "| torch | 2.9.0 | - |" in text
    recipe = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])
    assert recipe["trainer"] == {"max_epochs": 7, "precision": "bf16-mixed"}
    assert recipe["data"]["init_args"] == {"root": ".../birds", "flip": True}
    assert recipe["model"]["init_args"]["teacher"] == ".../last.ckpt"
    assert "somebody" not in text, "paths of this machine stay here"
    assert str(tmp_path) not in text


def test_card__of_a_fine_tuned_network_names_its_teacher(tmp_path: Path) -> None:
    start = {"name": "last.ckpt", "sha256": "a" * 64, "teacher": {"name": "gone", "sha256": "b" * 64}}
    source = checkpoint(tmp_path / "tuned.ckpt", network(tiny(12, 3), HeadForm(3)), start=start, classes=NAMES)
    front, text = parts(export_folder(str(source), "timm", tmp_path / "out"))
    assert front["pipeline_tag"] == "image-classification"
    assert f"| teacher | gone, sha256 `{'b' * 64}` |" in text
    assert f"| started from | last.ckpt, sha256 `{'a' * 64}` |" in text
    assert "## Recipe" not in text


class Named(NoiseData):
    classes = ["ant", "bee"]


def test_card__after_distillation_and_fine_tuning(teacher_card: Path, tmp_path: Path) -> None:
    student, runner = distiller(), trainer(tmp_path, max_epochs=0)
    runner.fit(student, datamodule=NoiseData())
    runner.save_checkpoint(tmp_path / "student.ckpt")
    tuned, runner = Classifier(str(tmp_path / "student.ckpt"), pool="cls"), trainer(tmp_path, max_epochs=0)
    runner.fit(tuned, datamodule=Named())
    runner.save_checkpoint(tmp_path / "tuned.ckpt")
    _, text = parts(export_folder(str(tmp_path / "tuned.ckpt"), "timm", tmp_path / "out"))
    teacher = files.sha256(teacher_card.with_suffix(".safetensors"))
    assert f"| teacher | tiny_teacher, sha256 `{teacher}` |" in text
    assert f"| started from | student.ckpt, sha256 `{files.sha256(tmp_path / 'student.ckpt')}` |" in text
    assert json.loads((tmp_path / "out/config.json").read_text())["label_names"] == ["ant", "bee"]


def test_card__names_data_and_weights_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYMIM_TEACHERS", str(tmp_path))
    path = write_teacher(tmp_path)
    path.write_text(path.read_text() + "hub: timm/vit_tiny/model.safetensors\n")
    data = {"class_path": "tinymim.data.HFData", "init_args": {"source": "me/birds"}}
    source = run(tmp_path / "run", {**CONFIG, "data": data}, teacher={"name": "tiny_teacher", "sha256": "c" * 64})
    front, _ = parts(export_folder(str(source), "timm", tmp_path / "out"))
    assert (front["base_model"], front["datasets"]) == ("timm/vit_tiny", ["me/birds"])


@pytest.mark.parametrize(
    ("licence", "front", "warning"),
    [
        ("Apache-2.0", {"license": "apache-2.0"}, None),
        ("MIT", {"license": "mit"}, None),
        ("CC-BY-NC-4.0", {"license": "cc-by-nc-4.0"}, "not for commercial use"),
        ("CC-BY-NC-SA-4.0", {"license": "cc-by-nc-sa-4.0"}, "not for commercial use"),
        (
            "Apache-2.0 and CC-BY-NC-4.0",
            {"license": "other", "license_name": "apache-2.0-and-cc-by-nc-4.0"},
            "not for commercial use",
        ),
        ("CC-BY-NC", {"license": "other", "license_name": "cc-by-nc"}, "not for commercial use"),
        ("research only", {"license": "other", "license_name": "research-only"}, "not for commercial use"),
        ("SYNC 2.0", {"license": "other", "license_name": "sync-2.0"}, None),
        ("unknown", {"license": "unknown"}, "ask whoever made it"),
        ("UNKNOWN", {"license": "unknown"}, "ask whoever made it"),
        ("CC_BY-N\u034fC\u20114.0", {"license": "cc-by-nc-4.0"}, "not for commercial use"),
        ("MIT and unknown", {"license": "other", "license_name": "mit-and-unknown"}, "ask whoever made it"),
        (
            "none stated; no permission is given",
            {"license": "other", "license_name": "none-stated-no-permission-is-given"},
            "ask whoever made it",
        ),
    ],
)
def test_licence__as_the_hub_has_it_and_loud(
    licence: str, front: dict[str, str], warning: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = checkpoint(tmp_path / "it.ckpt", network(tiny(12, 3, depth=1)), licence=licence)
    found, text = parts(export_folder(str(source), "timm", tmp_path / "out"))
    assert {key: value for key, value in found.items() if key.startswith("license")} == front
    said = capsys.readouterr().out
    assert ("WARNING" in said, "[!WARNING]" in text) == (warning is not None, warning is not None)
    assert warning is None or (warning in said and warning in text.lower())


class Hub:
    """Stands for ``HfApi``, and notes what is asked of it."""

    endpoint = "https://huggingface.co"
    calls: list[tuple[str, Any]]
    refuses: Exception | None = None

    def __init__(self) -> None:
        Hub.calls = []

    def create_repo(self, repo_id: str, **options: Any) -> Any:
        Hub.calls.append(("create_repo", (repo_id, options)))
        if Hub.refuses:
            raise Hub.refuses
        return huggingface_hub.RepoUrl(f"https://huggingface.co/me/{repo_id.split('/')[-1]}")

    def upload_folder(self, *, repo_id: str, folder_path: Path, **options: Any) -> None:
        Hub.calls.append(("upload_folder", (repo_id, sorted(path.name for path in Path(folder_path).iterdir()))))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> type[Hub]:
    monkeypatch.setattr(Hub, "refuses", None)
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_secret")
    monkeypatch.setattr(urllib.request, "urlopen", lambda *args, **options: io.BytesIO())
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return Hub


def pushed(tmp_path: Path, *more: str, repo: str = "me/tiny") -> int:
    source = checkpoint(tmp_path / "it.ckpt", network(tiny(12, 3, depth=1)))
    return main.main(["export", str(source), "--to", "timm", "--out", str(tmp_path / "out"), "--push", repo, *more])


@pytest.mark.parametrize("private", [True, False])
def test_push__creates_and_uploads(
    private: bool, hub: type[Hub], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pushed(tmp_path, *["--private"] * private) == 0
    assert hub.calls == [
        ("create_repo", ("me/tiny", {"private": private or None, "exist_ok": True})),
        ("upload_folder", ("me/tiny", ["README.md", "config.json", "model.safetensors"])),
    ]
    assert "pushed to https://huggingface.co/me/tiny" in capsys.readouterr().out


def unreachable(*args: Any, **options: Any) -> None:
    raise urllib.error.URLError(OSError(-2, "Name or service not known"))


@pytest.mark.parametrize(
    ("where", "name", "value", "repo", "message"),
    [
        (
            urllib.request,
            "urlopen",
            unreachable,
            "me/tiny",
            "https://huggingface.co cannot be reached ([Errno -2] Name",
        ),
        (huggingface_hub, "get_token", lambda: None, "me/tiny", "no login to the Hugging Face hub; `hf auth login`"),
        (huggingface_hub.constants, "HF_HUB_OFFLINE", True, "me/tiny", "$HF_HUB_OFFLINE is set"),
        (huggingface_hub, "__name__", "huggingface_hub", "me/a/b", "push: Repo id must be in the form"),
    ],
    ids=["network", "login", "offline", "name"],
)
def test_push__mistakes_before_anything_is_written(
    where: Any,
    name: str,
    value: Any,
    repo: str,
    message: str,
    hub: type[Hub],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(where, name, value)
    assert pushed(tmp_path, repo=repo) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_push__refused_by_the_hub_leaves_the_folder(
    hub: type[Hub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Hub, "refuses", Exception("403 Forbidden\nmore"))
    assert pushed(tmp_path) == 1
    said = capsys.readouterr().err
    assert f"push: me/tiny: 403 Forbidden; the export is in {tmp_path / 'out'}: `hf upload me/tiny" in said
    assert (tmp_path / "out/config.json").is_file()
