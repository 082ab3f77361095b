"""What the workers only draw, and a whole batch gets at once, is what they would have done."""

import numpy as np
import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from tests.data.images import SIDE, class_folders, noise, prepared, seen
from tinymim.data.device_augment import (
    BRIGHTNESS,
    CONTRAST,
    MEAN,
    SATURATION,
    STD,
    colours,
    erased_box,
    erased_one_by_one,
    erased_together,
    jittered,
    unit,
)
from tinymim.data.sampler import Draw
from tinymim.data.transforms import TrainView
from tinymim.seeds import stream

ADJUST = {
    BRIGHTNESS: functional.adjust_brightness,
    CONTRAST: functional.adjust_contrast,
    SATURATION: functional.adjust_saturation,
}
STRONG = {"color_jitter": 0.4, "random_erasing": 0.5}


def images(count: int) -> torch.Tensor:
    return torch.stack([seen(TrainView(SIDE), noise(i), i)["image"] for i in range(count)])


def test_jitter__equals_torchvisions_functions_in_each_images_own_order():
    drawn = torch.stack([torch.from_numpy(colours(stream(3, i), 0.4)) for i in range(24)])
    assert len({tuple(one) for one in drawn[..., 0].tolist()}) == 6
    given = images(24)
    for image, changes, ours in zip(given, drawn.tolist(), jittered(given, drawn), strict=True):
        for kind, factor in changes:
            image = ADJUST[int(kind)](image, factor)
        assert torch.allclose(ours, image, atol=2e-3)


def test_jitter__has_color_jitters_distribution():
    torch.manual_seed(0)
    one, count = images(1), 1500
    drawn = torch.stack([torch.from_numpy(colours(stream(5, i), 0.4)) for i in range(count)])
    transform = v2.ColorJitter(0.4, 0.4, 0.4)
    theirs = torch.stack([transform(one[0]) for _ in range(count)])
    ours = jittered(one.expand(count, -1, -1, -1), drawn)
    for figure in (torch.mean, torch.std):
        assert torch.allclose(figure(theirs, 0), figure(ours, 0), atol=0.02)


def test_erasing__box_by_box_and_all_at_once_agree_and_no_image_has_anothers_noise():
    boxes = torch.from_numpy(np.stack([erased_box(stream(1, i), SIDE, 0.7) for i in range(16)]))
    given = images(16)
    together = erased_together(given, boxes)
    assert torch.allclose(erased_one_by_one(given, boxes), together, atol=1e-6)
    for image, box, alone in zip(given, boxes, together, strict=True):
        left, top, right, bottom, _ = box.tolist()
        kept = torch.ones(SIDE, SIDE, dtype=torch.bool)
        kept[top:bottom, left:right] = False
        assert torch.equal(alone[:, kept], image[:, kept])
        assert (alone != image).any(0)[~kept].float().mean() > 0.99 or bool(kept.all())
        assert torch.equal(erased_together(image[None], box[None])[0], alone)
    whole = boxes.new_tensor([[0, 0, SIDE, SIDE, seed] for seed in range(2)])
    one, other = erased_together(given[:2], whole).flatten(1)
    assert abs(float(torch.corrcoef(torch.stack([one, other]))[0, 1])) < 0.1


def test_erasing__noise_is_standard_normal_once_normalised():
    boxes = torch.tensor([[0, 0, 64, 64, seed] for seed in range(20)])
    filled = erased_together(torch.zeros(20, 3, 64, 64), boxes)
    for channel, mean, std in zip(filled.unbind(1), MEAN, STD, strict=True):
        rng = np.random.default_rng(0)
        expected = (rng.standard_normal(channel.numel()) * std + mean).clip(0, 1)
        assert np.allclose(
            np.quantile(channel, [0.1, 0.3, 0.5, 0.7, 0.9]), np.quantile(expected, [0.1, 0.3, 0.5, 0.7, 0.9]), atol=0.01
        )
    flat = filled.flatten(1)
    assert abs(float((flat[:, 1:] - 0.45).mul(flat[:, :-1] - 0.45).mean())) < 2e-3  # neighbours do not know each other


@pytest.mark.parametrize("options", [STRONG, STRONG | {"rand_augment": "rand-m9-mstd0.5-inc1"}, {"color_jitter": 0.4}])
def test_views__are_the_workers_but_for_rounding(options):
    for index in range(12):
        image = noise(index, 96, 80)
        workers = seen(TrainView(SIDE, **options), image, 0, 0, index)
        device = seen(TrainView(SIDE, **options, device_augment=True), image, 0, 0, index)
        assert workers.keys() == device.keys() == {"image", "jittered"}
        for name, view in device.items():
            assert float((view - workers[name]).abs().max()) < 0.51 / 255


def test_without_anything_to_draw__is_the_same_sample():
    image = noise(0)
    one, other = (TrainView(SIDE, device_augment=on)(image, stream(0)) for on in (True, False))
    assert one.keys() == other.keys() == {"image"}
    assert torch.equal(one["image"], other["image"])


def test_module__depends_neither_on_workers_nor_on_the_batch(tmp_path):
    class_folders(tmp_path, "ab", each=9)
    options = STRONG | {"held_out": 0.1, "device_augment": True}
    seen_by: list[dict[int, torch.Tensor]] = []
    for workers, batch_size in ((0, 4), (2, 8)):
        data = prepared(tmp_path, num_workers=workers, batch_size=batch_size, **options)
        loader = data.train_dataloader()
        loader.sampler.set_epoch(3)
        finished = [data.on_after_batch_transfer(batch, 0) for batch in loader]
        assert all(batch.keys() == {"image", "jittered", "label", "index"} for batch in finished)
        pairs = [zip(b["index"], b["image"], b["jittered"], strict=True) for b in finished]
        seen_by.append({int(i): torch.stack([image, other]) for batch in pairs for i, image, other in batch})
    one, other = seen_by
    assert one.keys() == other.keys()
    assert len(one) == 16
    assert all(torch.allclose(one[i], other[i], atol=1e-6) for i in one)
    assert data.train[Draw(3, 0)]["image"].dtype == torch.uint8


def test_unit__leaves_floats_alone_and_gives_one_memory_order():
    floats = torch.rand(2, 3, 4, 4)
    assert unit(floats) is floats
    bytes_ = torch.arange(96, dtype=torch.uint8).view(2, 4, 4, 3).permute(0, 3, 1, 2)
    made = unit(bytes_)
    assert made.is_contiguous()
    assert torch.equal(made, bytes_.double().div(255).float())
