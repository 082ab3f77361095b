from types import SimpleNamespace

import pytest
import torch
import yaml

from tinymim import files, teachers, weights
from tinymim.architecture import Architecture
from tinymim.backbones import Backbone, skeleton
from tinymim.blocks import Tap
from tinymim.errors import TinymimError

OPTIONS = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 3}
CARD = {
    "name": "small",
    "architecture": {"options": OPTIONS, "heads": [3, 3, 6]},
    "file": "small.pth",
    "url": "https://example.org/small.pth",
    "sha256": None,
    "licence": "MIT",
    "citation": "nobody",
    "source": "a test",
}


def write(folder, fields=None):
    """A card named after its ``name``."""
    card = {name: value for name, value in (CARD | (fields or {})).items() if value is not ...}
    folder.mkdir(exist_ok=True)
    path = folder / f"{card['name']}.yaml"
    path.write_text(yaml.safe_dump(card))
    return path


def publish(folder, heads=(3, 3, 6)):
    """Weights for the card in MAE's format; gives back the network they came from."""
    torch.manual_seed(0)
    backbone = Backbone(Architecture(options=OPTIONS, heads=list(heads))).eval()
    state = {**backbone.vit.state_dict(), "decoder_embed.weight": torch.rand(2, 2), "mask_token": torch.rand(1)}
    torch.save({"model": state}, folder / "small.pth")
    return backbone


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty working folder, ``$TINYMIM_TEACHERS`` beside it, and a project without teachers."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("TINYMIM_TEACHERS", str(tmp_path / "mine"))
    monkeypatch.setattr(teachers, "PROJECT", tmp_path / "project")
    places = SimpleNamespace(env=tmp_path / "mine", cwd=tmp_path / "here/teachers", own=tmp_path / "project/teachers")
    (tmp_path / "project").mkdir()
    for folder in vars(places).values():
        folder.mkdir()
    return places


def test_cards__all_of_the_projects_parse_and_build():
    paths = sorted((teachers.PROJECT / "teachers").glob("*.yaml"))
    assert paths
    for path in paths:
        card = teachers.read_card(path)
        assert card.name == path.stem
        assert card.licence
        assert card.citation
        assert card.source
        assert card.url or card.rebuild
        network = skeleton(card.architecture)
        assert card.architecture.heads in (network.heads, network.heads[0])  # a card states its head layout
        assert card.target_block is None or 1 <= card.target_block <= network.depth
        assert card.sha256 is None or len(card.sha256) == 64


def test_read_card__fields(home):
    path = write(home.cwd, {"target_block": 2, "labels_seen": True})
    expected = {**CARD, "architecture": Architecture(**CARD["architecture"]), "path": path}
    expected |= {"target_block": 2, "labels_seen": True, "rebuild": ""}
    assert teachers.read_card(path) == teachers.Card(**expected)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"licens": "MIT", "shape": 3}, "unknown fields licens, shape; known: .*licence"),
        ({"licence": ...}, "licence"),
        ({"architecture": ...}, "architecture"),
        ({"architecture": {"hedas": 3}}, "hedas"),
        ({"architecture": None}, "architecture|mapping"),
    ],
)
def test_read_card__mistakes_are_named(home, fields, words):
    path = write(home.cwd, fields)
    with pytest.raises(TinymimError, match=rf"teacher card .*small\.yaml.*({words})"):
        teachers.read_card(path)


@pytest.mark.parametrize("text", ["", "name: [", "- 1", "just text"])
def test_read_card__not_a_card(home, text):
    path = write(home.cwd)
    path.write_text(text)
    with pytest.raises(TinymimError, match=r"small\.yaml cannot be read"):
        teachers.read_card(path)


def test_find__unknown_gives_the_nearest_names(home):
    for name in ("mae_vitb16", "mae_vitl16", "dino_vits8"):
        write(home.own, {"name": name})
    with pytest.raises(TinymimError, match=r"no card 'mae_vitb'; near it: mae_vitb16, mae_vitl16") as caught:
        teachers.find("mae_vitb")
    assert "tinymim teachers" in str(caught.value)


