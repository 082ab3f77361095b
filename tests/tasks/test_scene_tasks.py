from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import default_collate

from tests.conftest import tiny
from tests.methods.test_distillation import NoiseData, distiller, trainer
from tinymim.data import ShapesData
from tinymim.data.sampler import Draw
from tinymim.data.scenes import KINDS
from tinymim.errors import TinymimError
from tinymim.methods import Optim
from tinymim.tasks import Classifier, SceneTasks
from tinymim.tasks.scene_heads import Readout, SceneForm, centres, soft_argmax
from tinymim.tasks.scene_targets import TASKS, TargetStatistics, labels_of, row_errors, row_losses, target_statistics
from tinymim.teachers import locate, weights
from tinymim.training import preflight
from tinymim.vit.backbone import Backbone

SEMANTIC, GEOMETRIC = ["shape", "color"], ["position", "size", "angle", "depth"]


def data(**options: Any) -> ShapesData:
    small = {"image_size": 16, "batch_size": 16, "train_images": 64, "held_out_images": 20, "bank_size": 1}
    return ShapesData(**{**small, "scene": True, "depth": True, **options})


def module(*tasks: str, **options: Any) -> SceneTasks:
    torch.manual_seed(2)
    given = {"architecture": tiny(24, 3)} if "weights" not in options else {}
    return SceneTasks(list(tasks), **{**given, "optim": Optim(0.05, warmup_epochs=0), **options})


def fit(tasks: SceneTasks, folder: Path, epochs: int = 1, given: ShapesData | None = None) -> dict[str, float]:
    runner = trainer(folder, max_epochs=epochs)
    runner.fit(tasks, datamodule=given or data())
    return {name: float(value) for name, value in runner.callback_metrics.items()}


def mains(*rows: dict[str, Any]) -> dict[str, Any]:
    """A batch whose main shapes are ``rows``."""
    common = {"kind": 0, "color": 0, "x": 0.0, "y": 0.0, "size": 0.0, "angle": 0.0, "depth": 0.0}
    whole = [{**common, **row} for row in rows]
    return {"targets": {key: torch.tensor([[row[key], 7] for row in whole])[:, :1] for key in common}}


def kind(name: str, degrees: float = 0.0) -> dict[str, Any]:
    return {"kind": KINDS.index(name), "angle": math.radians(degrees)}


def unit(*degrees: float) -> torch.Tensor:
    """Cosines and sines."""
    phase = torch.tensor(degrees).deg2rad()
    return torch.stack([phase.cos(), phase.sin()], 1)


# Targets, losses and errors


def test_truth__is_of_the_main_shape() -> None:
    batch = mains({"kind": 3, "color": 5, "x": 0.2, "y": 0.7, "size": 0.5}, {"kind": -1, "color": -1})
    assert labels_of("shape", batch, (2, 2)).values.tolist() == [3, -1]
    assert labels_of("color", batch, (2, 2)).values.tolist() == [5, -1]
    assert labels_of("position", batch, (2, 2)).values[0].tolist() == pytest.approx([0.2, 0.7])
    assert labels_of("size", batch, (2, 2)).values[0].tolist() == [0.5]
    for name in ("shape", "color", "position", "size", "angle"):
        assert labels_of(name, batch, (2, 2)).counted.tolist() == [True, False], name


def test_truth__of_depth_is_each_patchs_mean() -> None:
    batch = mains(kind("star"), kind("bar"))
    batch["depth"] = torch.stack([torch.arange(16.0).view(4, 4), torch.ones(4, 4)])
    right = labels_of("depth", batch, (2, 2))
    assert right.values.tolist() == [[2.5], [4.5], [10.5], [12.5], [1], [1], [1], [1]]
    assert right.counted.all()


def test_truth__angles_are_shares_of_the_turn_after_which_a_kind_looks_the_same() -> None:
    batch = mains(kind("half", 90), kind("square", 22.5), kind("bar", 90), kind("circle"), kind("ring"))
    right = labels_of("angle", batch, (2, 2))
    assert right.counted.tolist() == [True, True, True, False, False]
    torch.testing.assert_close(right.values[:3], unit(90, 90, 180))


