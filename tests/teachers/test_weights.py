import fcntl
import hashlib
import os
import pickle
import stat
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tinymim import files
from tinymim.errors import TinymimError
from tinymim.teachers import weights
from tinymim.vit.architecture import Architecture, set_heads
from tinymim.vit.backbone import Backbone
from tinymim.vit.classifier_head import Head, HeadForm
from tinymim.vit.conventions import CONVENTIONS, Conventions
from tinymim.vit.taps import Tap

TINY = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 3}


def tiny(seed=0, **fields):
    torch.manual_seed(seed)
    return Backbone(Architecture(options=TINY, **fields)).eval()


def encoder(backbone):
    """The weights that a file must hold for ``backbone``."""
    return {k: v for k, v in backbone.vit.state_dict().items() if not k.startswith("norm.")}


@torch.no_grad()
def features(backbone, block=None):
    return backbone.features(torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)), block)


def saved(path, content, **options):
    torch.save(content, path, **options)
    return path


def test_export__loads_as_the_same_network(tmp_path):
    backbone = tiny(heads=[3, 6, 1], mean=(0.5, 0.4, 0.3), pos_embed="sincos")
    backbone.output_block = 2
    file = tmp_path / "new" / "student.safetensors"
    weights.export(backbone, file, {"licence": "MIT", "teacher": {"name": "t"}})
    again, provenance, record = weights.load(file)
    assert again.heads == [3, 6, 1]
    assert again.output_block == 2
    for block in (None, 3):
        assert torch.equal(features(again.eval(), block), features(backbone, block))
    assert (provenance.name, provenance.path, provenance.licence) == ("student.safetensors", str(file), "MIT")
    assert provenance.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert provenance.matched == len(encoder(backbone))
    assert (provenance.missing, provenance.unexpected, provenance.verified) == ([], [], "")
    assert record["teacher"] == {"name": "t"}


def test_export__keeps_heads_regrouped_after_building(tmp_path):
    backbone = tiny()
    set_heads(backbone.vit, 3, 12)
    weights.export(backbone, tmp_path / "x.safetensors", {})
    assert weights.load(tmp_path / "x.safetensors")[0].heads == [3, 3, 12]


def test_export__timms_names_without_foreign_parts(tmp_path):
    backbone = tiny()
    weights.export(backbone, tmp_path / "x.safetensors", {}, dtype=torch.bfloat16)
    with safe_open(tmp_path / "x.safetensors", framework="pt") as stored:
        state = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
    assert state.keys() == encoder(backbone).keys()
    assert {value.dtype for value in state.values()} == {torch.bfloat16}
    again, *_ = weights.load(tmp_path / "x.safetensors")
    assert torch.allclose(features(again.eval()), features(backbone), atol=3e-2)


def test_load__of_a_lightning_checkpoint_takes_the_backbone_alone(tmp_path):
    backbone = tiny(heads=6)
    state = {f"student.vit.{key}": value for key, value in backbone.vit.state_dict().items()}
    state |= {"targets.0.projection.weight": torch.rand(3, 3)}
    record = {"backbone": backbone.record(), "prefix": "student.vit.", "licence": "MIT"}
    path = saved(tmp_path / "last.ckpt", {"state_dict": state, "epoch": 3, weights.RECORD: record})
    again, provenance, _ = weights.load(path)
    assert torch.equal(features(again.eval()), features(backbone))
    assert (provenance.unexpected, provenance.licence) == (["norm.bias", "norm.weight"], "MIT")


def test_load__refuses_a_file_without_record(tmp_path):
    path = saved(tmp_path / "foreign.pth", tiny().vit.state_dict())
    with pytest.raises(
        TinymimError, match=r"no checkpoint of tinymim: it holds timm.* \(ViT: width 24, depth 3, .*card"
    ):
        weights.load(path)


def mae_format(backbone):
    """What MAE's authors publish: the encoder, and a decoder beside it."""
    decoder = ["mask_token", "decoder_pos_embed", "decoder_embed.weight", "decoder_blocks.0.norm1.weight"]
    return {"model": {**backbone.vit.state_dict(), **{name: torch.rand(2, 2) for name in decoder}}}