def test_find__env_then_cwd_then_project(home):
    for licence, folder in zip(("env", "cwd", "own"), (home.env, home.cwd, home.own), strict=True):
        write(folder, {"licence": licence})
    for licence, folder in zip(("env", "cwd", "own"), (home.env, home.cwd, home.own), strict=True):
        assert teachers.find("small").licence == licence
        assert [card.licence for card in teachers.cards()] == [licence]
        (folder / "small.yaml").unlink()
    assert teachers.cards() == []


def test_find__by_path(home, tmp_path):
    assert teachers.find(str(write(tmp_path, {"name": "elsewhere"}))).name == "elsewhere"


def test_weights_path__beside_the_card_or_where_the_environment_says(home):
    card = teachers.read_card(write(home.own))
    assert card.weights_path() is None
    publish(home.env)
    assert card.weights_path() == home.env / "small.pth"
    publish(home.own)
    assert card.weights_path() == home.own / "small.pth"


def test_problem__says_where_to_get_the_weights_and_where_to_put_them(home):
    write(home.env)
    problem = teachers.locate("small").problem()
    for part in ("weights of small", CARD["url"], str(home.env / "small.pth"), "$TINYMIM_TEACHERS"):
        assert part in problem
    with pytest.raises(TinymimError, match=r"https://example\.org/small\.pth"):
        teachers.locate("small").load()


def test_problem__says_how_to_rebuild(home):
    write(home.env, {"rebuild": "make small"})
    problem = teachers.locate("small").problem()
    assert f"restore {home.env / 'small.pth'} from the repository" in problem
    assert "`make small`" in problem


def test_problem__none_where_the_weights_are(home):
    write(home.own)
    publish(home.env)
    assert teachers.locate("small").problem() is None


def test_locate__knows_sizes_without_any_weights(home):
    write(home.env, {"target_block": 2})
    located = teachers.locate("small")
    assert located.skeleton.heads == [3, 3, 6]
    assert all(parameter.is_meta for parameter in located.skeleton.parameters())
    assert (located.target_block, located.licence) == (2, "MIT")


def test_load__frozen_in_eval_mode_and_the_same_network(home):
    write(home.env)
    original = publish(home.env)
    backbone, _ = teachers.locate("small").load()
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not any(module.training for module in backbone.modules())
    assert backbone.heads == [3, 3, 6]
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(backbone.features(images), original.features(images))


@pytest.mark.parametrize("recorded", [True, False])
def test_load__the_log_line_says_source_sha256_and_keys(home, recorded):
    backbone = publish(home.env)
    digest = files.sha256(home.env / "small.pth")
    write(home.env, {"sha256": digest if recorded else None})
    _, provenance = teachers.locate("small").load()
    count = len(backbone.vit.state_dict()) - 2  # all but the final norm's two
    assert (provenance.sha256, provenance.verified, provenance.matched) == (digest, recorded, count)
    assert provenance.unexpected == ["decoder_embed.weight", "mask_token", "norm.bias", "norm.weight"]
    line = str(provenance)
    assert "\n" not in line
    for part in ("small", str(home.env / "small.pth"), digest[:12], "licence MIT"):
        assert part in line
    for part in (f"keys matched {count}", "missing 0", "unexpected 4", "decoder_embed.weight"):
        assert part in line
    assert ("as its card says" in line) == recorded


def test_load__another_sha256_is_an_error(home):
    publish(home.env)
    digest, wrong = files.sha256(home.env / "small.pth"), "0" * 64
    write(home.env, {"sha256": wrong})
    with pytest.raises(TinymimError, match=rf"small\.pth has sha256 {digest}.*small\.yaml says {wrong}"):
        teachers.locate("small").load()


def test_load__a_head_layout_other_than_the_files_is_refused(home):
    backbone = publish(home.env)
    weights.export(backbone, home.env / "small.safetensors", {})
    fields = {"file": "small.safetensors"}
    write(home.env, fields)
    assert teachers.locate("small").load()[0].heads == [3, 3, 6]
    write(home.env, {**fields, "architecture": {"options": OPTIONS, "heads": 3}})
    with pytest.raises(TinymimError, match="head layout"):
        teachers.locate("small").load()