def test_costs__by_hand() -> None:
    batch = mains({"kind": 1, "x": 0.5, "y": 0.25}, {"kind": 6, "x": 0.0, "y": 1.0}, {"kind": -1})
    logits = torch.randn(3, 8)
    found = row_losses(logits, labels_of("shape", batch, (2, 2)))
    for row, own in ((0, 1), (1, 6)):
        scores = logits[row].double()
        assert float(found[row]) == pytest.approx(float(scores.exp().sum().log() - scores[own]), rel=1e-5)
    places = torch.tensor([[0.5, 0.75], [0.1, 0.8], [0.3, 0.3]])
    assert row_losses(places, labels_of("position", batch, (2, 2))).tolist() == pytest.approx([0.25, 0.05, 0])
    assert float(found[2]) == 0


def test_angle__of_a_circle_costs_nothing_and_counts_in_no_error() -> None:
    right = labels_of("angle", mains(kind("circle"), kind("half"), kind("ring")), (2, 2))
    answers = unit(10, 90, 200).mul(3).requires_grad_()
    found = row_losses(answers, right)
    assert found.tolist() == pytest.approx([0, 1 + 9, 0], rel=1e-5)
    found.sum().backward()
    assert (answers.grad != 0).any(1).tolist() == [False, True, False]  # type: ignore[union-attr]
    assert row_errors("angle", answers, right).tolist() == pytest.approx([90], rel=1e-4)


def test_errors__in_natural_units_by_hand() -> None:
    batch = mains(kind("half", 350), kind("square", 85), kind("star", 1))
    answers = 0.4 * unit(10, 360 * 5 / 90, 360 * 70 / 72)
    assert row_errors("angle", answers, labels_of("angle", batch, (2, 2))).tolist() == pytest.approx(
        [20, 10, 3], rel=1e-3
    )
    place = labels_of("position", mains({"x": 0.5, "y": 0.5}), (2, 2))
    assert row_errors("position", torch.tensor([[0.3, 0.6]]), place).tolist() == pytest.approx([0.15])


@pytest.fixture(scope="module")
def drawn() -> list[dict[str, Any]]:
    """Two batches of scenes, seen through windows."""
    shown = data(image_size=8, train_images=1200, scale=(0.5, 1.0))
    shown.setup("fit")
    draws = ([Draw(0, index) for index in range(600)], [Draw(1, index) for index in range(600, 1200)])
    return [default_collate([shown.train[draw] for draw in part]) for part in draws]


@pytest.mark.parametrize("name", GEOMETRIC)
def test_scale__answering_the_mean_always_costs_one(name: str, drawn: list[dict[str, Any]]) -> None:
    found = target_statistics(name, drawn[:1], (4, 4))
    net = Readout(Backbone(tiny(24, 3)), SceneForm([name], False), {name: found})
    for batch, tolerance in zip(drawn, (1e-4, 0.12), strict=True):
        right = labels_of(name, batch, (4, 4))
        loss = net.loss(name, found.mean.expand_as(right.values), right)
        assert float(loss) == pytest.approx(1, abs=tolerance)
        nothing = right.values[right.counted].var(0, correction=0).sum() * right.counted.float().mean()
        assert float(nothing / found.cost) == pytest.approx(1, abs=tolerance)


# The network


def test_soft_argmax__by_hand() -> None:
    places = centres((2, 3))
    assert places.flatten().tolist() == pytest.approx(
        [1 / 6, 0.25, 0.5, 0.25, 5 / 6, 0.25, 1 / 6, 0.75, 0.5, 0.75, 5 / 6, 0.75]
    )
    scores = torch.full((2, 6), -1e9)
    scores[0, 4] = 0
    scores[1, 0], scores[1, 5] = math.log(3), 0
    expected = torch.tensor([[0.5, 0.75], [0.75 / 6 + 0.25 * 5 / 6, 0.75 * 0.25 + 0.25 * 0.75]])
    torch.testing.assert_close(soft_argmax(scores, places), expected)


