import functools
import http.server
import threading

import pytest
import torch
import yaml

from tests.conftest import write_teacher
from tests.teachers.card_files import CARD, OPTIONS, publish, write
from tinymim import files
from tinymim.cli import main
from tinymim.errors import TinymimError
from tinymim.teachers import card as cards
from tinymim.teachers import download, locate, weights
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone


@pytest.fixture
def run(home, capsys, monkeypatch):
    """``tinymim teachers``: its exit code, and what it says on a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")

    def command(*arguments):
        code = main.main(["teachers", *map(str, arguments)])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return code, said.out, said.err

    return command


@pytest.fixture
def server(tmp_path):
    """A folder, and where it is served."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    (tmp_path / "served").mkdir()
    handler = functools.partial(Quiet, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield tmp_path / "served", f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_list__in_80_columns_with_licence_labels_and_weights(run, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run("list")
    assert code == 0
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    rows = {line.split()[0]: line.split() for line in lines if line.strip()}
    assert rows.keys() >= {path.stem for path in (cards.files.shipped("teachers")).glob("*.yaml")}
    assert rows["digits_mae"] == ["digits_mae", "vit_tiny_patch16", "no", "Apache-2.0", "present"]
    assert rows["mae_vitb16"] == ["mae_vitb16", "vit_base_patch16", "no", "CC-BY-NC-4.0", "missing"]
    assert rows["beit_vitl16_ft22k"][2] == "seen"
    assert run() == (code, out, "")


def test_list__survives_a_card_that_cannot_be_read(run, home):
    write(home.env)
    (home.env / "broken.yaml").write_text("name: [")
    code, out, _ = run("list")
    assert code == 0
    assert "small " in out
    assert "broken.yaml cannot be read" in out


def test_list__a_card_under_another_name_or_with_a_line_twice(run, home):
    card = write(home.env)
    (home.env / "copy.yml").write_text(card.read_text())
    (home.env / "twice.yaml").write_text(f"{card.read_text()}licence: Apache-2.0\n")
    code, out, _ = run("list")
    assert code == 0
    assert "copy " in out
    assert "copy.yml: name: small, and it is found by its file's, copy" in out
    assert "twice.yaml cannot be read" in out
    assert "'licence' is there twice" in out


def test_list__survives_whatever_a_card_raises(run, home, monkeypatch):
    write(home.env)
    write(home.env, {"name": "other"})
    read = cards.read

    def raising(path):
        if path.stem == "other":
            raise RuntimeError("not foreseen\nat all")
        return read(path)

    monkeypatch.setattr(cards, "read", raising)
    code, out, _ = run("list")
    assert code == 0
    assert "small " in out
    assert f"teacher card {home.env / 'other.yaml'} cannot be read: not foreseen at all" in out


def test_weights_path__a_place_that_cannot_be_looked_at(home, monkeypatch):
    card = cards.read(write(home.env))

    def refused(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cards.Path, "is_file", refused)
    with pytest.raises(TinymimError, match=r"small.yaml: file: 'small.pth' cannot be looked at \(Permission denied\)"):
        card.weights_path()


def test_show__a_target_block_that_there_is_not(run, home):
    write(home.env, {"target_block": 200})
    code, out, err = run("show", "small")
    assert (code, out) == (1, "")
    assert "small.yaml: target_block: 200 is not one of the blocks 1 to 3" in err


def test_show__a_tag_that_timm_does_not_know(run, home):
    write(home.env, {"architecture": {"arch": "vit_tiny_patch16_224.nope"}})
    code, out, err = run("show", "small")
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert "arch: timm cannot build vit_tiny_patch16_224.nope: Invalid pretrained tag" in err


def test_show__says_everything(run, home):
    write(home.env, {"target_block": 2, "licence": "CC-BY-NC-4.0", "labels_seen": True, "note": "A doubt."})
    code, out, _ = run("show", "small")
    said = " ".join(out.split())
    assert code == 0
    for part in (
        "width 24, depth 3, heads 3,3,6, patch 4",
        "17 tokens",
        "2 of 3",
        "3 heads of 8 channels",
        "not for commercial use",
        "labels seen",
        "nobody",
        "A doubt.",
        "tinymim teachers fetch small",
        "not recorded",
    ):
        assert part in said


def test_show__a_checkpoint_and_timms(run, home):
    weights.export(publish(home.env), home.env / "student.safetensors", {"licence": "BSD"})
    code, out, _ = run("show", home.env / "student.safetensors")
    assert code == 0
    assert "BSD; it passes on" in out
    code, out, _ = run("show", "timm:vit_tiny_patch16_224.augreg_in21k")
    assert code == 0
    assert "21843" in out
    assert "labels seen" in " ".join(out.split())


def test_show__unknown(run, home):
    write(home.env)
    code, out, err = run("show", "smal")
    assert (code, out) == (1, "")
    assert "no card 'smal'; near it: small" in err


@pytest.mark.parametrize("record", [False, True])
def test_fetch__puts_the_weights_where_they_belong(run, home, server, record):
    folder, address = server
    publish(folder)
    path = write(home.env, {"url": f"{address}/small.pth"})
    code, out, _ = run("fetch", "small", *(["--record"] if record else []))
    digest = files.sha256(folder / "small.pth")
    assert code == 0
    assert files.sha256(home.env / "small.pth") == digest
    assert digest in out
    assert "MIT" in out
    assert yaml.safe_load(path.read_text())["sha256"] == (digest if record else None)
    assert run("fetch", "small")[1].startswith("small: the weights are here already")


def test_fetch__of_another_sha256_than_the_cards(run, home, server):
    folder, address = server
    publish(folder)
    write(home.env, {"url": f"{address}/small.pth", "sha256": "0" * 64})
    code, _, err = run("fetch", "small")
    assert code == 1
    assert "0000" in err
    assert not (home.env / "small.pth").exists()


def test_fetch__without_network_says_where_from_and_where_to(run, home, monkeypatch):
    monkeypatch.setattr(download, "_no_connection", lambda host, port: f"no connection to {host}")
    write(home.env)
    code, _, err = run("fetch", "small")
    assert code == 1
    assert "no connection to example.org" in err
    assert f"download it from {CARD['url']} and put it at {home.env / 'small.pth'}" in err
    write(home.env, {"name": "hand", "url": ..., "page": "https://example.org/drive", "file": "hand.pth"})
    code, _, err = run("fetch", "hand")
    assert code == 1
    assert "no address that a program can fetch; download it from https://example.org/drive" in err


def test_fetch__interrupted(run, home, server, monkeypatch):
    folder, address = server
    publish(folder)
    write(home.env, {"url": f"{address}/small.pth"})

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(download.Progress, "update", interrupt)
    code, _, err = run("fetch", "small")
    assert code == 1
    assert "interrupted" in err
    assert [path.name for path in home.env.iterdir()] == ["small.yaml"]


def test_verify__reads_it_all(run, home):
    path = write_teacher(home.env)
    code, out, _ = run("verify", "tiny_teacher")
    assert code == 0
    assert "as its card says" in out
    assert "missing 0" in out
    assert "fits vit_tiny_patch16_224: width 24" in out
    path.write_text(path.read_text().replace("num_heads: 4", "num_heads: 3"))
    code, _, err = run("verify", "tiny_teacher")
    assert code == 1
    assert "head layout" in err
    with (home.env / "tiny_teacher.safetensors").open("ab") as stream:
        stream.write(b"x")
    code, _, err = run("verify", "tiny_teacher")
    assert code == 1
    assert "the file is damaged or another one" in err


def foreign(folder, name="found.pth"):
    """A file of MAE's form that no card describes."""
    torch.manual_seed(0)
    options = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 6}
    backbone = Backbone(Architecture(options=options)).eval()
    torch.save({"model": {**backbone.vit.state_dict(), "decoder_embed.weight": torch.rand(2, 2)}}, folder / name)
    return backbone


@pytest.mark.parametrize("copied", [False, True])
def test_add__writes_a_card_that_loads(run, home, tmp_path, copied):
    original = foreign(tmp_path)
    file = tmp_path / "found.pth"
    asked = ["add", file, "--name", "found", "--licence", "MIT", "--heads", "6", "--labels-seen", "--target-block", "2"]
    code, out, _ = run(*asked, *(["--copy"] if copied else []))
    assert code == 0
    assert str(home.env / "found.yaml") in out
    card = cards.find("found")
    assert (card.licence, card.labels_seen, card.target_block) == ("MIT", True, 2)
    assert card.sha256 == files.sha256(file)
    assert (home.env / "found.pth").exists() == copied
    assert card.weights_path() == (home.env / "found.pth" if copied else file)
    backbone, _ = locate.locate("found").load()
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(backbone.features(images), original.features(images))


@pytest.mark.parametrize(
    ("words", "mean"),
    [(["imagenet"], [0.485, 0.456, 0.406]), (["half"], [0.5] * 3), (["0.1", "0.2", "0.3"], [0.1, 0.2, 0.3])],
)
def test_add__takes_the_usual_means_by_name(run, home, tmp_path, words, mean):
    foreign(tmp_path)
    code, _, err = run(
        "add",
        tmp_path / "found.pth",
        "--name",
        "found",
        "--licence",
        "MIT",
        "--heads",
        "6",
        "--mean",
        *words,
        "--std",
        "half",
    )
    assert code == 0, err
    found = cards.find("found").architecture
    assert list(found.mean) == pytest.approx(mean)
    assert list(found.std) == [0.5] * 3
    code, _, err = run("add", tmp_path / "found.pth", "--name", "other", "--licence", "MIT", "--std", "imagnet")
    assert code == 1
    assert (
        "--std: imagnet is not three numbers, such as 0.5 0.5 0.5, nor one of imagenet, half, openai_clip, none" in err
    )


def test_add__for_images_of_another_size(run, home, tmp_path):
    foreign(tmp_path)
    asked = ["--name", "found", "--licence", "MIT", "--heads", "6", "--image-size", "24"]
    code, out, err = run("add", tmp_path / "found.pth", *asked)
    assert code == 0, err
    assert "24x24 px, 6x6 patches" in out
    backbone, _ = locate.locate("found").load()
    assert (backbone.image_size, backbone.resampled_from) == ((24, 24), (4, 4))


def test_add__asks_for_what_the_file_does_not_say(run, home, tmp_path):
    foreign(tmp_path)
    code, _, err = run("add", tmp_path / "found.pth")
    assert code == 1
    assert "has to be given: --name, --licence, --heads" in err
    assert "width 24, depth 3" in err
    assert list(home.env.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--name", "small"], "there is a card"),
        (["--name", "a/b"], "names no file"),
        (["--name", "new", "--target-block", "4"], "not one of the blocks 1 to 3"),
        (["--name", "new", "--image-size", "30"], "--image-size: 30 is no multiple of its patches of 4 px"),
        (
            ["--name", "new", "--mean", "128", "128", "128"],
            "--mean: 128 is not in [0, 1], as the images are; divide by",
        ),
        (["--name", "new", "--mean", "0", "0", "-0.5"], "--mean: -0.5 is not in [0, 1], as the images are"),
        (["--name", "new", "--std", "58.4", "57.1", "57.4"], "10 at most; divide by 255"),
        (["--name", "new", "--std", "0.5", "0.5", "0"], "--std: 0 is not a spread of images in [0, 1], above 0"),
        (["--name", "new", "--heads", "5"], "5 does not divide the width 24"),
        (["--name", "new", "--heads", "6", "6"], "2 numbers for the 3 blocks"),
        (["--name", "new", "--arch", "vit_tny"], "timm has no model 'vit_tny'"),
        (["--name", "new", "--arch", "beit_base_patch16_224"], "arch: beit_base_patch16_224 is no ViT"),
    ],
)
def test_add__mistakes(run, home, tmp_path, options, words):
    write(home.cwd)
    foreign(tmp_path)
    before = (home.cwd / "small.yaml").read_text()
    code, _, err = run("add", tmp_path / "found.pth", "--licence", "MIT", "--heads", "6", *options)
    assert code == 1
    assert words in err
    assert (home.cwd / "small.yaml").read_text() == before
    assert list(home.env.iterdir()) == []


def test_add__a_checkpoint_of_ours_needs_no_card(run, home):
    weights.export(publish(home.env), home.env / "student.safetensors", {})
    code, _, err = run("add", home.env / "student.safetensors", "--name", "new", "--licence", "MIT")
    assert code == 1
    assert "needs no card" in err
    code, _, err = run("add", "nothing", "--name", "new")
    assert "nothing is no file of weights" in err


def test_save__fills_a_card(run, home, tmp_path):
    backbone = publish(tmp_path)
    weights.export(backbone, tmp_path / "trained.safetensors", {})
    write(home.env, {"file": "small.safetensors"})
    code, _, _ = run("save", tmp_path / "trained.safetensors", "small")
    assert code == 0
    assert cards.find("small").sha256 == files.sha256(home.env / "small.safetensors")
    write(home.env, {"architecture": {"options": OPTIONS, "heads": 3}})
    code, _, err = run("save", tmp_path / "trained.safetensors", "small")
    assert code == 1
    assert "and card small says" in err
