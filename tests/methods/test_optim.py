import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tinymim.errors import TinymimError
from tinymim.methods.optim import Optim, configure, total_batch
from tinymim.tasks.network import BackboneWithHead
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone
from tinymim.vit.classifier_head import HeadForm

TINY = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 3}


def trainer(batch=256, world=1, accumulate=1, steps=100, epochs=10, precision="32-true"):
    return SimpleNamespace(
        datamodule=SimpleNamespace(batch_size=batch),
        world_size=world,
        accumulate_grad_batches=accumulate,
        estimated_stepping_batches=steps,
        max_epochs=epochs,
        precision=precision,
    )


def rates(optim, runner, model=None):
    """The learning rate of each group at every step, and after the last."""
    model = model or nn.Linear(2, 2)
    configured = configure(model, optim, runner)
    optimizer, scheduler = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    assert configured["lr_scheduler"]["interval"] == "step"
    seen = []
    for _ in range(runner.estimated_stepping_batches + 1):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return [list(group) for group in zip(*seen, strict=True)]


def groups(model, optim):
    """Name of each trained parameter: its group."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    optimizer = configure(model, optim, trainer())["optimizer"]
    return {names[id(p)]: group for group in optimizer.param_groups for p in group["params"]}


def test_schedule__zero_then_warm_up_then_cosine_to_min_lr():
    rate, *_ = rates(Optim(base_lr=0.5, warmup_epochs=2, min_lr=0.1), trainer(steps=100, epochs=10))
    assert rate[0] == 0
    assert rate[:21] == pytest.approx([0.5 * step / 20 for step in range(21)])
    cosine = [0.1 + 0.4 * (1 + math.cos(math.pi * (step - 20) / 80)) / 2 for step in range(20, 101)]
    assert rate[20:] == pytest.approx(cosine)
    assert rate[60] == pytest.approx(0.3)
    assert rate[100] == pytest.approx(0.1)


def test_schedule__linear_from_the_first_step_with_the_warm_up_as_a_factor():
    optim = Optim(base_lr=0.5, warmup_steps=30, warmup_epochs=1, schedule="linear")
    rate, *_ = rates(optim, trainer(steps=100, epochs=10))
    assert rate == pytest.approx([0.5 * min(step / 30, 1) * (1 - step / 100) for step in range(101)])
    without, *_ = rates(Optim(base_lr=0.5, warmup_steps=0, min_lr=0.1, schedule="linear"), trainer(steps=100))
    assert without == pytest.approx([0.1 + 0.4 * (1 - step / 100) for step in range(101)])


def test_schedule__warm_up_in_steps_comes_before_epochs():
    rate, *_ = rates(Optim(base_lr=0.5, warmup_steps=10, warmup_epochs=5), trainer(steps=100, epochs=10))
    assert rate[:11] == pytest.approx([0.05 * step for step in range(11)])


def test_schedule__ends_at_zero_by_default():
    rate, *_ = rates(Optim(base_lr=0.5, warmup_epochs=0), trainer(steps=10))
    assert rate[0] == 0.5
    assert rate == sorted(rate, reverse=True)
    assert rate[-1] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("epochs", "peak"), [(0.5, 5), (1.25, 12), (10, 100), (40, 100)])
def test_schedule__warm_up_of_a_part_of_an_epoch_and_of_more_than_all(epochs, peak):
    rate, *_ = rates(Optim(base_lr=1, warmup_epochs=epochs), trainer(steps=100, epochs=10))
    assert rate.index(max(rate)) == pytest.approx(peak, abs=1)
    assert max(rate) == pytest.approx(1)


def test_lr__follows_the_total_batch():
    runner = trainer(batch=32, world=4, accumulate=3)
    assert total_batch(runner) == 384
    rate, *_ = rates(Optim(base_lr=0.1, warmup_epochs=0, min_lr=0.01), runner)
    assert rate[0] == pytest.approx(0.1 * 384 / 256)
    assert rate[-1] == pytest.approx(0.01)  # the floor is a rate, and does not


@pytest.mark.parametrize(
    ("images", "world", "batch", "accumulate", "limit", "held"),
    [
        (1000, 1, 100, 2, 1.0, 200),
        (60, 1, 4096, 1, 1.0, 60),  # a set that fills no batch
        (60, 2, 4096, 1, 1.0, 60),
        (61, 2, 4096, 1, 1.0, 60),
        (60, 1, 8, 50, 1.0, 56),  # fewer batches than are accumulated
        (1000, 1, 10, 50, 3, 30),
        (1000, 1, 10, 50, 0.2, 200),
        (1000, 2, 10, 4, 8, 80),
    ],
)
def test_total_batch__is_what_a_step_really_holds(images, world, batch, accumulate, limit, held, capsys):
    runner = trainer(batch=batch, world=world, accumulate=accumulate)
    runner.datamodule.train, runner.limit_train_batches = range(images), limit
    assert total_batch(runner) == held
    rate, *_ = rates(Optim(base_lr=0.1, warmup_epochs=0), runner)
    assert rate[0] == pytest.approx(0.1 * held / 256)
    nominal = batch * world * accumulate
    assert (f"not {nominal}, as there are no more images" in capsys.readouterr().err) == (held < nominal)


def test_total_batch__what_would_not_hold_is_refused():
    runner = trainer(batch=10, accumulate=4)
    runner.datamodule.train, runner.limit_train_batches = range(1000), 6
    with pytest.raises(TinymimError, match=r"6 batches .* no multiple of accumulate_grad_batches, 4, .* take 4"):
        total_batch(runner)
    runner.datamodule.train, runner.world_size = range(3), 4
    with pytest.raises(TinymimError, match=r"3 images to train on, and 4 processes"):
        total_batch(runner)


def test_schedule__goes_on_at_the_recipes_rates():
    def configured(optim, steps):
        torch.manual_seed(0)
        return configure(nn.Linear(2, 2), optim, trainer(steps=steps, epochs=10)).values()

    def take(optimizer, scheduler, steps):
        for _ in range(steps):
            optimizer.step()
            scheduler.step()

    optim = Optim(base_lr=0.5, warmup_epochs=0)
    optimizer, config = configured(optim, 10)
    take(optimizer, config["scheduler"], 10)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0)
    longer, config_longer = configured(Optim(base_lr=0.4, warmup_epochs=0), 20)
    longer.load_state_dict(optimizer.state_dict())
    config_longer["scheduler"].load_state_dict(config["scheduler"].state_dict())
    assert longer.param_groups[0]["lr"] == pytest.approx(0.2)  # half of the way, in the very next step
    take(longer, config_longer["scheduler"], 1)
    assert longer.param_groups[0]["lr"] == pytest.approx(0.2 * (1 + math.cos(math.pi * 11 / 20)))


def test_lr__needs_a_batch_size():
    runner = trainer()
    runner.datamodule = None
    with pytest.raises(TinymimError, match="batch_size"):
        configure(nn.Linear(2, 2), Optim(), runner)


def test_groups__no_decay_on_parameters_of_one_dimension():
    model = Backbone(Architecture(options=TINY))
    model.vit.blocks[2].requires_grad_(False)
    found = groups(model, Optim(weight_decay=0.05, betas=(0.8, 0.9)))
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert found.keys() == parameters.keys()
    for name, group in found.items():
        assert group["weight_decay"] == (0.05 if parameters[name].ndim > 1 else 0), name
        assert group["betas"] == (0.8, 0.9)


def head():
    model = BackboneWithHead(Backbone(Architecture(options=TINY)), HeadForm(10))
    model.backbone.vit.norm.requires_grad_(False)  # nothing reads it
    return model


DEPTHS = {"norm.": 0, "head.": 0, "blocks.2.": 1, "blocks.1.": 2, "blocks.0.": 3}
"""Steps of decay below the classifier; everything else is the stem, 4 below."""


def steps_below(name):
    name = name.removeprefix("backbone.vit.")
    return next((steps for part, steps in DEPTHS.items() if name.startswith(part)), 4)


def test_layer_decay__a_factor_from_each_block_to_the_one_below():
    model = head()
    found = groups(model, Optim(layer_decay=0.5, weight_decay=0.05))
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert found.keys() == parameters.keys()
    blocks = {name: group["lr_scale"] for name, group in found.items() if ".blocks." in name}
    assert blocks == {name: 0.5 ** steps_below(name) for name in blocks}
    stem = ["cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"]
    assert [found[f"backbone.vit.{name}"]["lr_scale"] for name in stem] == [0.5**4] * 4
    assert all(group["weight_decay"] == 0 for name, group in found.items() if parameters[name].ndim == 1)
    assert found["backbone.vit.blocks.0.mlp.fc1.weight"]["weight_decay"] == 0.05


@pytest.mark.parametrize("name", ["head.weight", "head.bias", "norm.weight", "norm.bias"])
def test_layer_decay__the_classifier_learns_at_the_full_rate(name):
    assert groups(head(), Optim(layer_decay=0.5))[name]["lr_scale"] == 1


@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_groups__what_the_model_excepts_has_no_decay(layer_decay):
    model = head()
    found = groups(model, Optim(layer_decay=layer_decay))
    assert model.no_weight_decay() >= {"backbone.vit.cls_token", "backbone.vit.pos_embed"}
    for name in model.no_weight_decay() & found.keys():
        assert found[name]["weight_decay"] == 0, name


def test_layer_decay__scales_the_whole_schedule():
    model = head()
    optim = Optim(base_lr=0.5, warmup_epochs=2, min_lr=0.1, layer_decay=0.5)
    scales = [group["lr_scale"] for group in configure(model, optim, trainer())["optimizer"].param_groups]
    for scale, rate in zip(scales, rates(optim, trainer(), model), strict=True):
        assert (rate[0], rate[20], rate[100]) == pytest.approx((0, 0.5 * scale, 0.1 * scale))


@pytest.mark.parametrize(("precision", "fused"), [("32-true", True), ("bf16-mixed", True), ("16-mixed", False)])
def test_configure__fused_unless_gradients_are_scaled(precision, fused):
    optimizer = configure(nn.Linear(2, 2), Optim(), trainer(precision=precision))["optimizer"]
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.defaults["fused"] == fused
