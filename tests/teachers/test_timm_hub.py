import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError

from tinymim.errors import TinymimError
from tinymim.teachers import locate, timm_hub, weights
from tinymim.vit.backbone import Backbone, skeleton

TINY = "timm:test_vit.r160_in1k"


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(timm_hub, "unreachable", lambda url: f"no connection to {url.split('/')[2]}")


@pytest.mark.parametrize(
    ("name", "size", "mean", "labels", "licence", "classes"),
    [
        ("vit_base_patch16_224.mae", 224, 0.485, False, "cc-by-nc-4.0", None),
        ("vit_base_patch16_224.orig_in21k", 224, 0.5, True, "apache-2.0", None),
        ("vit_small_patch14_reg4_dinov2.lvd142m", 518, 0.485, False, "apache-2.0", None),
        ("vit_base_patch16_clip_224.openai", 224, 0.48145466, False, "apache-2.0", None),
        ("vit_base_patch16_clip_224.laion2b_ft_in1k", 224, 0.48145466, True, "apache-2.0", 1000),
        ("beit_base_patch16_224.in22k_ft_in22k", 224, 0.5, True, "apache-2.0", 21841),
        ("eva02_tiny_patch14_224.mim_in22k", 224, 0.48145466, False, "mit", None),
        ("eva02_tiny_patch14_336.mim_in22k_ft_in1k", 336, 0.48145466, True, "mit", 1000),
        ("deit3_small_patch16_224.fb_in1k", 224, 0.485, True, "apache-2.0", 1000),
    ],
)
def test_card__is_what_timm_says(home, name, size, mean, labels, licence, classes):
    card = timm_hub.card(f"timm:{name}")
    assert card.name == f"timm:{name}"
    assert card.hub == f"timm/{name}/model.safetensors"
    assert card.architecture.mean[0] == mean
    assert (card.labels_seen, card.licence) == (labels, licence)
    network = skeleton(card.architecture)
    assert network.image_size == (size, size)
    assert network.classes == classes


def test_card__without_a_tag_takes_timms_first_and_names_it(home):
    assert timm_hub.card("timm:deit_small_patch16_224").name == "timm:deit_small_patch16_224.fb_in1k"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("timm:vit_bas_patch16_224", "timm has no model 'vit_bas_patch16_224'; near it: vit_base_patch16_224"),
        ("timm:vit_base_patch16_224.nonsense", "no weights nonsense of vit_base_patch16_224 on the hub; it has .*mae"),
        ("timm:vit_small_patch16_18x2_224", "no weights at all of vit_small_patch16_18x2_224.*teachers add"),
        ("timm:vit_huge_patch14_gap_224.in1k_ijepa", "no weights in1k_ijepa"),
    ],
)
def test_card__what_timm_has_not_is_named(home, source, words):
    with pytest.raises(TinymimError, match=rf"teacher: .*{words}"):
        locate.locate(source)


def test_locate__no_plain_vit_is_refused(home):
    with pytest.raises(TinymimError, match=r"arch: resnet50 is no Vision Transformer"):
        locate.locate("timm:resnet50")


def test_problem__without_network_says_where_from_and_where_to(home, offline):
    located = locate.locate("timm:vit_base_patch16_224.mae")
    problem = located.problem()
    for part in (
        "no connection to huggingface.co",
        "https://huggingface.co/timm/vit_base_patch16_224.mae/resolve/main/model.safetensors",
        str(home.env / "vit_base_patch16_224.mae.safetensors"),
    ):
        assert part in problem
    with pytest.raises(TinymimError, match="no connection"):
        located.load()


def small(folder, name):
    """Weights of timm's test_vit, with every one drawn anew."""
    card = timm_hub.card(TINY)
    torch.manual_seed(0)
    backbone = Backbone(card.architecture)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    weights.save_file(dict(backbone.vit.state_dict()), path)
    return backbone.eval(), path


@torch.no_grad()
def test_load__from_the_hubs_cache_without_network(home, offline, tmp_path):
    repository = tmp_path / "hub/models--timm--test_vit.r160_in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("abc")
    original, path = small(repository / "snapshots/abc", "model.safetensors")
    located = locate.locate(TINY)
    assert located.problem() is None
    backbone, provenance = located.load()
    images = torch.rand(2, 3, 160, 160)
    assert torch.equal(backbone.features(images), original.features(images))
    assert (provenance.path, provenance.name) == (str(path), TINY)
    assert provenance.licence == "apache-2.0"


def test_load__put_in_place_by_hand(home, offline):
    small(home.cwd, "test_vit.r160_in1k.safetensors")
    assert locate.locate(TINY).load()[1].path.endswith("teachers/test_vit.r160_in1k.safetensors")


def test_load__fetches_what_is_not_here(home, monkeypatch, tmp_path):
    _, path = small(tmp_path, "fetched.safetensors")
    asked = []
    monkeypatch.setattr(timm_hub, "unreachable", lambda url: None)
    monkeypatch.setattr(timm_hub, "hf_hub_download", lambda *where, **_: asked.append(where) or str(path))
    located = locate.locate(TINY)
    assert located.problem() is None
    assert asked == []
    assert located.load()[1].path == str(path)
    assert asked == [("timm/test_vit.r160_in1k", "model.safetensors")]


def test_load__a_hub_that_fails_is_one_line(home, monkeypatch):
    def fail(*_, **__):
        raise LocalEntryNotFoundError("it is gone\nand more")

    monkeypatch.setattr(timm_hub, "unreachable", lambda url: None)
    monkeypatch.setattr(timm_hub, "hf_hub_download", fail)
    with pytest.raises(TinymimError, match=r"test_vit\.r160_in1k cannot be fetched \(it is gone\); .*download it from"):
        locate.locate(TINY).load()