@pytest.mark.parametrize("frozen", [False, True])
@torch.no_grad()
def test_readout__each_head_reads_its_tokens(frozen: bool) -> None:
    torch.manual_seed(0)
    scales = {
        name: TargetStatistics(torch.tensor([0.5] * TASKS[name].outputs), torch.tensor(0.02)) for name in GEOMETRIC
    }
    net = Readout(Backbone(tiny(24, 3)), SceneForm([*SEMANTIC, *GEOMETRIC], frozen), scales).eval()
    for parameter in net.heads.parameters():
        parameter.copy_(torch.randn_like(parameter))
    images = torch.rand(2, 3, 16, 16)
    tokens = images_ = net.backbone.embed(images)
    for block in net.backbone.vit.blocks:
        tokens = images_ = block(images_)
    tokens = tokens[:, 1:]
    found = net(images)
    shapes = {"shape": (2, 8), "color": (2, 6), "position": (2, 2), "size": (2, 1), "angle": (2, 2), "depth": (32, 1)}
    assert {name: tuple(answer.shape) for name, answer in found.items()} == shapes

    def said(name: str, x: torch.Tensor) -> torch.Tensor:
        head: Any = net.heads[name]
        if frozen:  # BatchNorm that has seen nothing
            return head.linear(x / math.sqrt(1 + 1e-5))
        return head.linear(torch.nn.functional.layer_norm(x, (24,), head.norm.weight, head.norm.bias, 1e-6))

    pooled = tokens.mean(1)
    torch.testing.assert_close(found["shape"], said("shape", pooled))
    torch.testing.assert_close(found["size"], 0.5 + said("size", pooled) * math.sqrt(0.02))
    torch.testing.assert_close(found["angle"], 0.5 + said("angle", pooled) * math.sqrt(0.01))
    torch.testing.assert_close(found["depth"].view(2, 16), 0.5 + said("depth", tokens)[..., 0] * math.sqrt(0.02))
    shares = said("position", tokens)[..., 0].softmax(1)
    torch.testing.assert_close(found["position"], shares @ centres((4, 4)))


# Training


def test_fit__learns_colour_and_position_beyond_its_start(tmp_path: Path) -> None:
    given = data(train_images=256, held_out_images=64)
    start, *_ = trainer(tmp_path).validate(module("color", "position"), datamodule=given, verbose=False)
    found = fit(module("color", "position"), tmp_path, 8, given)
    assert start["val/r2_position"] == pytest.approx(0, abs=0.1)
    assert found["val/r2_position"] > 0.12
    assert found["val/error_position"] < 0.95 * start["val/error_position"]
    assert found["val/top1_color"] > max(0.3, 1.3 * start["val/top1_color"])
    assert found["val/loss_color"] < math.log(6)


def test_losses__are_logged_and_added(tmp_path: Path) -> None:
    found = fit(module(*SEMANTIC, *GEOMETRIC), tmp_path)
    for stage in ("train", "val"):
        each = {name: found[f"{stage}/loss_{name}"] for name in TASKS}
        semantic, geometric = (sum(each[name] for name in names) for names in (SEMANTIC, GEOMETRIC))
        assert found[f"{stage}/loss_semantic"] == pytest.approx(semantic, rel=1e-5)
        assert found[f"{stage}/loss_geometric"] == pytest.approx(geometric, rel=1e-5)
        assert found[f"{stage}/loss"] == pytest.approx(semantic + geometric, rel=1e-5)
    alone = fit(module("size"), tmp_path)
    assert {name for name in alone if name.startswith("val/")} == {
        f"val/{figure}" for figure in ("loss", "loss_size", "error_size", "r2_size")
    }