def test_fill__mae_format_counts_the_decoder_as_unexpected(tmp_path):
    backbone, other = tiny(0), tiny(1)
    content = mae_format(backbone)
    matched, unexpected = weights.fill(other, weights.read(saved(tmp_path / "mae.pth", content)))
    assert matched == len(encoder(backbone))
    assert unexpected == sorted(content["model"].keys() - encoder(backbone).keys())
    assert "decoder_embed.weight" in unexpected
    assert torch.equal(features(other), features(backbone))


MEANT = {
    "cls_token": "CLS token",
    "pos_embed": "positions",
    "blocks.1.attn.qkv.bias": "block 2's attention",
    "patch_embed.proj.weight": "patch embedding",
}


@pytest.mark.parametrize("key", MEANT)
def test_fill__missing_encoder_weights_are_named_and_nothing_is_loaded(tmp_path, key):
    content, other = mae_format(tiny(0)), tiny(1)
    del content["model"][key]
    before = features(other)
    with pytest.raises(TinymimError, match=rf"mae\.pth holds MAE.*encoder weights missing: {MEANT[key]}; left out"):
        weights.fill(other, weights.read(saved(tmp_path / "mae.pth", content)))
    assert torch.equal(features(other), before)


def test_fill__of_another_shape_names_both(tmp_path):
    content, other = mae_format(tiny(0)), tiny(1)
    content["model"]["blocks.2.mlp.fc1.bias"] = torch.rand(7)
    with pytest.raises(TinymimError, match=r"of another shape: blocks\.2\.mlp\.fc1\.bias \(7,\), not \(96,\);"):
        weights.fill(other, weights.read(saved(tmp_path / "mae.pth", content)))


@pytest.mark.parametrize("foreign", ["norm.weight", "head.weight", "decoder_norm.bias", "mask_token", "lm_head.bias"])
def test_fill__parts_nobody_reads_may_be_missing_or_strange(tmp_path, foreign):
    backbone = tiny(0)
    state = {**encoder(backbone), foreign: torch.rand(5)}
    matched, unexpected = weights.fill(tiny(1), weights.read(saved(tmp_path / "x.pth", state)))
    assert (matched, unexpected) == (len(encoder(backbone)), [foreign])


def test_fill__another_head_layout_is_refused(tmp_path):
    weights.export(tiny(heads=[3, 3, 6]), tmp_path / "x.safetensors", {})
    other = tiny(1, heads=3)
    before = features(other)
    with pytest.raises(TinymimError, match=r"head layout.*\[3, 3, 6\].*\[3, 3, 3\].*Set heads: \[3, 3, 6\]"):
        weights.fill(other, weights.read(tmp_path / "x.safetensors"))
    assert torch.equal(features(other), before)


FORMATS = {
    "safetensors": lambda path, state: save_file(state, path),
    "pth": lambda path, state: torch.save({"model": state}, path),
    "old.pth": lambda path, state: torch.save({"model": state}, path, _use_new_zipfile_serialization=False),
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("left", [0, 1, 3, 30, 200, 0.1, 0.5, 0.99, -1])
def test_read__truncated(tmp_path, form, left):
    path = tmp_path / f"x.{form}"
    FORMATS[form](path, encoder(tiny()))
    assert weights.read(path).state.keys() == encoder(tiny()).keys()
    whole = path.read_bytes()
    path.write_bytes(whole[: int(left * len(whole)) if isinstance(left, float) else left])
    with pytest.raises(TinymimError, match=r"x\.(old\.pth|pth|safetensors)"):
        weights.read(path)


@pytest.mark.parametrize("suffix", ["safetensors", "pth", "bin"])
@pytest.mark.parametrize(
    "content", [b"<html>404: Not Found</html>\n", b"hello", bytes(100), b"version https://git-lfs"]
)
def test_read__what_is_no_weights_file(tmp_path, suffix, content):
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(content)
    with pytest.raises(TinymimError, match=f"x.{suffix}"):
        weights.read(path)


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"epoch": 3}, {"state_dict": {}}, torch.zeros(3)])
def test_read__a_file_without_weights(tmp_path, content):
    with pytest.raises(TinymimError, match=r"x\.pth holds"):
        weights.read(saved(tmp_path / "x.pth", content))


