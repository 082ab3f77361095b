"""Exports opened by others alone: timm, transformers, onnxruntime and torch.export know nothing of this project."""

from __future__ import annotations

import copy
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from tests.conftest import tiny, write_card
from tests.training.made import NAMES, checkpoint, network
from tinymim import files
from tinymim.cli import main
from tinymim.data.transforms import PlainView
from tinymim.errors import TinymimError
from tinymim.export import graphs as program
from tinymim.export import timm_folder as timm_form
from tinymim.export.export_forms import export_folder
from tinymim.teachers import locate, weights
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone
from tinymim.vit.classifier_head import HeadForm
from tinymim.vit.taps import Tap

PUBLISHED = replace(tiny(24, 4), heads=[4, 4, 6])
RELATION = [Tap(3, "q"), Tap(3, "k")]
DISTILLED = Architecture(
    "deit_tiny_distilled_patch16_224", {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3}
)


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """Of a size that is only cropped: Pillow and torch round a pixel they resize by a grey level now and then."""
    pixels = np.random.default_rng(0).integers(0, 255, (40, 56, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((18, 24))


def view(photo: Image.Image) -> Tensor:
    return PlainView(16)(photo)["image"].unsqueeze(0) / 255


def opened(folder: Path, photo: Image.Image) -> tuple[Any, Tensor]:
    """timm's own model and input."""
    model: Any = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform: Any = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    return model, transform(photo).unsqueeze(0)


def mean_token(made: Backbone, block: int, images: Tensor) -> Tensor:
    """Features by hand: the blocks one after another."""
    x = made.vit._pos_embed(made.vit.patch_embed(made.normalise(images)))
    for layer in made.vit.blocks[:block]:
        x = layer(x)
    return x[:, made.prefix :].mean(dim=1)


@torch.no_grad()
def test_timm__of_a_student_whose_last_block_is_not_trained(tmp_path: Path, photo: Image.Image) -> None:
    made = network(PUBLISHED, taps=RELATION)
    source = checkpoint(tmp_path / "student.ckpt", made)
    folder = export_folder(str(source), "timm", tmp_path / "out")
    model, images = opened(folder, photo)
    expected = mean_token(made, 2, view(photo))
    assert expected.std() > 0.1
    assert torch.allclose(model(images), expected, atol=1e-5)
    assert torch.allclose(model.forward_features(images)[:, 1:].mean(dim=1), expected, atol=1e-5)
    assert [block.attn.num_heads for block in model.blocks] == [4, 4]
    fresh: Any = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=7).eval()
    assert fresh(images).shape == (1, 7)
    assert torch.equal(fresh.forward_features(images), model.forward_features(images))
    backbone, provenance, _ = weights.load(folder / "model.safetensors")  # and it is one of ours still
    assert torch.allclose(backbone.eval().features(view(photo)), expected, atol=1e-5)
    assert provenance.licence == "CC-BY-NC-4.0"


@torch.no_grad()
def test_blocks__all_or_some(tmp_path: Path, photo: Image.Image) -> None:
    made = network(tiny(24, 4), taps=RELATION)
    source = str(checkpoint(tmp_path / "student.ckpt", made))
    model, images = opened(export_folder(source, "timm", tmp_path / "all", blocks="all"), photo)
    assert len(model.blocks) == 3
    (tokens,) = model.forward_intermediates(images, indices=[1], output_fmt="NLC", intermediates_only=True)
    assert torch.allclose(tokens.mean(dim=1), mean_token(made, 2, view(photo)), atol=1e-5)
    assert "Blocks after 2 of 3 were not trained whole** (q, k of block 3" in (tmp_path / "all/README.md").read_text()
    model, images = opened(export_folder(source, "timm", tmp_path / "one", blocks="1"), photo)
    assert torch.allclose(model(images), mean_token(made, 1, view(photo)), atol=1e-5)
    for blocks in ("0", "4", "last"):
        with pytest.raises(
            TinymimError, match=f"blocks: {blocks} is neither trained, nor all, nor a number from 1 to 3"
        ):
            export_folder(source, "timm", tmp_path / "no", blocks=blocks)
    with pytest.raises(TinymimError, match="blocks: all has no effect on --to onnx"):
        export_folder(source, "onnx", tmp_path / "no", blocks="all")
    assert not (tmp_path / "no").exists()


FORMS = [
    HeadForm(3, "mean"),
    HeadForm(3, "cls"),
    HeadForm(3, "mean", norm="none"),
    HeadForm(3, "mean", norm="batch"),
    HeadForm(3, "cls", norm="batch"),
]


@torch.no_grad()
@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form.pool}-{form.norm}")
def test_timm__classifiers(form: HeadForm, tmp_path: Path, photo: Image.Image) -> None:
    made = network(tiny(24, 4), form)
    source = checkpoint(tmp_path / "tuned.ckpt", made, classes=NAMES)
    folder = export_folder(str(source), "timm", tmp_path / "out")
    model, images = opened(folder, photo)
    expected = made.read(view(photo), [Tap(3, "logits")])[Tap(3, "logits")]
    assert expected.std() > 0.1
    assert torch.allclose(model(images), expected, atol=1e-5)
    (tokens,) = model.forward_intermediates(images, indices=[2], output_fmt="NLC", intermediates_only=True)
    assert torch.allclose(tokens.mean(dim=1), mean_token(made, 3, view(photo)), atol=1e-5)
    assert model.pretrained_cfg["label_names"] == NAMES
    backbone, _ = locate.locate(str(folder / "model.safetensors")).load(classifier=True)
    assert torch.allclose(backbone.read(view(photo), [Tap(3, "logits")])[Tap(3, "logits")], expected, atol=1e-5)
    bare, images = opened(export_folder(str(source), "timm", tmp_path / "bare", classifier=False), photo)
    assert torch.allclose(bare(images), mean_token(made, 3, view(photo)), atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("form", [None, HeadForm(3, "mean"), HeadForm(3, "cls")], ids=str)
def test_timm__opens_in_transformers_too(form: HeadForm | None, tmp_path: Path, photo: Image.Image) -> None:
    import transformers

    made = network(tiny(24, 4), form) if form else network(PUBLISHED, taps=RELATION)
    folder = export_folder(str(checkpoint(tmp_path / "x.ckpt", made)), "timm", tmp_path / "out")
    model, images = opened(folder, photo)
    theirs = transformers.AutoModel.from_pretrained(folder).eval()
    assert torch.equal(theirs(images).last_hidden_state, model.forward_features(images))
    if form:
        classifier = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
        assert torch.equal(classifier(images).logits, model(images))


@torch.no_grad()
def test_timm__of_a_distillation_token(tmp_path: Path, photo: Image.Image) -> None:
    made = network(DISTILLED, HeadForm(3, "cls_dist"))
    source = str(checkpoint(tmp_path / "tuned.ckpt", made))
    model, images = opened(export_folder(source, "timm", tmp_path / "out"), photo)
    tokens = made.read(view(photo), [Tap(2, "ffn_post")])[Tap(2, "ffn_post")]
    norm, head, head_dist = made.classifier.norm, made.classifier.head, made.classifier.head_dist  # type: ignore
    assert torch.allclose(model(images), (head(norm(tokens[:, 0])) + head_dist(norm(tokens[:, 1]))) / 2, atol=1e-5)
    assert "timm averages the logits of the two classifiers" in (tmp_path / "out/README.md").read_text()
    bare, images = opened(export_folder(source, "timm", tmp_path / "bare", classifier=False), photo)
    assert torch.allclose(bare.forward_features(images), tokens, atol=1e-5)
    with pytest.raises(
        TinymimError, match=r"hf: ViTModel cannot express deit_tiny_dist.*\(timm's VisionTransformerDist"
    ):
        export_folder(source, "hf", tmp_path / "hf", classifier=False)


OTHERS = {
    "EVA-02": ("eva02_tiny_patch14_224", {}),
    "BEiT": ("beit_base_patch16_224", {}),
    "DINOv2 with registers": ("vit_small_patch14_reg4_dinov2", {}),
    "no CLS": ("vit_tiny_patch16_224", {"class_token": False}),
}


@torch.no_grad()
@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("form", [None, HeadForm(3)], ids=["features", "classifier"])
def test_timm__and_programs_of_other_kinds(
    kind: str, form: HeadForm | None, tmp_path: Path, photo: Image.Image
) -> None:
    arch, options = OTHERS[kind]
    sizes = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3}
    made = network(Architecture(arch, {**sizes, **options}), form)
    source = str(checkpoint(tmp_path / "it.ckpt", made))
    model, images = opened(export_folder(source, "timm", tmp_path / "timm"), photo)
    (tokens,) = model.forward_intermediates(images, indices=[1], output_fmt="NLC", intermediates_only=True)
    expected = made.features(view(photo))
    assert torch.allclose(tokens.mean(dim=1), expected, atol=1e-5)
    if form:
        logits = made.read(view(photo), [Tap(2, "logits")])[Tap(2, "logits")]
        assert torch.allclose(model(images), logits, atol=1e-5)
    elif kind != "BEiT":
        assert torch.allclose(model(images), expected, atol=1e-5)
    else:
        program = torch.export.load(export_folder(source, "torch-export", tmp_path / "program") / "model.pt2").module()
        both = torch.cat([view(photo), view(photo).flip(-1)])
        assert torch.allclose(program(both)[0], made.features(both), atol=1e-5)
        assert "passes a last norm that was never trained" in (tmp_path / "timm/README.md").read_text()
    with pytest.raises(TinymimError, match="hf: ViTModel cannot express"):
        export_folder(source, "hf", tmp_path / "hf")