def test_figures__are_those_of_all_held_out_images(tmp_path: Path) -> None:
    tasks, given = module("shape", "angle", "depth"), data(held_out_images=21)
    found = fit(tasks, tmp_path, given=given)
    tasks.eval()
    batch = default_collate([given.held_out[Draw(0, index)] for index in range(21)])  # type: ignore[index]
    with torch.no_grad():
        answers = tasks(batch["image"])
    kinds = batch["targets"]["kind"][:, 0]
    assert found["val/top1_shape"] == pytest.approx(float((answers["shape"].argmax(1) == kinds).float().mean()))
    for name, (rows, values) in {
        "angle": (kinds > 1, labels_of("angle", batch, (4, 4)).values),
        "depth": (slice(None), batch["depth"].unfold(1, 4, 4).unfold(2, 4, 4).mean((3, 4)).view(-1, 1)),
    }.items():
        right, said = values[rows].double(), answers[name][rows].double()
        left = (said - right).square().sum()
        assert found[f"val/r2_{name}"] == pytest.approx(
            float(1 - left / (right - right.mean(0)).square().sum()), abs=1e-4
        )
        cost = float(tasks.net.heads[name].cost)  # type: ignore[arg-type]
        assert found[f"val/loss_{name}"] == pytest.approx(float(left) / len(values) / cost, rel=1e-4)
    depth = float((answers["depth"] - labels_of("depth", batch, (4, 4)).values).abs().mean())
    assert found["val/error_depth"] == pytest.approx(depth, rel=1e-4)
    predicted = tasks.predict_step(batch, 0)
    assert {name: len(value) for name, value in predicted.items()} == dict.fromkeys(
        ("index", "shape", "angle", "depth"), 21
    )
    torch.testing.assert_close(predicted["shape"].sum(1), torch.ones(21))


def test_figures__of_one_image_have_no_r2(tmp_path: Path) -> None:
    found = fit(module("angle"), tmp_path, given=data(held_out_images=1))
    assert math.isnan(found["val/r2_angle"])


def test_frozen__its_backbone_gets_no_gradient_and_stays_in_eval_mode(tmp_path: Path) -> None:
    tasks = module("shape", "position", frozen=True)
    fit(tasks, tmp_path, 0)
    before = {name: value.clone() for name, value in tasks.state_dict().items()}
    fit(tasks, tmp_path)
    tasks.train()
    assert not any(part.training for part in tasks.backbone.modules())
    assert tasks.net.heads.training
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in tasks.backbone.parameters())
    changed = {name for name, value in tasks.state_dict().items() if not torch.equal(value, before[name])}
    assert {name for name in changed if ".backbone." in name} == set()
    assert {f"readout.heads.{name}.linear.weight" for name in ("shape", "position")} < changed


def test_fine_tuning__reaches_every_parameter_that_is_trained(tmp_path: Path) -> None:
    tasks, given = module(*TASKS, optim=Optim(0.05, layer_decay=0.5)), data()
    runner = trainer(tmp_path, max_epochs=1)
    runner.fit(tasks, datamodule=given)
    tasks.log_dict = lambda *args, **kwargs: None  # type: ignore[method-assign]
    tasks.zero_grad()
    tasks.training_step(next(iter(given.train_dataloader())), 0).backward()
    assert [name for name, p in tasks.named_parameters() if p.requires_grad and p.grad is None] == []
    frozen = [name for name, p in tasks.named_parameters() if not p.requires_grad]
    assert frozen == ["readout.backbone.vit.norm.weight", "readout.backbone.vit.norm.bias"]
    names = {id(p): name for name, p in tasks.net.named_parameters()}
    groups = {names[id(p)]: group["lr_scale"] for group in runner.optimizers[0].param_groups for p in group["params"]}
    assert groups["heads.depth.linear.weight"] == 1
    assert groups["backbone.vit.blocks.2.attn.qkv.weight"] == 0.5


# Weights and checkpoints


