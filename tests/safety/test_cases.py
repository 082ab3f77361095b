"""Roads by which files of others reached further than they may, one each; ``test_matrix.py`` goes all of them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from tests.conftest import tiny
from tests.teachers.card_files import write
from tinymim.cli import teachers_command as run_teachers
from tinymim.cli.main import main
from tinymim.config import class_paths, recipe, references, validation
from tinymim.errors import TinymimError
from tinymim.safety import escaping, names
from tinymim.teachers import card as cards
from tinymim.teachers import infer_architecture, locate, record_schemas, sizes, weights
from tinymim.teachers.download import fetch_weights
from tinymim.teachers.record_schemas import Network
from tinymim.training import preflight
from tinymim.training.run_schemas import Recipe
from tinymim.vit import conventions, network_options
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone, skeleton


@pytest.fixture(scope="module")
def own() -> Backbone:
    torch.manual_seed(0)
    return Backbone(tiny(12, 3))


def _file(own: Backbone, path: Path, **options: Any) -> Path:
    record = {"backbone": own.record(), "prefix": ""}
    record["backbone"]["architecture"]["options"] |= options
    save_file(dict(own.vit.state_dict().items()), path, metadata={"tinymim": json.dumps(record)})
    return path


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("checkpoint_path", "other.pth", "options.checkpoint_path: no option that makes a network"),
        ("pretrained_cfg", {"file": "x", "hf_hub_id": "y"}, "options.pretrained_cfg: no option"),
        ("cache_dir", "here", "options.cache_dir: no option"),
        ("embed_dim", 50331648, "options.embed_dim: 50331648 is not a whole number, 16384 or less"),
        ("embed_dim", 384, "its record says width 384, its weights 12"),
        ("depth", 200, "its record says depth 200, its weights 3"),
        ("patch_size", 2, "its record says patch 2, its weights 4"),
        ("img_size", 16384, "would take"),
    ],
)
def test_record__asks_for_no_file_and_no_gigabytes(
    own: Backbone, tmp_path: Path, option: str, value: Any, words: str
) -> None:
    path = _file(own, tmp_path / "t.safetensors", **{option: value})
    with pytest.raises(TinymimError, match=words):
        weights.load(path)


def test_arch__a_tag_that_timm_does_not_know(own: Backbone, tmp_path: Path) -> None:
    record = {"backbone": own.record(), "prefix": ""}
    record["backbone"]["architecture"]["arch"] = "vit_tiny_patch16_224.nope"
    save_file(dict(own.vit.state_dict()), tmp_path / "t.safetensors", metadata={"tinymim": json.dumps(record)})
    save_file(dict(own.vit.state_dict()), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "vit_tiny_patch16_224.nope"}))
    for source in (tmp_path / "t.safetensors", tmp_path):
        with pytest.raises(TinymimError, match=r"arch: timm cannot build .*: Invalid pretrained tag"):
            locate.locate(str(source))


def test_options__are_refused_wherever_they_come_from(home: SimpleNamespace, tmp_path: Path, own: Backbone) -> None:
    bad = {"checkpoint_path": "x"}
    with pytest.raises(TinymimError, match="checkpoint_path: no option"):
        skeleton(Architecture(options=bad))
    with pytest.raises(TinymimError, match="checkpoint_path: no option"):
        cards.read(write(home.cwd, {"architecture": {"arch": "vit_tiny_patch16_224", "options": bad}}))
    (tmp_path / "theirs").mkdir()
    save_file(dict(own.vit.state_dict()), tmp_path / "theirs/model.safetensors")
    (tmp_path / "theirs/config.json").write_text(
        json.dumps({"architecture": "vit_tiny_patch16_224", "model_args": bad})
    )
    with pytest.raises(TinymimError, match=r"config.json: model_args.checkpoint_path: no option"):
        locate.locate(str(tmp_path / "theirs"))


def test_options__that_timm_takes_are_those_of_its_networks() -> None:
    import inspect

    from timm.models import Beit, Eva, SwinTransformer, VisionTransformer

    taken = {
        name for cls in (VisionTransformer, Eva, Beit, SwinTransformer) for name in inspect.signature(cls).parameters
    }
    assert network_options.OPTIONS.keys() <= taken


def test_schema__of_a_network_has_the_fields_of_an_architecture() -> None:
    assert set(Network.__struct_fields__) == set(vars(Architecture()))


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"class_path": "os.system", "init_args": {"command": "touch MARK"}}, "os.system is no class that is a"),
        ({"class_path": "tinymim.data.DigitsData"}, "is no class that is a lightning"),
    ],
)
def test_class_path__names_a_class_of_the_base_that_is_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, node: Any, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    config = recipe.resolve(["--config", "relation_digits"])[0]
    found = preflight.problems({**config, "model": node})
    assert any(words in line for line in found), found
    assert not (tmp_path / "MARK").exists()


@pytest.mark.parametrize("place", ["student.options.x", "student", "optim", "targets", "drop_path", "reconstruction"])
def test_class_path__calls_nothing_wherever_it_stands(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = recipe.resolve(["--config", "relation_digits"])[0]
    inner = config["model"]["init_args"]
    *above, last = place.split(".")
    for key in above:
        inner = inner[key]
    inner[last] = {"class_path": "os.system", "init_args": {"command": "touch MARK"}}
    assert preflight.problems(config)
    assert not (tmp_path / "MARK").exists()


def test_own_only__imports_no_other_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stranger.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    found: list[str] = []
    with class_paths.own_only():
        assert not validation.check_class({"class_path": "stranger.Net"}, "model", found)
        assert not validation.check_class({"class_path": "tinymim.files.shutil"}, "model", found)
        assert not validation.check_class({"class_path": "tinymim.training.fit.ExitStack"}, "model", found)
    assert len(found) == 3
    assert "--trust" in found[0]


@pytest.mark.parametrize("file", ["../new.txt", "/tmp/new.py", ".hidden", "a/b.pth"])
def test_fetch__writes_into_the_cards_own_folder_alone(home: SimpleNamespace, file: str) -> None:
    card = cards.read(write(home.cwd, {"file": file, "url": "http://127.0.0.1:9/x"}))
    with pytest.raises(TinymimError, match=r"file: .* is no plain name"):
        fetch_weights(card, record=False)


@pytest.mark.parametrize("file", ["apex.py", "apex", "x.pth.py", "sitecustomize.pyc", "x.PTH", "Makefile", "pth"])
def test_weights__are_all_that_is_written_under_a_name_of_a_card(
    home: SimpleNamespace, file: str, tmp_path: Path, own: Backbone
) -> None:
    card = cards.read(write(home.cwd, {"file": file, "url": "http://127.0.0.1:9/x"}))
    with pytest.raises(TinymimError, match=r"file: .* is no name of a file of weights, which end in \.ckpt"):
        fetch_weights(card, record=False)
    with pytest.raises(TinymimError, match=r"file: .* is no name of a file of weights"):
        run_teachers.save(_file(own, tmp_path / "t.safetensors"), card)
    assert [path.name for path in home.cwd.iterdir()] == ["small.yaml"]


def _with_std(own: Backbone, path: Path, mean: list[float], std: list[float]) -> Path:
    record = {"backbone": own.record(), "prefix": ""}
    record["backbone"]["architecture"] |= {"mean": mean, "std": std}
    save_file(dict(own.vit.state_dict().items()), path, metadata={"tinymim": json.dumps(record)})
    return path


@pytest.mark.parametrize(
    ("mean", "std", "field"),
    [
        ([0.5] * 3, [0.5, 0, 0.5], r"std\[?"),
        ([0.5] * 3, [0.5, 0.5, -1], r"std\[?"),
        ([0.5] * 3, [1e-50] * 3, r"std\[?"),
        ([0.5] * 3, [float("nan"), 1, 1], r"std\[?"),
        ([0.5] * 3, [float("inf"), 1, 1], r"std\[?"),
        ([float("nan"), 0, 0], [1, 1, 1], r"mean\[?"),
        ([0, float("-inf"), 0], [1, 1, 1], r"mean\[?"),
    ],
)
def test_normalisation__that_divides_by_nothing_is_refused_in_every_kind_of_file(
    home: SimpleNamespace, own: Backbone, tmp_path: Path, mean: list[float], std: list[float], field: str
) -> None:
    def refused(what: str, read: Callable[[], Any]) -> None:
        with pytest.raises(TinymimError, match=rf"{field}.*expected `?float") as caught:
            read()
        assert "\n" not in str(caught.value), what

    given = {"mean": mean, "std": std}
    network_ = {"arch": "vit_tiny_patch16_224", **given}
    refused("record", lambda: weights.load(_with_std(own, tmp_path / "t.safetensors", mean, std)))
    refused("card", lambda: cards.read(write(home.cwd, {"architecture": network_})))
    theirs = tmp_path / "model.safetensors"
    config = {"architecture": "vit_tiny_patch16_224", "pretrained_cfg": given}
    (tmp_path / "config.json").write_text(json.dumps(config))
    refused("timm's", lambda: infer_architecture.beside(theirs))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": mean, "image_std": std}))
    refused("transformers'", lambda: infer_architecture.beside(theirs))
    described = {"class_path": "tinymim.modules.Distiller", "init_args": {"student": network_}}
    refused("capture", lambda: sizes.check_described(described, []))


def test_normalisation__given_to_a_new_card(home: SimpleNamespace, own: Backbone, tmp_path: Path) -> None:
    save_file(dict(own.vit.state_dict()), tmp_path / "x.safetensors")
    asked = ["teachers", "add", str(tmp_path / "x.safetensors"), "--name", "x", "--licence", "MIT", "--heads", "3"]
    given = ["--mean", "0", "0", "0", "--std"]
    assert main([*asked, *given, "1", "0", "1", "--copy"]) == 1
    assert not (home.env / "x.yaml").exists()
    assert not list(home.env.glob("x.*"))
    assert main([*asked, *given, "1", "1", "1"]) == 0


def test_names__are_plain() -> None:
    assert all(map(names.is_plain, ["a", "digits_mae", "beit base.pth", "é-1", "x+y@2"]))
    assert not any(map(names.is_plain, ["", ".", "..", "a/b", "a\\b", ".a", "a\n", "a\x1b", "a:b", " a", 3, None]))


@pytest.mark.parametrize("name", ["../../x", "a/b", ".x"])
def test_run__is_called_by_a_plain_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "relation_digits", "--name", name]) == 1
    assert "name: " in capsys.readouterr().err


def test_references__stay_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "topsecret123")
    text = {
        "name": "n",
        "seed_everything": "${oc.decode:${oc.env:SEED,3}}",
        "vars": {"key": "${oc.env:KEY}"},
        "compare": {"a": "x-${vars.key}", "b": ["${oc.env:KEY}"], "c": "${oc.env:NONE,null}"},
    }
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(text))
    config, _ = recipe.resolve(["--config", str(path)])
    assert "topsecret123" not in json.dumps(config)
    assert config["compare"] == {"a": "x-${oc.env:KEY}", "b": ["${oc.env:KEY}"], "c": "${oc.env:NONE,null}"}
    filled = references.filled(config)
    assert filled["compare"] == {"a": "x-topsecret123", "b": ["topsecret123"], "c": None}
    assert filled["seed_everything"] == 3
    kept = list(references.places(config))
    assert references.put_back(filled, kept) == config
    assert references.hidden("it is topsecret123", kept) == "it is ${oc.env:KEY}"
    path.write_text(yaml.safe_dump(config))
    assert recipe.resolve(["--config", str(path)])[0] == config, "as it is resumed"
    monkeypatch.delenv("KEY")
    with pytest.raises(TinymimError, match=r"compare\.a: .*environment variable KEY is not set"):
        references.filled(config)


def test_zip__that_unpacks_to_more_than_it_is(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1 << 20)}, tmp_path / "whole.pth")
    with (
        zipfile.ZipFile(tmp_path / "whole.pth") as whole,
        zipfile.ZipFile(tmp_path / "small.pth", "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for name in whole.namelist():
            small.writestr(name, whole.read(name))
    with pytest.raises(TinymimError, match="is compressed"):
        weights.read(tmp_path / "small.pth")


def test_tensors__that_claim_more_than_the_file_holds(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(1 << 28)}, tmp_path / "view.pth")
    with pytest.raises(TinymimError, match="claims tensors of 1074 MB"):
        weights.read(tmp_path / "view.pth")


def test_bad_card__is_named_and_the_others_are_shown(home: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    write(home.cwd)
    content = yaml.safe_load((home.cwd / "small.yaml").read_text())
    for number, wrong in enumerate([{"licence": ["x"]}, {"file": 5}, {"target_block": "six"}, {"labels_seen": "no"}]):
        (home.cwd / f"bad{number}.yaml").write_text(yaml.safe_dump({**content, **wrong}))
    assert main(["teachers"]) == 0
    said = capsys.readouterr().out
    assert "small" in said
    assert [
        line
        for line in ("licence: expected str", "file: expected str", "target_block: ", "labels_seen: ")
        if line not in said
    ] == []


def test_shown__is_escaped_for_where_it_goes() -> None:
    assert escaping.terminal("a\x1b]0;x\x07b\n") == "a\\x1b]0;x\\x07b\n"
    assert escaping.markdown("MIT\n---\n# Official <script> a|b [x](y) `c`") == (
        "MIT --- # Official &lt;script&gt; a\\|b \\[x\\](y) \\`c\\`"
    )
    assert escaping.markdown("# head") == "\\# head"
    assert escaping.markdown("vit_tiny_patch16_224") == "vit_tiny_patch16_224"
    assert escaping.fenced("```\nout", "yaml").startswith("````yaml\n")
    assert [escaping.cell(one) for one in ("=1+1", "@x", "-0.5", "-x", 3, "a")] == [
        "'=1+1",
        "'@x",
        "-0.5",
        "'-x",
        3,
        "a",
    ]
    assert [escaping.uncelled(escaping.cell(one)) for one in ("=1", "a", "'b")] == ["=1", "a", "'b"]


def test_licence__is_compared_by_what_can_be_seen() -> None:
    assert cards.restriction("CC-BY-N\u200bC-4.0") == cards.restriction("CC-BY-NC-4.0") is not None
    assert cards.restriction("MIT") is None


def test_record__of_another_type_is_one_line(own: Backbone, tmp_path: Path) -> None:
    for record in (
        [1],
        {"a": 1},
        {"backbone": {"architecture": {"arch": "vit_tiny_patch16_224", "x": 1}, "output_block": 1}},
    ):
        save_file(dict(own.vit.state_dict()), tmp_path / "t.safetensors", metadata={"tinymim": json.dumps(record)})
        with pytest.raises(TinymimError) as caught:
            weights.read(tmp_path / "t.safetensors")
        assert "\n" not in str(caught.value)
        assert "record" in str(caught.value)


def test_fit__says_the_field_first() -> None:
    with pytest.raises(TinymimError, match=r"^it: trainer: expected object \| null, got array"):
        record_schemas.fit({"trainer": [1]}, Recipe, "it")


@pytest.mark.parametrize("name", ["legacy.pth", "zip.pth"])
def test_pickle__of_millions_of_steps(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "zip.pth":
        torch.save({"a": list(range(1_200_000))}, path)
    else:
        path.write_bytes(b"\x80\x02" + b"]" * 1_200_000 + b".")
    with pytest.raises(TinymimError, match="steps; weights do not"):
        weights.read(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"conventions": None}, "conventions: expected object"),
        ({"conventions": {"norm_eps": "0"}}, "conventions.norm_eps: expected float"),
        ({"conventions": {"norm_eps": 0}}, "conventions.norm_eps: expected float > 0"),
        ({"conventions": {"shared_bias": "x"}}, "conventions.shared_bias: invalid enum value"),
        ({"conventions": {"more": 1}}, "conventions: no such field more"),
        ({"init": "x"}, "init: invalid enum value"),
        ({"start": {"name": "s", "init": 1}}, "start.init: expected str"),
    ],
)
def test_record__conventions_are_ones_that_can_be_followed(own: Backbone, changes: dict[str, Any], words: str) -> None:
    record = {"backbone": own.record(), "prefix": "", "conventions": {"norm_eps": 1}, "init": "timm"}
    with pytest.raises(TinymimError, match=r"conventions.norm_eps: expected float <= 0.1"):
        record_schemas.record(record, "record")
    honest = {**record, "conventions": conventions.Conventions().record()}
    assert conventions.of(record_schemas.record(honest, "record")) == conventions.Conventions()
    with pytest.raises(TinymimError, match=words) as caught:
        record_schemas.record({**honest, **changes}, "record")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(("field", "value"), [("std", [0, 0, 0]), ("std", [0.5, 0.5, -1]), ("mean", [0.5, "nan", 0])])
def test_normalisation__of_a_recipe_is_refused_before_it_runs(
    field: str, value: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    given = json.dumps([float(one) for one in value]).replace("NaN", ".nan")
    assert main(["check", "relation_digits", f"--model.student.{field}={given}"]) == 1
    said = capsys.readouterr().err
    assert f"student: {field}: [" in said
    assert "is not three numbers from" in said
    assert "ImageNet's is [0." in said
