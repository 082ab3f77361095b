import pytest
import torch

from tests.teachers.card_files import CARD, OPTIONS, publish, write
from tinymim import files
from tinymim.errors import TinymimError
from tinymim.teachers import locate, weights
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone
from tinymim.vit.taps import Tap


def test_problem__says_where_to_get_the_weights_and_where_to_put_them(home):
    write(home.env)
    problem = locate.locate("small").problem()
    for part in ("weights of small", CARD["url"], str(home.env / "small.pth"), "$TINYMIM_TEACHERS"):
        assert part in problem
    with pytest.raises(TinymimError, match=r"https://example\.org/small\.pth"):
        locate.locate("small").load()


def test_problem__says_how_to_rebuild(home):
    write(home.env, {"rebuild": "make small"})
    problem = locate.locate("small").problem()
    assert f"restore {home.env / 'small.pth'} from the repository" in problem
    assert "`make small`" in problem


def test_problem__none_where_the_weights_are(home):
    write(home.own)
    publish(home.env)
    assert locate.locate("small").problem() is None


def test_locate__knows_sizes_without_any_weights(home):
    write(home.env, {"target_block": 2})
    located = locate.locate("small")
    assert located.skeleton.heads == [3, 3, 6]
    assert all(parameter.is_meta for parameter in located.skeleton.parameters())
    assert (located.target_block, located.licence) == (2, "MIT")


def test_load__frozen_in_eval_mode_and_the_same_network(home):
    write(home.env)
    original = publish(home.env)
    backbone, _ = locate.locate("small").load()
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
    _, provenance = locate.locate("small").load()
    count = len(backbone.vit.state_dict()) - 2  # all but the final norm's two
    assert (provenance.sha256, bool(provenance.verified), provenance.matched) == (digest, recorded, count)
    assert provenance.unexpected == ["decoder_embed.weight", "mask_token", "norm.bias", "norm.weight"]
    line = str(provenance)
    assert "\n" not in line
    for part in ("small", str(home.env / "small.pth"), digest[:12], "licence MIT"):
        assert part in line
    for part in (
        f"keys matched {count}",
        "missing 0",
        "unexpected 4 (decoder, mask token, final norm (2))",
        "form MAE",
    ):
        assert part in line
    assert ("as its card says" in line) == recorded


def test_load__another_sha256_is_an_error(home):
    publish(home.env)
    digest, wrong = files.sha256(home.env / "small.pth"), "0" * 64
    write(home.env, {"sha256": wrong})
    with pytest.raises(TinymimError, match=rf"small\.pth has sha256 {digest}.*small\.yaml says {wrong}"):
        locate.locate("small").load()


def test_load__a_head_layout_other_than_the_files_is_refused(home):
    backbone = publish(home.env)
    weights.export(backbone, home.env / "small.safetensors", {})
    fields = {"file": "small.safetensors"}
    write(home.env, fields)
    assert locate.locate("small").load()[0].heads == [3, 3, 6]
    write(home.env, {**fields, "architecture": {"options": OPTIONS, "heads": 3}})
    with pytest.raises(TinymimError, match="head layout"):
        locate.locate("small").load()


def test_load__weights_that_lack_the_encoder_stop_it(home):
    write(home.env)
    torch.save({"model": {"decoder_embed.weight": torch.rand(2, 2)}}, home.env / "small.pth")
    with pytest.raises(TinymimError, match="encoder weights missing"):
        locate.locate("small").load()


def test_locate__a_checkpoint_of_this_project(home, tmp_path):
    original = publish(home.env)
    weights.export(original, tmp_path / "student.safetensors", {"licence": "BSD"})
    located = locate.locate(str(tmp_path / "student.safetensors"))
    assert (located.card, located.problem(), located.licence) == (None, None, "BSD")
    assert located.skeleton.heads == [3, 3, 6]
    backbone, provenance = located.load()
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(backbone.features(images), original.features(images))
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert provenance.sha256 == files.sha256(tmp_path / "student.safetensors")


@pytest.mark.parametrize("through_a_link", [False, True])
def test_load__a_checkpoint_is_compared_with_the_sha256_beside_it(home, through_a_link):
    path = named = home.env / "step.safetensors"
    weights.export(publish(home.env), path, {})
    if through_a_link:
        named = home.env / "last.safetensors"
        named.symlink_to(path.name)
    noted = home.env / "step.safetensors.sha256"
    noted.write_text(f"{files.sha256(path)}  {path.name}\n")
    _, provenance = locate.locate(str(named)).load()
    assert "(as step.safetensors.sha256 beside it says)" in str(provenance)
    noted.write_text(f"{'0' * 64}  {path.name}\n")
    with pytest.raises(TinymimError, match=r"has sha256 .*step\.safetensors\.sha256 beside it says another"):
        locate.locate(str(named)).load()


def test_freeze__does_not_change_the_weights():
    backbone = Backbone(Architecture(options=OPTIONS)).train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    assert locate.freeze(backbone) is backbone
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
    located = locate.locate("small")
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
        locate.locate("small").load(classifier=True)


def test_classifier__asked_of_a_teacher_without_one_names_the_remedy(home):
    write(home.env)
    weights.export(publish(home.env), home.env / "student.safetensors", {})
    for source in ("small", str(home.env / "student.safetensors")):
        located = locate.locate(source)
        assert located.classes is None
        with pytest.raises(TinymimError, match=r"has no classifier.*finetune_digits.*num_classes and global_pool"):
            located.load(classifier=True)


def test_locate__nothing_named():
    with pytest.raises(
        TinymimError, match=r"teacher: none is named; give a checkpoint's path, a card's name .* or timm:NAME"
    ):
        locate.locate("")


def test_load__takes_the_file_as_it_was_read_to_be_located(home, tmp_path, monkeypatch):
    path, reads, read = tmp_path / "mine.safetensors", [], weights.read
    original = publish(home.env)
    weights.export(original, path, {})
    monkeypatch.setattr(weights, "read", lambda path: reads.append(path) or read(path))
    located = locate.locate(str(path))
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(located.load()[0].features(images), original.features(images))
    assert reads == [path]
    located.load()
    assert reads == [path, path], "it is not kept once it is loaded"


def test_load__reads_a_file_again_that_was_written_since_it_was_located(home, tmp_path):
    path = tmp_path / "mine.safetensors"
    weights.export(publish(home.env), path, {})
    located = locate.locate(str(path))
    torch.manual_seed(1)
    other = Backbone(Architecture("vit_tiny_patch16_224", OPTIONS, heads=[3, 3, 6])).eval()
    weights.export(other, path, {})
    images = torch.rand(2, 3, 16, 16)
    backbone, provenance = located.load()
    assert torch.equal(backbone.features(images), other.features(images))
    assert provenance.sha256 == files.sha256(path)
