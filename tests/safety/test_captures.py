"""Captured steps: honest ones of every module run again; others ask for no minutes, gigabytes, servers or keys."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.conftest import write_teacher
from tests.safety import captures
from tests.safety.places import SECONDS
from tinymim.cli.main import main
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import skeleton

BYTES = 1 << 30
"""Of memory that a file of at most 10 MB may take."""

BEIT = {"img_size": 256, "patch_size": 4, "embed_dim": 12, "num_heads": 3, "depth": 3, "use_rel_pos_bias": True}


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An honest capture of each module, in a folder with their teacher."""
    folder = tmp_path_factory.mktemp("captures")
    write_teacher(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYMIM_TEACHERS", str(folder))
        yield {name: captures.made(name) for name in captures.MODELS}


def replayed(path: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str, str]:
    """Exit code, and what was printed; within what a file may take."""
    capsys.readouterr()
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10, time.process_time()
    code = main(["replay", str(path), *more])
    assert time.process_time() - begun < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - before < BYTES
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.mark.parametrize("name", captures.MODELS)
def test_honest__runs_again(
    name: str, contents: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = captures.write(contents[name], tmp_path / "step_1.pt")
    code, out, err = replayed(path, capsys)
    assert code == 0, err
    assert out.splitlines()[-1].startswith("not reproduced")


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("MAEPretrainer", {"decoder_width": 65_532}, "decoder.mask_token"),
        ("MAEPretrainer", {"decoder_depth": 1_000_000}, "decoder_depth: 1000000 is not from 1 to 1000"),
        ("Distiller, reconstructing", {"reconstruction": {"decoder_width": 1 << 16}}, "reconstructor.decoder"),
        ("Classifier", {"num_classes": 1 << 30}, "model.head.weight"),
        ("Classifier", {"neck": 1 << 30}, "model.neck.linear.weight"),
        ("Segmenter", {"decoder_width": 1 << 20}, "network.decoder"),
        ("Segmenter", {"num_classes": 1 << 22}, "network.decoder"),
        ("Detector", {"convolutions": 1_000_000}, "more than 25,000 parts"),
        ("Distiller", {"targets": [captures.RELATION] * 200}, "201 classes, for 1 batches; 32 classes"),
        ("Distiller", {"targets": [{"class_path": "tinymim.targets.Feature"}]}, "projections"),
    ],
)
def test_sizes__that_no_tensor_backs_are_refused_before_they_are_built(
    name: str,
    changes: dict[str, Any],
    words: str,
    contents: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = captures.write(contents[name], tmp_path / "step_1.pt", **changes)
    code, _, err = replayed(path, capsys)
    assert code == 1
    assert words in err
    assert len(err.splitlines()) == 1


def _nested(levels: int) -> list[Any]:
    value: list[Any] = [1]
    for _ in range(levels):
        value = [value, value]
    return value


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batches": [[0, captures.batch()]] * 20_000}, "batches: "),
        ({"batches": [[0, captures.batch()] for _ in range(200)]}, "2 classes, for 200 batches"),
        ({"batches": [[0, {"image": torch.rand(1, 3, 16, 16).expand(200, 3, 16, 16)}]]}, "shares its values"),
        ({"batches": [[0, {"image": torch.rand(40_000).as_strided((500, 3, 16, 16), (0, 0, 0, 1))}]]}, "shares its"),
        ({"batches": [[0, {"image": one, "other": one[:1]}] for one in [torch.rand(2, 3, 16, 16)]]}, "shares its"),
        ({"batches": [[0, _nested(40)]]}, "more than 25,000 values"),
        ({"eval_modules": ["student.vit"] * 400_000}, "eval_modules: expected array of length <= 25000"),
        ({"gradients": ["x"] * 40_000}, "gradients: expected array of length <= 25000"),
    ],
)
def test_captures__take_no_more_time_than_their_bytes(
    changes: dict[str, Any],
    words: str,
    contents: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = captures.write({**contents["Distiller"], **changes}, tmp_path / "step_1.pt")
    assert path.stat().st_size < 10 << 20
    code, _, err = replayed(path, capsys)
    assert code == 1
    assert words in err
    assert len(err.splitlines()) == 1


def test_buffers__that_are_in_no_file_are_counted_too(
    contents: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    student = {"arch": "beit_base_patch16_224", "options": BEIT}
    meta = skeleton(Architecture(**student)).vit.state_dict()
    state = {f"student.vit.{key}": torch.zeros(value.shape) for key, value in meta.items()}
    content = {**contents["Distiller"], "state_dict": state, "data": {**captures.DATA, "image_size": 256}}
    code, _, err = replayed(captures.write(content, tmp_path / "step_1.pt", student=student), capsys)
    assert (tmp_path / "step_1.pt").stat().st_size < 10 << 20
    assert code == 1
    assert "MB would be taken, most by student.vit.blocks.0.attn" in err


def test_teacher__is_not_asked_of_a_server(
    contents: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("tinymim.teachers.download._no_connection", lambda host, port: asked.append(host) or "none")
    monkeypatch.setattr("tinymim.teachers.card.try_to_load_from_cache", lambda *_: None)
    path = captures.write(contents["Distiller"], tmp_path / "step_1.pt", teacher="timm:vit_base_patch16_224.mae")
    code, _, err = replayed(path, capsys)
    assert code == 1
    assert "no server is asked where a file is only looked at" in err
    assert "`tinymim teachers fetch timm:vit_base_patch16_224.mae`" in err
    assert not asked
    assert replayed(path, capsys, "--trust")[0] == 1
    assert asked


def test_compiled__step_starts_no_compiler(
    contents: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a process was started"))
    code, _, err = replayed(captures.write(contents["Distiller"], tmp_path / "step_1.pt", compile=True), capsys)
    assert code == 0, err


@pytest.mark.parametrize("value", ["topsecret123", "a 'quoted' secret", "long" * 40])
def test_references__stay_references_in_messages(
    value: str,
    contents: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KEY", value)
    monkeypatch.setenv("OTHER", "another-secret")
    for changes in (
        {"teacher": "${oc.env:KEY}"},
        {"teacher": "x ${oc.env:OTHER} ${oc.env:KEY}"},
        {"mask_ratio": "${oc.env:KEY}"},
        {"student": {"arch": "${oc.env:KEY}"}},
        {"student": {**captures.OWN, "options": {"${oc.env:KEY}": 1, "act_layer": "${oc.env:KEY}"}}},
    ):
        err = replayed(captures.write(contents["Distiller"], tmp_path / "step_1.pt", **changes), capsys)[2]
        assert "teacher" not in changes or "${oc.env:KEY}" in err, changes
        assert value[:20] not in err, changes
        assert "another-secret" not in err
    content = {**contents["Distiller"]}
    recipe = yaml.safe_load(content["recipe"])
    recipe["trainer"] |= {"precision": "${oc.env:KEY}"}
    torch.save({**content, "recipe": yaml.safe_dump(recipe)}, tmp_path / "step_1.pt")
    err = replayed(tmp_path / "step_1.pt", capsys)[2]
    assert value[:20] not in err


def test_trust__says_where_a_class_is_named(
    contents: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    targets = [{"class_path": "no_such_module.Target"}]
    path = captures.write(contents["Distiller"], tmp_path / "step_1.pt", targets=targets)
    code, _, err = replayed(path, capsys, "--trust")
    assert code == 1
    assert "not tinymim's own: model.init_args.targets[0]: no_such_module.Target" in err


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_precision__of_the_run_is_the_teachers_too(
    precision: str, contents: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = captures.write(contents["Distiller"], tmp_path / "step_1.pt")
    code, out, err = replayed(path, capsys, "--precision", precision)
    assert code == 0, err
    assert f"{precision} instead of 32-true" in out


def test_recipe__of_a_capture_is_named_as_such(
    contents: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = contents["Distiller"]
    twice = {**content, "recipe": content["recipe"] + "model: {class_path: tinymim.modules.Distiller}\n"}
    torch.save(twice, tmp_path / "step_1.pt")
    code, _, err = replayed(tmp_path / "step_1.pt", capsys)
    assert code == 1
    assert err.startswith("tinymim replay: the captured recipe cannot be read: ")
    assert "/tmp" not in err.replace(str(tmp_path), "")


def test_class_path__is_not_meant_to_be_itself(
    contents: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path, meant in (("tinymim.config.class_paths.Any", ""), ("tinymim.modules.Distiler", "Distiller")):
        recipe = {"model": {"class_path": path, "init_args": {}}}
        torch.save({**contents["Distiller"], "recipe": yaml.safe_dump(recipe)}, tmp_path / "step_1.pt")
        err = replayed(tmp_path / "step_1.pt", capsys)[2]
        assert ("did you mean" in err) == bool(meant)
        assert meant in err