@torch.no_grad()
def test_timm__of_a_card_with_timms_own_classifier(
    tmp_path: Path, photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYMIM_TEACHERS", str(tmp_path))
    architecture = tiny(24, 4, num_classes=3, global_pool="token")
    made = network(architecture)
    save_file(made.vit.state_dict(), tmp_path / "theirs.safetensors")
    write_card(tmp_path, "theirs", architecture, files.sha256(tmp_path / "theirs.safetensors"), licence="MIT")
    for form in ("timm", "hf"):
        export_folder("theirs", form, tmp_path / form)
    model, images = opened(tmp_path / "timm", photo)
    expected = made.vit(made.normalise(view(photo)))
    assert torch.allclose(model(images), expected, atol=1e-5)
    assert torch.allclose(classifier_of_hf(tmp_path / "hf")(images).logits, expected, atol=1e-5)


def classifier_of_hf(folder: Path) -> Any:
    from transformers import ViTForImageClassification

    return ViTForImageClassification.from_pretrained(folder).eval()


@pytest.mark.parametrize(
    ("architecture", "form", "to", "options", "message"),
    [
        (PUBLISHED, HeadForm(3), "timm", {}, "head layout: .* 4, 4, 6 heads.*fine-tune again with --model.head_layout"),
        (PUBLISHED, None, "timm", {}, "head layout: .* 4, 4, 6 heads.*--blocks 2 keeps those before it changes"),
        (
            tiny(24, 4),
            HeadForm(3, neck=8),
            "timm",
            {},
            "timm has no neck, and this one has 8 channels; --no-classifier",
        ),
        (DISTILLED, HeadForm(3, "mean"), "timm", {}, "classifier: beside a distillation token.*pools mean"),
        (tiny(24, 4), HeadForm(3), "hf", {}, "a classifier of the mean patch token.*--no-classifier"),
        (tiny(24, 4), HeadForm(3, "cls", norm="none"), "hf", {}, "a classifier without a norm.*--no-classifier"),
        (tiny(24, 4, init_values=0.1), None, "hf", {}, "blocks other than pre-norm attention and a GELU MLP"),
        (tiny(24, 4, reg_tokens=1), None, "hf", {}, "tokens other than a CLS token"),
        (tiny(24, 4), None, "timm", {"classifier": True}, "has no classifier, so it has no logits"),
        (tiny(24, 4), HeadForm(3), "timm", {"blocks": "2"}, "takes block 3, which the classifier reads; add --no-cl"),
    ],
)
def test_refusals(
    architecture: Architecture, form: HeadForm | None, to: str, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    source = checkpoint(tmp_path / "it.ckpt", network(architecture, form))
    with pytest.raises(TinymimError, match=f"(?s){message}") as caught:
        export_folder(str(source), to, tmp_path / "out", **options)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["it.ckpt"]


def test_refusals__of_a_layout_that_may_be_cut(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "it.ckpt", network(PUBLISHED, taps=RELATION))
    with pytest.raises(TinymimError, match="--blocks trained leaves out the last block"):
        export_folder(str(source), "timm", tmp_path / "out", blocks="all")


def test_crop_share__any_size_as_timm_rounds_it() -> None:
    for size in range(1, 1100):
        margin = 256 / 224 if size <= 224 else 1
        assert int(size / timm_form.crop_share(size)) == round(size * margin)


@torch.no_grad()
def test_hf__hidden_states_and_names(tmp_path: Path, photo: Image.Image) -> None:
    from transformers import AutoImageProcessor, ViTModel

    made = network(PUBLISHED, taps=RELATION)
    folder = export_folder(str(checkpoint(tmp_path / "it.ckpt", made)), "hf", tmp_path / "out")
    model: Any = ViTModel.from_pretrained(folder, add_pooling_layer=False).eval()
    inputs = AutoImageProcessor.from_pretrained(folder)(images=photo, return_tensors="pt")
    levels = 255 * 0.225 * (inputs.pixel_values - made.normalise(view(photo))).abs()
    assert levels.max() < 1.1, "torchvision resizes, and rounds here and there to the next grey level"
    assert (levels > 0.1).float().mean() < 0.1
    states = model(made.normalise(view(photo)), output_hidden_states=True).hidden_states
    assert len(states) == 3
    for block in (1, 2):
        expected = made.read(view(photo), [Tap(block, "ffn_post")])[Tap(block, "ffn_post")]
        assert torch.allclose(states[block], expected, atol=1e-5)
    with safe_open(folder / "model.safetensors", "pt") as stored:
        names = set(stored.keys())
    # those of google/vit-base-patch16-224-in21k, without its pooler
    assert {name for name in names if "layer.1." not in name} == {
        "embeddings.cls_token",
        "embeddings.position_embeddings",
        *(
            f"{layer}.{part}"
            for part in ("weight", "bias")
            for layer in (
                "embeddings.patch_embeddings.projection",
                "encoder.layer.0.attention.attention.query",
                "encoder.layer.0.attention.attention.key",
                "encoder.layer.0.attention.attention.value",
                "encoder.layer.0.attention.output.dense",
                "encoder.layer.0.intermediate.dense",
                "encoder.layer.0.output.dense",
                "encoder.layer.0.layernorm_before",
                "encoder.layer.0.layernorm_after",
                "layernorm",
            )
        ),
    }


@torch.no_grad()
def test_hf__classifier_of_the_cls_token(tmp_path: Path, photo: Image.Image) -> None:
    made = network(tiny(24, 4), HeadForm(3, "cls"))
    folder = export_folder(str(checkpoint(tmp_path / "it.ckpt", made, classes=NAMES)), "hf", tmp_path / "out")
    model = classifier_of_hf(folder)
    expected = made.read(view(photo), [Tap(3, "logits")])[Tap(3, "logits")]
    assert torch.allclose(model(made.normalise(view(photo))).logits, expected, atol=1e-5)
    assert model.config.id2label == dict(enumerate(NAMES))


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Backbone, Path]:
    """One network as ONNX and as a program: heads that no other form takes, two kinds of outputs."""
    place = tmp_path_factory.mktemp("graphs")
    made = network(PUBLISHED, HeadForm(3, "mean", neck=8))
    source = str(checkpoint(place / "tuned.ckpt", made, classes=NAMES))
    for form in ("onnx", "torch-export"):
        export_folder(source, form, place / form)
    return made, place


@torch.no_grad()
def test_graphs__images_in_outputs_out_for_any_batch(graphs: tuple[Backbone, Path]) -> None:
    import onnxruntime

    made, place = graphs
    session = onnxruntime.InferenceSession(str(place / "onnx/model.onnx"), providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["features", "tokens", "logits"]
    loaded = torch.export.load(place / "torch-export/model.pt2").module()
    for count in (1, 4, 9):
        images = torch.rand(count, 3, 16, 16)  # in [0, 1]: the normalisation is inside
        tokens = made.read(images, [Tap(3, "ffn_post")])[Tap(3, "ffn_post")]
        expected = [mean_token(made, 3, images), tokens, made.classifier(tokens)]  # type: ignore[misc]
        for got, own in zip(session.run(None, {"images": images.numpy()}), expected, strict=True):
            assert np.abs(got - own.numpy()).max() < 1e-4
        for got, own in zip(loaded(images), expected, strict=True):
            assert torch.allclose(got, own, atol=1e-5)
    config = json.loads((place / "onnx/config.json").read_text())
    assert (config["input"]["images"], config["outputs"]) == (["batch", 3, 16, 16], ["features", "tokens", "logits"])
    assert (config["classes"], config["licence"]) == (NAMES, "CC-BY-NC-4.0")


def test_graphs__tell_nothing_of_this_machine(graphs: tuple[Backbone, Path]) -> None:
    here = str(Path(timm_form.__file__).parents[2]).encode()
    for file in [*graphs[1].glob("*/*")]:
        assert here not in file.read_bytes(), file
        assert b"site-packages" not in file.read_bytes(), file


@pytest.mark.parametrize("form", ["onnx", "torch-export"])
def test_graphs__snippet_of_the_card(
    form: str, graphs: tuple[Backbone, Path], photo: Image.Image, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made, place = graphs
    found = run_snippet(place / form, photo, monkeypatch, tmp_path)
    assert np.abs(np.asarray(found["features"]) - mean_token(made, 3, view(photo)).detach().numpy()).max() < 1e-4
    assert found["logits"].shape == (1, 3)


@pytest.mark.parametrize("form", ["timm", "hf"])
@pytest.mark.parametrize("classes", [HeadForm(3, "cls"), None], ids=["classifier", "features"])
def test_snippet_of_the_card(
    form: str, classes: HeadForm | None, photo: Image.Image, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = network(tiny(24, 4), classes)
    folder = export_folder(str(checkpoint(tmp_path / "it.ckpt", made)), form, tmp_path / "out")
    found = run_snippet(folder, photo, monkeypatch, tmp_path)
    images = view(photo)
    if form == "hf":  # whose processor rounds some pixels to the next grey level
        std = torch.tensor(made.architecture.std).view(3, 1, 1)
        images = found["inputs"].pixel_values * std + torch.tensor(made.architecture.mean).view(3, 1, 1)
        assert (images - view(photo)).abs().max() < 1.1 / 255
    assert torch.allclose(found["features"], mean_token(made, 3, images), atol=1e-5)
    if classes:
        logits = made.read(images, [Tap(3, "logits")])[Tap(3, "logits")]
        assert torch.allclose(found["probabilities"], logits.softmax(-1), atol=1e-5)


def run_snippet(folder: Path, photo: Image.Image, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What the card's own lines compute, in a copy of the folder beside which an image lies."""
    place = shutil.copytree(folder, tmp_path / "copy")
    photo.save(place / "image.jpg", format="PNG")  # lossless
    monkeypatch.chdir(place)
    (text,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    found: dict[str, Any] = {}
    exec(text, found)
    return found


def test_onnx__a_difference_is_an_error_and_nothing_stays(
    graphs: tuple[Backbone, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Another:
        def save(self, path: Path) -> None:
            shutil.copy(graphs[1] / "onnx/model.onnx", path)

    changed = copy.deepcopy(graphs[0])
    with torch.no_grad():
        changed.vit.blocks[2].mlp.fc2.bias += 1e-2
    source = checkpoint(tmp_path / "it.ckpt", changed)
    monkeypatch.setattr(torch.onnx, "export", lambda *args, **kwargs: Another())
    with pytest.raises(TinymimError, match=r"onnxruntime's features: as written they differ .* by \d\.\de-\d+"):
        export_folder(str(source), "onnx", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["it.ckpt"]


def test_target__is_replaced_when_asked_and_only_if_an_export(tmp_path: Path) -> None:
    source = str(checkpoint(tmp_path / "it.ckpt", network(tiny(12, 3, depth=1))))
    folder = tmp_path / "out"
    export_folder(source, "timm", folder)
    (folder / "extra.txt").write_text("mine")
    with pytest.raises(TinymimError, match="is there already; give another, or --overwrite"):
        export_folder(source, "timm", folder)
    with pytest.raises(TinymimError, match=r"--overwrite would take it away: extra\.txt; move that elsewhere"):
        export_folder(source, "hf", folder, overwrite=True)
    (folder / "extra.txt").unlink()
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(TinymimError, match=r"link is a link to .*/out; name that itself"):
        export_folder(source, "hf", tmp_path / "link", overwrite=True)
    (tmp_path / "link").unlink()
    export_folder(source, "hf", folder, overwrite=True)
    names = {path.name for path in folder.iterdir()}
    assert names == {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"}
    home = tmp_path / "home"
    home.mkdir()
    (home / "README.md").write_text("# mine, about tinymim")
    with pytest.raises(TinymimError, match="holds other files than an export"):
        export_folder(source, "timm", home, overwrite=True)
    assert [path.name for path in home.iterdir()] == ["README.md"]
    with pytest.raises(TinymimError, match=r"it.ckpt is a file; give a folder"):
        export_folder(source, "timm", Path(source), overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {"it.ckpt", "out", "home"}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(28, "No space left on device"), "the disk is full"),
        (OSError(13, "Permission denied"), "Permission denied"),
        (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), "PytorchStreamWriter"),
    ],
)
def test_full_disk__leaves_what_was_there(
    error: Exception, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = str(checkpoint(tmp_path / "it.ckpt", network(tiny(12, 3, depth=1))))
    export_folder(source, "timm", tmp_path / "out")
    before = files.sha256(tmp_path / "out/model.safetensors")

    def fails(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(timm_form, "save_file", fails)
    assert main.main(["export", source, "--to", "timm", "--out", str(tmp_path / "out"), "--overwrite"]) == 1
    said = capsys.readouterr().err
    assert f"cannot be written ({reason}" in said
    assert said.endswith("; what was there is unchanged\n")
    assert files.sha256(tmp_path / "out/model.safetensors") == before
    assert main.main(["export", source, "--to", "timm", "--out", str(tmp_path / "new")]) == 1
    assert capsys.readouterr().err.endswith("; nothing is left of it\n")
    assert {path.name for path in tmp_path.iterdir()} == {"it.ckpt", "out"}


def test_a_fault_of_ours__stays_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = str(checkpoint(tmp_path / "it.ckpt", network(tiny(12, 3, depth=1))))

    def fails(*args: Any) -> None:
        raise RuntimeError("shapes")

    monkeypatch.setattr(program, "traced", fails)
    with pytest.raises(RuntimeError, match="shapes"):
        export_folder(source, "torch-export", tmp_path / "out")


def test_command__default_folder_and_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    made = network(tiny(12, 3, depth=1))
    source = str(checkpoint(tmp_path / "runs/mine/checkpoints/last.ckpt", made))
    (tmp_path / "runs/mine/config.yaml").write_text("name: recipe\n")
    assert main.main(["export", source, "--to", "timm"]) == 0
    out = capsys.readouterr().out
    assert "wrote exports/mine-timm (" in out
    assert "largest differences from the network: features 0.0e+00" in out
    assert "WARNING: licence CC-BY-NC-4.0: not for commercial use" in out
    assert (tmp_path / "exports/mine-timm/config.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a FILE.safetensors, or --to timm, hf, onnx, openvino, torch-export"),
        (["x.safetensors", "--blocks", "all"], "--blocks: only with --to"),
        (["x.safetensors", "--push", "me/it", "--no-classifier"], "--classifier, --push: only with --to"),
        (["x.safetensors", "--to", "timm"], "file: x.safetensors: with --to a folder is written; name it with --out"),
        (["--to", "timm", "--private"], "--private: only with --push"),
        (["--to", "timm"], "no weights file at it.ckpt"),
    ],
)
def test_command__mistakes(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["export", "it.ckpt", *arguments]) == 1
    assert message in capsys.readouterr().err
