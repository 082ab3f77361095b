from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import Dataset

from tests.conftest import tiny
from tests.methods.test_distillation import NoiseData, trainer
from tinymim.errors import TinymimError
from tinymim.methods import Distiller, MAEPretrainer, Optim, SimMIMPretrainer
from tinymim.methods.masking import mask_smallest
from tinymim.targets import Feature
from tinymim.teachers import weights
from tinymim.teachers.weights import RECORD

STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def pretrainer(architecture=None, **fields):
    torch.manual_seed(0)
    given = {"mask_unit": 8, "drop_path": 0.0, "optim": Optim(1.0, warmup_epochs=0), **fields}
    return SimMIMPretrainer(architecture or tiny(24, 3, depth=2), **given)


def built(architecture=None, **fields):
    module = pretrainer(architecture, **fields)
    module._trainer = SimpleNamespace(datamodule=SimpleNamespace(image_size=module.architecture.options["img_size"]))
    module.configure_model()
    return module.eval()


def pictures(batch=2, size=16, seed=1):
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


def pixels_of(masks, unit, size):
    """``(B, size, size)``, true where a pixel lies in a masked square: a loop over pixels."""
    across = size // unit
    return torch.tensor(
        [[[bool(mask[y // unit * across + x // unit]) for x in range(size)] for y in range(size)] for mask in masks]
    )


@pytest.mark.parametrize(
    ("ratio", "units", "masked"), [(0.6, 49, 30), (0.6, 36, 22), (0.6, 16, 10), (0.55, 20, 11), (0.5, 4, 2)]
)
def test_mask_ratio__is_rounded_up(ratio, units, masked):
    masks = mask_smallest(torch.rand(5, units), ratio)
    assert masks.dtype == torch.bool
    assert masks.sum(1).tolist() == [masked] * 5
    noise = torch.tensor([[0.9, 0.1, 0.8, 0.2]])
    assert mask_smallest(noise, 0.5).tolist() == [[False, True, False, True]]


@pytest.mark.parametrize(("size", "patch", "unit"), [(16, 4, 8), (24, 4, 12), (16, 4, 4), (16, 2, 8)])
@torch.no_grad()
def test_mask_units__whole_squares_of_patches(size, patch, unit):
    module = built(tiny(24, 3, depth=1, img_size=size, patch_size=patch), mask_unit=unit)
    heard = []
    module.model.forward = lambda images, masked: heard.append(masked) or torch.zeros(*masked.shape, patch**2 * 3)
    images = pictures(3, size)
    masks = module.random_masks(images)
    assert masks.shape == (3, (size // unit) ** 2)
    module.loss(images, masks)
    expected = pixels_of(masks, unit, size)[:, ::patch, ::patch].flatten(1)
    assert torch.equal(heard[0], expected)


@pytest.mark.parametrize("options", [{}, {"class_token": False, "global_pool": ""}, {"reg_tokens": 2}])
@torch.no_grad()
def test_encoder__sees_the_mask_token_in_the_masked_patches_places(options):
    module = built(tiny(24, 3, depth=2, **options))
    encoder, images = module.backbone, pictures()
    entered = []
    encoder.vit.blocks[0].register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    masks = mask_smallest(torch.rand(2, 4), 0.6)
    module.loss(images, masks)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in STATISTICS)
    patches = encoder.vit.patch_embed((images - mean) / std)
    masked = pixels_of(masks, 8, 16)[:, ::4, ::4].flatten(1)
    positions = encoder.vit.pos_embed[0, -16:]
    for image in range(2):
        for patch in range(16):
            content = module.model.mask_token if masked[image, patch] else patches[image, patch]
            assert torch.allclose(entered[0][image, encoder.prefix + patch], content + positions[patch], atol=1e-6)


@torch.no_grad()
def test_loss__is_the_published_mean_over_masked_pixels_and_channels():
    module, images = built(), pictures()
    predicted = torch.randn(2, 16, 48, generator=torch.Generator().manual_seed(2))
    module.model.forward = lambda images, masked: predicted
    masks = torch.tensor([[True, False, True, True], [False, False, True, False]])
    mean, std = (torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1) for values in STATISTICS)
    target = (images.double() - mean) / std
    restored = torch.empty_like(target)  # patches by rows, pixels by rows, channels last
    for patch in range(16):
        row, column = 4 * (patch // 4), 4 * (patch % 4)
        square = predicted[:, patch].double().view(2, 4, 4, 3).permute(0, 3, 1, 2)
        restored[:, :, row : row + 4, column : column + 4] = square
    hidden = pixels_of(masks, 8, 16).unsqueeze(1)
    expected = ((target - restored).abs() * hidden).sum() / (hidden.sum() + 1e-5) / 3
    assert module.loss(images, masks).item() == pytest.approx(expected.item(), rel=1e-5)


def test_loss__visible_patches_contribute_nothing():
    module, images = built(), pictures(1)
    masks = torch.tensor([[True, False, False, False]])  # patches 0, 1, 4 and 5
    kept = []

    def restore(inputs, masked):
        kept.append(torch.zeros(1, 16, 48, requires_grad=True))
        return kept[0]

    module.model.forward = restore
    module.loss(images, masks).backward()
    touched = kept[0].grad.abs().sum(-1)[0].nonzero().flatten().tolist()
    assert touched == [0, 1, 4, 5]


@torch.no_grad()
def test_prediction__masked_pixels_are_not_seen_and_visible_ones_are():
    module, images = built(), pictures(1)
    masked = torch.zeros(1, 16, dtype=torch.bool)
    masked[0, 5] = True
    hidden, seen = images.clone(), images.clone()
    hidden[:, :, 4:8, 4:8] = 0  # patch 5
    seen[:, :, 0:4, 0:4] = 0  # patch 0
    plain = module.model(images, masked)
    assert plain.shape == (1, 16, 48)
    assert torch.equal(module.model(hidden, masked), plain)
    assert not torch.equal(module.model(seen, masked), plain)


def test_every_parameter_is_trained__the_mask_token_too():
    module = built()
    images = pictures()
    module.loss(images, module.random_masks(images)).backward()
    gradients = {name: p.grad for name, p in module.named_parameters()}
    assert all(grad is not None for grad in gradients.values())
    assert gradients["model.mask_token"].abs().sum() > 0
    assert gradients["model.encoder.vit.norm.weight"].abs().sum() > 0
    assert module.backbone.output_block == 2


@torch.no_grad()
def test_masks__fixed_in_evaluation_and_fresh_in_training():
    module, masks = built(), []
    module.loss, module.log = lambda images, given: masks.append(given) or torch.zeros(()), lambda *_, **__: None
    module.evaluate({"image": pictures(3), "index": torch.tensor([5, 6, 9])})
    torch.manual_seed(99)
    module.evaluate({"image": pictures(2, seed=3), "index": torch.tensor([9, 5])})
    assert torch.equal(masks[1], masks[0][[2, 0]])
    for _ in range(2):
        module.training_step({"image": pictures(8), "index": torch.arange(8)}, 0)
    assert not torch.equal(masks[2], masks[3])


def test_drop_path__rises_with_depth():
    module = built(tiny(24, 3, depth=3), drop_path=0.4)
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in module.backbone.vit.blocks]
    assert rates == pytest.approx([0.0, 0.2, 0.4])


class Plain(Dataset):
    """Images of one colour each, so that what is masked can be known from the rest."""

    def __init__(self, seed):
        self.colours = torch.rand(32, 3, 1, 1, generator=torch.Generator().manual_seed(seed))

    def __len__(self):
        return len(self.colours)

    def __getitem__(self, draw):
        return {"image": self.colours[draw.index].expand(3, 16, 16).clone(), "index": draw.index}


class PlainData(NoiseData):
    def prepare(self):
        self.train, self.held_out, self.bank = Plain(1), Plain(2), None


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simmim")
    module, runner = pretrainer(optim=Optim(0.5, warmup_epochs=0)), trainer(folder, max_epochs=30)
    runner.fit(module, datamodule=PlainData())
    runner.save_checkpoint(folder / "simmim.ckpt")
    return module, folder / "simmim.ckpt"


@torch.no_grad()
def test_training__lowers_the_held_out_loss(fitted):
    data = PlainData()
    data.setup("fit")
    batch = next(iter(data.val_dataloader()[0]))
    before, after = (module.eval().evaluate(batch)["loss"].item() for module in (built(), fitted[0]))
    assert after < 0.5 * before


def test_checkpoint__is_a_teacher_without_mask_token_and_pixels(fitted, tmp_path):
    module, path = fitted
    assert module.checkpoint_record()["backbone"] == module.backbone.record()
    backbone, provenance, record = weights.load(path)
    assert record["prefix"] == "model.encoder.vit."
    assert not provenance.unexpected or provenance.unexpected == ["norm.bias", "norm.weight"]
    assert not any("mask_token" in name or "pixels" in name for name in backbone.state_dict())
    images = pictures()
    with torch.no_grad():
        assert torch.equal(backbone.eval().features(images), module.backbone.eval().features(images))
    pupil = Distiller(str(path), tiny(12, 3), [Feature()], Optim(1.0, warmup_epochs=0))
    assert pupil.problems(16) == []
    trainer(tmp_path, max_epochs=1).fit(pupil, datamodule=NoiseData())
    assert torch.equal(pupil.teacher.vit.blocks[1].mlp.fc1.weight, module.backbone.vit.blocks[1].mlp.fc1.weight)


def test_resume__maes_and_simmims_checkpoints_are_not_mistaken_for_one_another(fitted, tmp_path):
    decoder = {"decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}
    mae, runner = MAEPretrainer(tiny(24, 3, depth=2), **decoder), trainer(tmp_path, max_epochs=1)
    runner.fit(mae, datamodule=NoiseData())
    runner.save_checkpoint(tmp_path / "mae.ckpt")
    with pytest.raises(TinymimError, match="a SimMIMPretrainer's, and the recipe trains an MAEPretrainer's"):
        trainer(tmp_path).fit(mae, datamodule=NoiseData(), ckpt_path=fitted[1])
    with pytest.raises(TinymimError, match="an MAEPretrainer's, and the recipe trains a SimMIMPretrainer's"):
        trainer(tmp_path).fit(pretrainer(), datamodule=NoiseData(), ckpt_path=tmp_path / "mae.ckpt")


def test_record__names_the_encoder():
    module, checkpoint = built(), {}
    module.on_save_checkpoint(checkpoint)
    prefix = checkpoint[RECORD]["prefix"]
    stored = {key.removeprefix(prefix) for key in module.state_dict() if key.startswith(prefix)}
    assert stored == set(module.backbone.vit.state_dict())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mask_ratio": 0.0}, "mask_ratio: 0.0 is not between 0 and 1"),
        ({"drop_path": 1.0}, r"drop_path: 1.0 is not in \[0, 1\)"),
        ({"mask_unit": 6}, "mask_unit: 6 px must be a multiple of the 4x4 px patch, and divide the 16x16 px image"),
        ({"mask_unit": 12}, "mask_unit: 12 px"),
        ({"mask_unit": 0}, "mask_unit: 0 px"),
        ({"mask_unit": 16}, "mask_unit: 60% of 1 squares of 16 px, rounded up, is all of them"),
    ],
)
def test_problems__one_each_with_its_remedy(fields, message):
    (found,) = pretrainer(**fields).problems(16)
    with pytest.raises(TinymimError, match=message):
        raise TinymimError(found)


def test_summary__counts_the_squares():
    said = dict(built().summary())
    assert said["masking"] == "60%: 3 of 4 squares of 8 px are a mask token to the encoder"
    assert said["decoder"] == "linear, 24 -> 48"