def test_checkpoint__goes_on_and_is_what_its_recipe_promised(teacher_card: Path, tmp_path: Path) -> None:
    runner = trainer(tmp_path)
    runner.fit(distiller(), datamodule=NoiseData())
    runner.save_checkpoint(student := tmp_path / "student.ckpt")
    larger, path = data(image_size=24), tmp_path / "tasks.ckpt"
    tasks = module("color", "depth", weights=str(student), frozen=True)
    runner = trainer(tmp_path, max_epochs=1)
    runner.fit(tasks, datamodule=larger)
    runner.save_checkpoint(path)
    assert tasks.backbone.depth == 2, "relations train the last block up to q, k and v alone"
    assert dict(tasks.summary())["positions"] == "resampled from 4x4 patches to 6x6"
    fresh = module("color", "depth", weights=str(student), frozen=True)
    assert fresh.problems(24) == []
    assert fresh.checkpoint_record() == weights.read(path).record
    tested, *_ = trainer(tmp_path).test(fresh, datamodule=larger, ckpt_path=path, verbose=False)
    assert tested["test/r2_depth"] == pytest.approx(float(runner.callback_metrics["val/r2_depth"]), abs=1e-5)
    assert all(torch.equal(value, fresh.state_dict()[name]) for name, value in tasks.state_dict().items())
    started = locate.locate(str(path)).load()[0]
    assert torch.equal(started.vit.pos_embed, tasks.backbone.vit.pos_embed)
    for options in ({"tasks": ["color"]}, {"frozen": False, "blocks": 2}):
        names = options.pop("tasks", ["color", "depth"])
        other = module(*names, **{"weights": str(student), "frozen": True, **options})  # type: ignore[misc]
        with pytest.raises(TinymimError, match=r"its heads are for .*'frozen': True.*, and the recipe's for"):
            trainer(tmp_path).test(other, datamodule=larger, ckpt_path=path, verbose=False)
    with pytest.raises(TinymimError, match="is a SceneTasks', and the recipe trains a Classifier's"):
        trainer(tmp_path).test(Classifier(weights=str(student)), datamodule=NoiseData(), ckpt_path=path, verbose=False)


# Mistakes


@pytest.mark.parametrize(
    ("tasks", "options", "words"),
    [
        ([], {}, "tasks: none is named; take one or more of shape, color, position"),
        (["colour"], {}, "tasks: 'colour' is none; did you mean color?"),
        (["size", "size"], {}, "tasks: size is named twice"),
        (["size"], {"frozen": True, "drop_path": 0.1}, "drop_path: 0.1, but a frozen backbone drops nothing"),
        (["size"], {"drop_path": 1.0}, "drop_path: 1.0"),
        (["size"], {"blocks": 4}, "blocks: 4 is outside the backbone"),
        (
            ["size"],
            {"architecture": tiny(24, 3, patch_size=5)},
            "data.image_size: 16 is no multiple of the backbone's 5x5",
        ),
        (
            ["size", "depth"],
            {"architecture": tiny(24, 3, patch_size=16)},
            "16 is one patch, and depth compares patches",
        ),
        (["size"], {"weights": "nobody"}, "no card 'nobody'"),
        (["size"], {"architecture": None}, "no architecture to start from scratch"),
    ],
)
def test_problems__each_names_its_option(tasks: list[str], options: dict[str, Any], words: str) -> None:
    (found,) = module(*tasks, **options).problems(16)
    assert words in found


def test_problems__of_tasks_and_data_come_together(tmp_path: Path) -> None:
    architecture = {"arch": "vit_tiny_patch16_224", "options": {"patch_size": 4, "depth": 2}}
    model = {"tasks": ["shape", "depth", "colour"], "architecture": architecture, "frozen": True, "drop_path": 0.5}
    recipe = {
        "data": {"class_path": "tinymim.data.DigitsData", "init_args": {"image_size": 30}},
        "model": {"class_path": "tinymim.modules.SceneTasks", "init_args": model},
    }
    found = preflight.problems(recipe)
    begins = [
        "tasks: 'colour'",
        "drop_path: 0.5",
        "data.image_size: 30",
        "data.scene: DigitsData",
        "data.depth: DigitsData",
    ]
    assert [problem[: len(begin)] for problem, begin in zip(found, begins, strict=True)] == begins
    with pytest.raises(TinymimError, match=r"(?s)data\.scene: ShapesData .*set data\.scene: true.*data\.depth: true"):
        fit(module("depth"), tmp_path, given=ShapesData(image_size=16, train_images=16, held_out_images=2))
