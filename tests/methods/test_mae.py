from types import SimpleNamespace

import pytest
import torch

from tinymim.methods.mae import MAEPretrainer
from tinymim.methods.mae_decoder import Decoder, patchify
from tinymim.methods.masking import keep_smallest
from tinymim.methods.optim import Optim
from tinymim.teachers.weights import RECORD
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone

TINY = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3}
DECODER = {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}


def pretrainer(options=None, **fields):
    torch.manual_seed(0)
    module = MAEPretrainer(Architecture(options=TINY | (options or {})), **{**DECODER, "optim": Optim(), **fields})
    module._trainer = SimpleNamespace(datamodule=SimpleNamespace(image_size=16))
    module.configure_model()
    return module.eval()


def pictures(batch=2, height=16, width=16, seed=1):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def test_patchify__equals_a_loop():
    images = pictures(2, 8, 12)
    patches = patchify(images, (4, 3))
    assert patches.shape == (2, 8, 36)
    for image in range(2):
        for patch in range(8):
            row, column = divmod(patch, 4)
            pixels = [
                images[image, channel, 4 * row + y, 3 * column + x].item()
                for y in range(4)
                for x in range(3)
                for channel in range(3)
            ]
            assert patches[image, patch].tolist() == pixels


@pytest.mark.parametrize("norm_pix", [True, False])
@torch.no_grad()
def test_loss__is_the_mean_square_over_dropped_patches(norm_pix):
    module, images = pretrainer(norm_pix=norm_pix), pictures()
    predicted = torch.randn(2, 16, 48, generator=torch.Generator().manual_seed(2))
    module.decoder.forward = lambda tokens, keep: predicted
    keep = torch.tensor([[3, 0, 15, 7], [1, 2, 12, 4]])
    target = patchify(images, (4, 4)).double()
    mean, std = (torch.tensor(v).repeat(16) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    target = (target - mean) / std
    if norm_pix:
        deviation = target - target.sum(-1, keepdim=True) / 48
        target = deviation / (deviation.square().sum(-1, keepdim=True) / 47 + 1e-6).sqrt()
    costs = [
        (predicted[image, patch] - target[image, patch]).square().mean().item()
        for image in range(2)
        for patch in range(16)
        if patch not in keep[image]
    ]
    assert len(costs) == 24
    assert module.loss(images, keep).item() == pytest.approx(sum(costs) / 24, rel=1e-5)
    predicted.scatter_(1, keep.unsqueeze(-1).expand(-1, -1, 48), 1e3)
    assert module.loss(images, keep).item() == pytest.approx(sum(costs) / 24, rel=1e-5)


@torch.no_grad()
def test_loss__of_a_flat_patch_is_finite():
    module = pretrainer()
    assert module.loss(torch.full((1, 3, 16, 16), 0.5), torch.tensor([[0, 1]])).isfinite()


@torch.no_grad()
def test_loss__dropped_patches_are_not_seen():
    module = pretrainer(norm_pix=False)
    heard = []
    module.decoder.register_forward_pre_hook(lambda _, inputs: heard.append(inputs[0]))
    keep = torch.tensor([[3, 0, 15, 7]])
    images = pictures(1)
    changed = images.clone()
    changed[:, :, 4:8, 4:8] = 0  # patch 5
    seen = images.clone()
    seen[:, :, 0:4, 0:4] = 0  # patch 0
    for batch in (images, changed, seen):
        module.loss(batch, keep)
    assert torch.equal(heard[0], heard[1])
    assert not torch.equal(heard[0], heard[2])


@pytest.mark.parametrize(("ratio", "kept"), [(0.75, 4), (0.5, 8), (0.6, 6), (0.9, 1), (0.99, 1)])
@torch.no_grad()
def test_mask_ratio__tokens_that_enter_the_encoder(ratio, kept):
    module = pretrainer(mask_ratio=ratio)
    heard = []
    for block in module.backbone.vit.blocks:
        block.register_forward_pre_hook(lambda _, inputs: heard.append(inputs[0].shape))
    keep = keep_smallest(torch.rand(3, 16), module.mask_ratio)
    assert kept == max(int(16 * (1 - ratio)), 1)
    assert keep.shape == (3, kept)
    module.loss(pictures(3), keep)
    assert heard == [(3, 1 + kept, 24)] * 2
    assert dict(module.summary())["masking"].endswith(f"{kept} of 16 patches enter the encoder")


def test_keep__the_patches_with_the_smallest_noise():
    module = pretrainer()
    noise = torch.tensor([[0.9, 0.1, 0.8, 0.2, 0.7, 0.3, 0.6, 0.4] + [1.0] * 8])
    assert keep_smallest(noise, module.mask_ratio).tolist() == [[1, 3, 5, 7]]


@torch.no_grad()
def test_evaluate__masks_depend_on_the_index_alone():
    module = pretrainer()
    masks = []
    module.loss = lambda images, keep: masks.append(keep) or torch.zeros(())
    module.evaluate({"image": pictures(3), "index": torch.tensor([5, 6, 7])})
    torch.manual_seed(99)
    module.evaluate({"image": pictures(2, seed=3), "index": torch.tensor([7, 5])})
    assert torch.equal(masks[1], masks[0][[2, 0]])
    assert len({tuple(sorted(mask.tolist())) for mask in masks[0]}) == 3


@torch.no_grad()
def test_training_step__masks_are_fresh():
    module = pretrainer()
    masks = []
    module.loss, module.log = lambda images, keep: masks.append(keep) or torch.zeros(()), lambda *_, **__: None
    for _ in range(2):
        module.training_step({"image": pictures(2), "index": torch.tensor([0, 1])}, 0)
    assert not torch.equal(masks[0], masks[1])


@torch.no_grad()
def test_decoder__puts_each_token_in_its_patchs_place():
    encoder = Backbone(Architecture(options=TINY | {"reg_tokens": 1}))
    decoder = Decoder(encoder, width=16, depth=1, heads=2)
    entered = []
    decoder.blocks.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    tokens, keep = torch.randn(2, 2 + 3, 24), torch.tensor([[9, 2, 15], [0, 1, 7]])
    pixels = decoder(tokens, keep)
    assert pixels.shape == (2, 16, 48)
    embedded = decoder.embed(tokens)
    for image in range(2):
        assert torch.allclose(entered[0][image, :2], embedded[image, :2])
        for patch in range(16):
            place = keep[image].tolist().index(patch) if patch in keep[image] else None
            content = decoder.mask_token[0, 0] if place is None else embedded[image, 2 + place]
            assert torch.allclose(entered[0][image, 2 + patch], content + decoder.positions[patch], atol=1e-6)


def test_pretrainer__every_parameter_is_trained_but_fixed_positions():
    module = pretrainer()
    module.loss(pictures(), keep_smallest(torch.rand(2, 16), module.mask_ratio)).backward()
    assert {name for name, p in module.named_parameters() if p.requires_grad and p.grad is None} == set()
    fixed = MAEPretrainer(Architecture(options=TINY, pos_embed="sincos"), **DECODER)
    fixed._trainer = SimpleNamespace(datamodule=SimpleNamespace(image_size=16))
    fixed.configure_model()
    assert [name for name, p in fixed.named_parameters() if not p.requires_grad] == ["encoder.vit.pos_embed"]


def test_pretrainer__record_names_the_encoder():
    module, checkpoint = pretrainer(), {}
    module.on_save_checkpoint(checkpoint)
    assert checkpoint[RECORD]["backbone"] == module.backbone.record()
    prefix = checkpoint[RECORD]["prefix"]
    stored = {key.removeprefix(prefix) for key in module.state_dict() if key.startswith(prefix)}
    assert stored == set(module.backbone.vit.state_dict())


def test_problems__all_named():
    module = MAEPretrainer(
        Architecture(options=TINY), mask_ratio=1.0, decoder_width=18, decoder_depth=1, decoder_heads=4
    )
    found = module.problems(32)
    assert [problem.split(":")[0] for problem in found] == [
        "mask_ratio",
        "decoder_width",
        "architecture.options.img_size",
    ]