def test_read__no_file(tmp_path):
    with pytest.raises(TinymimError, match=r"no weights file at .*x\.pth"):
        weights.read(tmp_path / "x.pth")


class Evil:
    """Unpickled, it makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("form", ["zip", "old", "bare pickle"])
def test_read__refuses_a_pickle_that_runs_code(tmp_path, form):
    path, mark = tmp_path / "evil.pth", tmp_path / "mark"
    content = {"model": encoder(tiny()), "args": Evil(mark)}
    if form == "bare pickle":
        path.write_bytes(pickle.dumps(content["args"], protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(TinymimError, match=r"evil\.pth .*run code"):
        weights.read(path)
    assert not mark.exists()
    torch.load(path, weights_only=False) if form != "bare pickle" else pickle.loads(path.read_bytes())
    assert mark.exists()  # the file was dangerous indeed


def test_write_atomically__replaces_the_file_whole(tmp_path):
    file = tmp_path / "deep" / "x.txt"
    for text in ("old", "new"):
        files.write_atomically(file, lambda temporary, text=text: temporary.write_text(text))
        assert file.read_text() == text
    assert list(file.parent.iterdir()) == [file]
    assert file.stat().st_mode & 0o777 == 0o644


def test_write_atomically__writes_to_a_device_and_leaves_it(tmp_path):
    reading, writing = os.pipe()
    files.write_text(Path(f"/dev/fd/{writing}"), "all")
    assert os.read(reading, 9) == b"all"
    os.close(reading), os.close(writing)
    (tmp_path / "null").symlink_to(os.devnull)
    files.write_text(tmp_path / "null", "all")
    assert (tmp_path / "null").is_char_device()
    os.mkfifo(tmp_path / "pipe")  # nobody may ever read from it
    files.write_text(tmp_path / "pipe", "all")
    assert (tmp_path / "pipe").read_text() == "all"


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_write_atomically__a_failure_leaves_the_old_file_and_nothing_else(tmp_path, error):
    file = tmp_path / "x.txt"
    file.write_text("old")

    def fail(temporary):
        temporary.write_text("half")
        assert temporary.parent == file.parent
        raise error("disk full")

    with pytest.raises(error, match="disk full"):
        files.write_atomically(file, fail)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_sha256__of_the_bytes(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert files.sha256(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


STAR = "deit_tiny_distilled_patch16_224"


def test_star__goes_through_export_and_checkpoint_bit_for_bit(tmp_path):
    backbone = tiny(arch=STAR, heads=[3, 6, 12], pos_embed="sincos")
    weights.export(backbone, tmp_path / "star.safetensors", {})
    state = {f"student.vit.{key}": value for key, value in backbone.vit.state_dict().items()}
    content = {"state_dict": state, weights.RECORD: {"backbone": backbone.record(), "prefix": "student.vit."}}
    for path in (tmp_path / "star.safetensors", saved(tmp_path / "star.ckpt", content)):
        again, *_ = weights.load(path)
        assert (again.distilled, again.heads) == (True, [3, 6, 12])
        assert torch.equal(again.vit.dist_token, backbone.vit.dist_token)
        assert torch.equal(features(again.eval()), features(backbone))


def test_star__the_distillation_token_must_be_there_and_its_classifier_need_not(tmp_path):
    backbone, other = tiny(0, arch=STAR), tiny(1, arch=STAR)
    state = {**encoder(backbone), "head_dist.weight": torch.rand(5, 24)}
    _, unexpected = weights.fill(other, weights.read(saved(tmp_path / "x.pth", state)))
    assert unexpected == ["head_dist.weight"]
    assert torch.equal(other.vit.dist_token, backbone.vit.dist_token)
    del state["dist_token"]
    with pytest.raises(TinymimError, match=r"encoder weights missing: distillation token;"):
        weights.fill(other, weights.read(saved(tmp_path / "x.pth", state)))


def fine_tuned(form, **fields):
    """A backbone with a head of this project, and the Lightning checkpoint that would hold both."""
    backbone = tiny(**fields)
    backbone.classifier = Head(24, backbone.prefix, form).eval()
    with torch.no_grad():
        for parameter in backbone.classifier.parameters():
            parameter.add_(torch.randn_like(parameter))
    state = {f"model.backbone.vit.{key}": value for key, value in backbone.vit.state_dict().items()}
    state |= {f"model.{key}": value for key, value in backbone.classifier.state_dict().items()}
    record = {"backbone": backbone.record(), "prefix": "model.backbone.vit.", "classifier": vars(form)}
    record[CONVENTIONS] = Conventions().record()
    return backbone, {"state_dict": {**state, "metrics.top1.tp": torch.zeros(1)}, weights.RECORD: record}


FORMS = [HeadForm(5), HeadForm(5, "cls", 8), HeadForm(5, "cls_dist", 8), HeadForm(5, norm="batch")]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form.pool} {form.norm} {form.neck}")
@torch.no_grad()
def test_classifier__is_loaded_with_the_backbone_it_was_trained_with(tmp_path, form):
    backbone, content = fine_tuned(form, arch=STAR)
    path = saved(tmp_path / "last.ckpt", content)
    again, provenance, _ = weights.load(path, classifier=True)
    images, tap = torch.rand(2, 3, 16, 16), Tap(3, "logits")
    assert torch.equal(again.eval().read(images, [tap])[tap], backbone.read(images, [tap])[tap])
    assert provenance.matched == len(encoder(backbone)) + len(backbone.classifier.state_dict())
    assert weights.load(path)[0].classes is None


HEAD = {
    "head.weight": "classifier",
    "norm.bias": "final norm",
    "neck.linear.weight": "neck",
    "head_dist.bias": "classifier",
}


@pytest.mark.parametrize("key", HEAD)
def test_classifier__with_a_weight_missing_or_of_another_shape_is_refused(tmp_path, key):
    _, content = fine_tuned(HeadForm(5, "cls_dist", 8), arch=STAR)
    taken = content["state_dict"].pop(f"model.{key}")
    with pytest.raises(TinymimError, match=rf"classifier weights missing: {HEAD[key]}$"):
        weights.load(saved(tmp_path / "x.ckpt", content), classifier=True)
    content["state_dict"][f"model.{key}"] = taken[:-1]
    with pytest.raises(TinymimError, match=rf"of another shape: {key} "):
        weights.load(saved(tmp_path / "x.ckpt", content), classifier=True)
    assert weights.load(tmp_path / "x.ckpt")[0].depth == 3, "the backbone alone is whole"


def test_write_text__the_file_is_on_disk_before_its_name_and_the_name_before_it_returns(tmp_path, monkeypatch):
    path, flushed = tmp_path / "state.json", []

    def fsync(opened):
        content = path.read_text() if path.exists() else None
        flushed.append((stat.S_ISDIR(os.fstat(opened).st_mode), content))

    monkeypatch.setattr(os, "fsync", fsync)
    files.write_text(path, "new")
    assert flushed == [(False, None), (True, "new")]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
@pytest.mark.parametrize("place", ["first", "last"])
def test_fill__weights_that_are_not_finite_are_refused_and_named(tmp_path, value, place):
    state = encoder(tiny())
    key = "patch_embed.proj.bias" if place == "first" else "blocks.2.mlp.fc2.weight"
    state[key] = state[key].double()
    state[key].view(-1)[-2:] = value
    backbone = tiny(1)
    with pytest.raises(
        TinymimError, match=r"x\.pth holds 2 weights that are not finite .*(patch embedding|block 3's MLP): "
    ) as said:
        weights.fill(backbone, weights.read(saved(tmp_path / "x.pth", state)))
    assert "take another copy, or a checkpoint of before" in str(said.value)


def test_load__a_file_of_ours_that_is_not_finite(tmp_path):
    _, content = fine_tuned(HeadForm(5))
    content["state_dict"]["model.head.weight"][0, 0] = torch.nan
    path = saved(tmp_path / "x.ckpt", content)
    assert weights.load(path)[0].depth == 3, "the backbone alone is right"
    with pytest.raises(TinymimError, match=r"holds 1 weight that is not finite .* of classifier: "):
        weights.load(path, classifier=True)


def test_fill__numbers_that_are_no_weights_are_refused(tmp_path):
    state = encoder(tiny())
    state["blocks.1.mlp.fc1.weight"] = state["blocks.1.mlp.fc1.weight"].mul(100).to(torch.int8)
    with pytest.raises(TinymimError, match=r"no floating-point numbers: blocks\.1\.mlp\.fc1\.weight torch\.int8"):
        weights.fill(tiny(1), weights.read(saved(tmp_path / "x.pth", state)))


def test_read__by_what_a_file_is_whatever_its_ending(tmp_path):
    backbone = tiny()
    weights.export(backbone, tmp_path / "a.safetensors", {})
    (tmp_path / "a.safetensors").rename(tmp_path / "a.pth")
    torch.save(encoder(backbone), tmp_path / "b.safetensors")
    for name in ("a.pth", "b.safetensors"):
        again = tiny(1)
        weights.fill(again, weights.read(tmp_path / name))
        assert torch.equal(features(again), features(backbone))


def test_read__what_is_no_whole_file(tmp_path):
    (tmp_path / "folder.pth").mkdir()
    (tmp_path / "link.pth").symlink_to("away.pth")
    os.mkfifo(tmp_path / "pipe.pth")
    (tmp_path / "model-00001-of-00003.safetensors").touch()
    for name, words in {
        "folder.pth": "that is a folder",
        "link.pth": "that is a link to away.pth, where there is none",
        "pipe.pth": "that is no regular file",
        "model-00001-of-00003.safetensors": "is part 1 of 3 of some weights",
        "absent.pth": "no weights file at .*absent.pth$",
    }.items():
        with pytest.raises(TinymimError, match=words):
            weights.read(tmp_path / name)


def test_write__clears_what_a_killed_writer_left(tmp_path):
    hour = time.time() - 3600
    left, folder = tmp_path / ".x.txt.abcd1234", tmp_path / ".out.abcd1234"
    left.write_text("half")
    (folder / "deep").mkdir(parents=True)
    names = (".x.txt.new_1234", ".x.txt", ".x.txt.ABCD1234", ".y.txt.abcd1234", ".x.txt.used1234")
    spared = [tmp_path / name for name in names]
    for place in spared:
        place.touch()
    for place in (left, folder, *spared[1:]):
        os.utime(place, (hour, hour))
    with spared[-1].open() as used:
        fcntl.flock(used, fcntl.LOCK_EX)  # a slow writer
        files.write_text(tmp_path / "x.txt", "whole")
        assert not left.exists()
        assert all(place.exists() for place in spared)
        files.write_folder(tmp_path / "out", lambda place: (place / "a").write_text("whole"))
        assert not folder.exists()


def test_read__says_that_there_is_an_average_beside_the_weights(tmp_path, capsys):
    state = encoder(tiny())
    weights.read(saved(tmp_path / "x.pth", {"model": state, "model_ema": state, "epoch": 3}))
    assert "x.pth holds an average of its weights too (model_ema), which is not read" in capsys.readouterr().err
    weights.read(saved(tmp_path / "y.pth", {"model_ema": {}, "state_dict": state, "ema": 0.9999}))
    assert "(model_ema)" in capsys.readouterr().err
    weights.read(saved(tmp_path / "z.pth", {"model": state, "ema": 0.9999}))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("spared", [(), ("norm", "bias", "token", "pos_embed")])
def test_fill__weights_that_are_all_zero_are_refused(tmp_path, spared):
    state = {key: value if any(part in key for part in spared) else value * 0 for key, value in encoder(tiny()).items()}
    path = saved(tmp_path / "x.pth", state)
    with pytest.raises(TinymimError, match=r"x\.pth holds only zeros where weights belong.*; take another copy"):
        weights.fill(tiny(1), weights.read(path))
    state["blocks.2.mlp.fc2.weight"][0, 0] = 1.0
    assert weights.fill(tiny(1), weights.read(saved(path, state)))