def test_load__weights_that_lack_the_encoder_stop_it(home):
    write(home.env)
    torch.save({"model": {"decoder_embed.weight": torch.rand(2, 2)}}, home.env / "small.pth")
    with pytest.raises(TinymimError, match="encoder weights missing"):
        teachers.locate("small").load()


def test_locate__a_checkpoint_of_this_project(home, tmp_path):
    original = publish(home.env)
    weights.export(original, tmp_path / "student.safetensors", {"licence": "BSD"})
    located = teachers.locate(str(tmp_path / "student.safetensors"))
    assert (located.card, located.problem(), located.licence) == (None, None, "BSD")
    assert located.skeleton.heads == [3, 3, 6]
    backbone, provenance = located.load()
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(backbone.features(images), original.features(images))
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert provenance.sha256 == files.sha256(tmp_path / "student.safetensors")


def test_locate__a_foreign_checkpoint_needs_a_card(home):
    publish(home.env)
    with pytest.raises(TinymimError, match=r"small\.pth is no checkpoint of tinymim.*card"):
        teachers.locate(str(home.env / "small.pth"))


def test_freeze__does_not_change_the_weights():
    backbone = Backbone(Architecture(options=OPTIONS)).train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    assert teachers.freeze(backbone) is backbone
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


CLASSIFIER = {"num_classes": 5, "global_pool": "token"}


def publish_supervised(folder, architecture):
    """A supervised ViT under timm's names, and its logits."""
    torch.manual_seed(0)
    vit = Backbone(Architecture(**architecture)).eval().vit
    torch.nn.init.normal_(vit.head.weight)
    torch.save(vit.state_dict(), folder / "small.pth")
    return vit


@torch.no_grad()
def test_classifier__of_a_card_is_loaded_where_asked_and_left_elsewhere(home):
    architecture = {"options": OPTIONS | CLASSIFIER, "mean": [0.4, 0.5, 0.6]}
    vit = publish_supervised(home.env, architecture)
    write(home.env, {"architecture": architecture})
    located = teachers.locate("small")
    assert located.classes == 5
    backbone, provenance = located.load(classifier=True)
    images, tap = torch.rand(2, 3, 16, 16), Tap(3, "logits")
    assert torch.equal(backbone.read(images, [tap])[tap], vit(backbone.normalise(images)))
    assert provenance.matched == len(vit.state_dict())
    assert provenance.unexpected == []
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    plain, provenance = located.load()
    assert plain.classes is None
    assert plain.record()["architecture"]["options"]["num_classes"] == 0
    assert provenance.unexpected == ["head.bias", "head.weight", "norm.bias", "norm.weight"]


@pytest.mark.parametrize(("key", "meaning"), [("head.weight", "classifier"), ("norm.bias", "final norm")])
def test_classifier__is_never_random(home, key, meaning):
    architecture = {"options": OPTIONS | CLASSIFIER}
    state = publish_supervised(home.env, architecture).state_dict()
    del state[key]
    torch.save(state, home.env / "small.pth")
    write(home.env, {"architecture": architecture})
    with pytest.raises(TinymimError, match=rf"classifier weights missing: {meaning}"):
        teachers.locate("small").load(classifier=True)


def test_classifier__asked_of_a_teacher_without_one_names_the_remedy(home):
    write(home.env)
    weights.export(publish(home.env), home.env / "student.safetensors", {})
    for source in ("small", str(home.env / "student.safetensors")):
        located = teachers.locate(source)
        assert located.classes is None
        with pytest.raises(TinymimError, match=r"has no classifier.*finetune_digits.*num_classes and global_pool"):
            located.load(classifier=True)


def test_locate__nothing_named():
    with pytest.raises(TinymimError, match=r"teacher: none is named; give a checkpoint's path or a card's name"):
        teachers.locate("")
