"""The study's choices of the distiller: masked input, reconstruction, drop path, sizes, precision, memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from timm.layers import DropPath
from torch.utils._python_dispatch import TorchDispatchMode

from tests.conftest import tiny
from tests.methods.test_distillation import NoiseData, distiller, trainer
from tinymim.errors import TinymimError
from tinymim.methods.distillation import Distiller
from tinymim.methods.frozen_teacher import FrozenTeacher
from tinymim.methods.mae_decoder import Reconstruction, patchify
from tinymim.methods.masking import fixed_keep, random_keep
from tinymim.targets import CLS, AttentionMap, Feature, Relation
from tinymim.teachers import weights
from tinymim.vit.backbone import Backbone
from tinymim.vit.taps import Tap

SMALL = Reconstruction(weight=0.5, decoder_width=8, decoder_depth=1, decoder_heads=2)


def built(folder: Path, *targets: Any, precision: str = "32-true", **options: Any) -> Distiller:
    """A distiller as it stands before the first step."""
    module, runner = distiller(*targets, **options), trainer(folder, max_epochs=0, precision=precision)
    runner.fit(module, datamodule=NoiseData())
    return module


def batch(size: int = 16) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {"image": torch.rand(4, 3, size, size, generator=generator), "index": torch.arange(4)}


def test_masks__keep_the_unmasked_share_and_are_fixed_by_the_index() -> None:
    images = torch.rand(6, 3, 16, 16)
    kept = random_keep(images, 16, 0.75)
    assert kept.shape == (6, 4)
    assert all(len(set(row.tolist())) == 4 for row in kept)
    index = torch.tensor([7, 3])
    first, again = (fixed_keep(index, 16, 0.5, images.device) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(fixed_keep(index.flip(0), 16, 0.5, images.device), first.flip(0))
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize("view", ["visible", "whole"])
def test_masked_student__and_what_its_teacher_sees(view: Any, teacher_card: Path, tmp_path: Path) -> None:
    module = built(tmp_path, Relation(), mask_ratio=0.75, teacher_view=view).eval()
    given = batch()
    keep = fixed_keep(given["index"], 16, 0.75, torch.device("cpu"))
    target = module.targets[0]
    with torch.no_grad():
        taken = module.backbone.read(given["image"], target.student_taps(), keep)
        if view == "visible":
            teacher = module.teacher.read(given["image"], target.teacher_taps(), keep)
        else:
            whole = module.teacher.read(given["image"], target.teacher_taps())
            rows = [torch.cat([torch.tensor([0]), row + 1]) for row in keep]  # CLS stands before the patches
            teacher = {tap: torch.stack([x[row] for x, row in zip(t, rows, strict=True)]) for tap, t in whole.items()}
        expected = sum(target(teacher, taken).values())
        losses = module.losses(given)
    assert {tokens.shape[1] for tokens in taken.values()} == {5}
    assert losses["loss"].item() == pytest.approx(float(expected), rel=1e-5)


def test_reconstruction__adds_maes_loss_with_its_weight(teacher_card: Path, tmp_path: Path) -> None:
    module = built(tmp_path, Relation(), mask_ratio=0.5, reconstruction=SMALL).eval()
    given = batch()
    keep = fixed_keep(given["index"], 16, 0.5, torch.device("cpu"))
    student, restorer = module.backbone, module.reconstructor
    assert restorer is not None
    with torch.no_grad():
        losses = module.losses(given)
        tokens = student.read(given["image"], [Tap(3, "ffn_post")], keep)[Tap(3, "ffn_post")]
        predicted = restorer.decoder(restorer.norm(tokens), keep)
        pixels = patchify((given["image"] - student.mean) / student.std, (4, 4))  # type: ignore[operator]
        pixels = (pixels - pixels.mean(-1, keepdim=True)) / (pixels.var(-1, keepdim=True) + 1e-6).sqrt()
        errors = [
            (predicted[b, n] - pixels[b, n]).square().mean() for b in range(4) for n in range(16) if n not in keep[b]
        ]
        expected = torch.stack(errors).mean()
    assert losses["loss_reconstruction"].item() == pytest.approx(expected.item(), rel=1e-5)
    relations = losses["loss_relation_qk"] + losses["loss_relation_vv"]
    assert losses["loss"].item() == pytest.approx((relations + 0.5 * expected).item(), rel=1e-5)


def test_reconstruction__trains_the_whole_student_and_leaves_no_trace_in_it(teacher_card: Path, tmp_path: Path) -> None:
    plain = built(tmp_path, Relation(), mask_ratio=0.5)
    assert plain.backbone.output_block == 2
    module = built(tmp_path, Relation(), mask_ratio=0.5, reconstruction=SMALL)
    assert module.backbone.output_block == 3
    module.train()
    module.losses(batch())["loss"].backward()
    trained = [name for name, p in module.named_parameters() if p.requires_grad]
    assert all(module.get_parameter(name).grad is not None for name in trained)
    assert any(name.startswith("reconstructor.decoder.") for name in trained)
    assert not any("decoder" in name for name in module.backbone.state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reconstruction": SMALL}, "reconstruction: nothing is dropped.*mask_ratio"),
        ({"mask_ratio": 1.0}, r"mask_ratio: 1.0 is not in \[0, 1\)"),
        ({"teacher_drop_path": -0.1}, r"teacher_drop_path: -0.1 is not"),
        (
            {"mask_ratio": 0.5, "reconstruction": Reconstruction(weight=-1)},
            "reconstruction.weight: -1 is not",
        ),
        ({"mask_ratio": 0.5, "reconstruction": Reconstruction(decoder_width=6)}, "reconstruction.decoder_width: 6"),
    ],
)
def test_options__out_of_range(options: Any, message: str, teacher_card: Path) -> None:
    found = "\n".join(distiller(**options).problems(16))
    with pytest.raises(TinymimError, match=message):
        raise TinymimError(found)


def test_teacher_drop_path__acts_in_training_alone(teacher_card: Path, tmp_path: Path) -> None:
    module = built(tmp_path, Feature(), teacher_drop_path=0.9, drop_path=0.0)
    rates = [m.drop_prob for m in module.teacher.modules() if isinstance(m, DropPath)]
    assert rates == [0.9] * 4  # two branches of every block but the last
    given = batch()
    with torch.no_grad():
        module.eval()
        assert torch.equal(module.losses(given)["loss"], module.losses(given)["loss"])
        module.train()
        assert len({module.losses(given)["loss"].item() for _ in range(6)}) > 1
    plain = built(tmp_path, Feature())
    assert not any(isinstance(m, DropPath) for m in plain.teacher.modules())


def test_sizes__images_are_resized_for_the_network_that_takes_another(teacher_card: Path, tmp_path: Path) -> None:
    student = tiny(12, 3, img_size=8, patch_size=2)
    module = built(tmp_path, Relation(), student=student).eval()
    seen: list[tuple[int, ...]] = []
    module.backbone.vit.patch_embed.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape[-2:])))
    module.teacher.vit.patch_embed.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape[-2:])))
    with torch.no_grad():
        assert module.losses(batch())["loss"].isfinite()
    assert seen == [(16, 16), (8, 8)]
    neither = "\n".join(distiller(student=student).problems(32))
    assert "student.options.img_size: 8, and data.image_size is 32; the teacher takes 16; make them equal" in neither


def test_sizes__masked_grids_must_agree(teacher_card: Path) -> None:
    found = "\n".join(distiller(student=tiny(12, 3, patch_size=8), mask_ratio=0.5).problems(16))
    assert "mask_ratio: both sides must keep the same patches" in found
    assert not distiller(student=tiny(12, 3, patch_size=8)).problems(16)


def test_half_teacher__gives_the_numbers_autocast_gives() -> None:
    torch.manual_seed(0)
    backbone = Backbone(tiny(24, 4)).eval().requires_grad_(False)
    taps, images = [Tap(3, "q"), Tap(2, "ffn_post")], batch()["image"]
    with torch.autocast("cpu", torch.bfloat16):
        with torch.inference_mode():
            expected = backbone.read(images, taps)
        half = FrozenTeacher(backbone, taps, dtype=torch.bfloat16)
        given = half.read(images)
    assert backbone.vit.blocks[0].attn.qkv.weight.dtype == torch.bfloat16
    assert backbone.vit.blocks[0].norm1.weight.dtype == torch.float32
    assert all(torch.equal(given[tap], expected[tap]) for tap in taps)
    assert not any(tokens.is_inference() for tokens in given.values())


def test_half_teacher__follows_the_precision_of_the_run(teacher_card: Path, tmp_path: Path) -> None:
    kept = [built(tmp_path, precision=p).teacher.vit.blocks[0].mlp.fc1.weight.dtype for p in ("32-true", "bf16-mixed")]
    assert kept == [torch.float32, torch.bfloat16]


@pytest.mark.parametrize(
    ("student", "targets", "optim", "message"),
    [
        ("vit_tiny", [Relation()], None, r"^student: 'vit_tiny' is a name; give tinymim.Architecture\('vit_tiny', opt"),
        (None, [Relation()], None, "^student: an object of NoneType; give tinymim.Arch"),
        (tiny(12, 3), Relation(), None, r"^targets: Relation is no list; give one, such as \[Relation\(\)\]"),
        (tiny(12, 3), "relation", None, "^targets: str is no list"),
        (tiny(12, 3), ["relation"], None, "^targets: 'relation' is no target; give objects"),
        (tiny(12, 3), [Relation()], 1e-3, "^optim: an object of float; give tinymim.Optim"),
    ],
)
def test_parts__of_other_types(student: Any, targets: Any, optim: Any, message: str) -> None:
    with pytest.raises(TinymimError, match=message):
        Distiller("tiny_teacher", student, targets, optim)


@pytest.mark.parametrize(("precision", "run"), [("bfloat16", "32-true"), ("float32", "bf16-mixed")])
def test_teacher_precision__is_its_own(precision: Any, run: str, teacher_card: Path, tmp_path: Path) -> None:
    module = built(tmp_path, Relation(), Feature(), precision=run, teacher_precision=precision, drop_path=0.0)
    images, taps = batch()["image"], module.frozen.taps
    other = run == "bf16-mixed"
    with torch.autocast("cpu", torch.bfloat16, enabled=not other), torch.no_grad():
        expected = weights.load(teacher_card.with_suffix(".safetensors"))[0].eval().read(images, taps)
    with torch.autocast("cpu", torch.bfloat16, enabled=other):
        given = module.frozen.read(images)
        loss = module.losses(batch())["loss"]
    assert {tokens.dtype for tokens in given.values()} == {torch.float32}
    assert all(torch.equal(given[tap], expected[tap].float()) for tap in taps)
    assert any(expected[tap].dtype == torch.bfloat16 for tap in taps) != other
    loss.backward()
    assert loss.isfinite()
    assert dict(module.summary())[""] == f"computes in {precision}"


def test_teacher_precision__needs_a_run_whose_weights_are_float32(teacher_card: Path, tmp_path: Path) -> None:
    with pytest.raises(TinymimError, match=r"teacher_precision: float32 goes with .* and it is bf16-true; use auto"):
        built(tmp_path, Relation(), precision="bf16-true", teacher_precision="float32")


def test_teacher_sharding__alone_leaves_the_teacher_whole(teacher_card: Path, tmp_path: Path) -> None:
    module = built(tmp_path, Relation(), teacher_sharding=True)
    assert module.frozen.processes == 1
    assert all(type(parameter) is torch.nn.Parameter for parameter in module.teacher.parameters())
    found = distiller(teacher_sharding=True, compile=True).problems(16)
    assert [line.split(":")[0] for line in found] == ["teacher_sharding"]
    assert "compile: false" in found[0]


@pytest.mark.parametrize("option", ["gradient_checkpointing", "compile"])
def test_checkpointing_and_compile__change_no_gradient(option: str, teacher_card: Path, tmp_path: Path) -> None:
    gradients = []
    for chosen in (False, True):
        module = built(tmp_path, Relation(), Feature(tap=["attn_pre", "q"]), drop_path=0.0, **{option: chosen})
        if option == "compile" and chosen:
            assert all(block._compiled_call_impl is not None for block in module.backbone.vit.blocks)
        module.losses(batch())["loss"].backward()
        gradients.append({name: p.grad for name, p in module.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], value, rtol=1e-4, atol=1e-6)


class Reads(TorchDispatchMode):
    """Counts the operations that wait for a device to hand a value to Python."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
            self.waits.append(str(func))
        return func(*args, **(kwargs or {}))


def test_step__hands_no_value_from_the_device_to_python(teacher_card: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"mask_ratio": 0.5, "reconstruction": SMALL, "teacher_drop_path": 0.1}
    module = built(tmp_path, Relation(), Feature(), CLS(centring=True), AttentionMap(), **options).train()
    with Reads() as reads:
        module.losses(batch())["loss"].backward()
        assert not reads.waits
        batch()["index"].sum().item()  # the mode sees one where there is one
    assert len(reads.waits) == 1


def test_published_layout__holds_for_every_target(teacher_card: Path, tmp_path: Path) -> None:
    module = built(tmp_path, AttentionMap(), Relation(), head_layout="published")
    assert module.backbone.heads == [3, 3, 4]  # the teacher's 4 in the target block
    assert "head by head" in module.targets[0].describe()  # type: ignore[operator]


def test_attention_map__as_a_target_of_the_distiller(teacher_card: Path, tmp_path: Path) -> None:
    module, runner = distiller(AttentionMap()), trainer(tmp_path)
    runner.fit(module, datamodule=NoiseData())
    assert module.backbone.output_block == 2
    assert "loss_attentionmap" in module.losses(batch())
