import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.data.images import SIDE, class_folders, likeness, noise, prepared, seen, write
from tinymim.data.decode import resized
from tinymim.data.folder import ImageFolderData
from tinymim.data.sampler import Draw
from tinymim.data.transforms import PlainView, TrainView, crop_problems, rand_augment_of


def epoch_of(data: ImageFolderData, epoch: int) -> dict[int, Tensor]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    batches = (data.on_after_batch_transfer(batch, 0) for batch in loader)
    return {int(i): image for batch in batches for i, image in zip(batch["index"], batch["image"], strict=True)}


def test_augmentation__does_not_depend_on_workers(tmp_path):
    class_folders(tmp_path, "ab", each=9)
    options = {"held_out": 0.1, "color_jitter": 0.4, "rand_augment": "rand-m9-mstd0.5-inc1", "random_erasing": 0.5}
    alone = epoch_of(prepared(tmp_path, **options), 3)
    torch.rand(1)
    helped = epoch_of(prepared(tmp_path, num_workers=2, **options), 3)
    assert list(alone) == list(helped)
    assert len(alone) == 16
    assert all(torch.equal(alone[i], helped[i]) for i in alone)


def test_augmentation__differs_with_seed_epoch_and_index(tmp_path):
    for i in range(4):
        write(tmp_path / f"{i}.png", seed=0)  # one picture four times
    first = prepared(tmp_path).train
    image = first[Draw(1, 0)]["image"]
    assert torch.equal(prepared(tmp_path).train[Draw(1, 0)]["image"], image)
    others = [first[Draw(2, 0)], first[Draw(1, 1)], prepared(tmp_path, seed=1).train[Draw(1, 0)]]
    assert not any(torch.allclose(other["image"] / 255, image / 255, atol=0.05) for other in others)


def test_loader__fewer_images_than_a_batch(tmp_path):
    class_folders(tmp_path, "ab", each=3)
    (batch,) = prepared(tmp_path, batch_size=128).train_dataloader()
    assert batch["image"].shape == (5, 3, SIDE, SIDE)
    assert batch["label"].dtype == batch["index"].dtype == torch.int64


@pytest.mark.parametrize("size", [(1000, 7), (7, 1000), (300, 40), (50, 260)])
@pytest.mark.parametrize("side", [32, 224])
def test_plain_view__of_a_strip_is_that_of_the_whole_image_resized(size, side):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    view, shorter = PlainView(side), min(size)
    whole = resized(
        torch.from_numpy(pixels).permute(2, 0, 1), *(length * view.shorter // shorter for length in size[::-1])
    )
    top, left = (round((length - side) / 2) for length in whole.shape[1:])
    difference = view(Image.fromarray(pixels))["image"].int() - whole[:, top : top + side, left : left + side]
    assert difference.abs().max() <= 2
    assert difference.abs().float().mean() < 0.1


def test_plain_view__of_a_line_of_pixels_takes_no_more_than_its_square():
    tracemalloc.start()
    PlainView(224)(Image.new("RGB", (65000, 1)))
    PlainView(224)(Image.new("RGB", (1, 65000)))
    assert tracemalloc.get_traced_memory()[1] < 2**21
    tracemalloc.stop()


@pytest.mark.parametrize("size", [(48, 40), (40, 48), (10, 10), (300, 3), (1, 1)])
@pytest.mark.parametrize("strong", [False, True])
def test_views__shape_type_and_range(size, strong):
    image = noise(1, *size)
    options = {"color_jitter": 0.9, "rand_augment": "rand-m9-mstd0.5-inc1", "random_erasing": 1.0} if strong else {}
    for view in (PlainView(SIDE), TrainView(SIDE, **options)):
        for tensor in seen(view, image, 0).values():
            assert tensor.shape == (3, SIDE, SIDE)
            assert tensor.dtype == torch.float32
            assert tensor.is_contiguous()
            assert 0 <= tensor.min() <= tensor.max() <= 1


def test_jitter__shares_the_crop_and_leaves_image_alone():
    image = noise(2, 96, 80)
    for index in range(20):
        plain = seen(TrainView(SIDE), image, 0, 0, index)
        both = seen(TrainView(SIDE, color_jitter=0.4), image, 0, 0, index)
        assert plain.keys() == {"image"}
        assert torch.equal(plain["image"], both["image"])
        assert likeness(both["image"], both["jittered"]) > 0.75  # of two different crops: about 0
        assert not torch.allclose(both["image"], both["jittered"], atol=0.01)


def test_jitter__keeps_geometry_exactly():
    half = Image.new("RGB", (SIDE, SIDE), (60, 60, 60))
    half.paste((160, 160, 160), (0, 0, 11, 17))
    for index in range(10):
        views = seen(TrainView(SIDE, scale=(1, 1), flip=False, color_jitter=0.4), half, index)
        bright = views["jittered"].mean(0)
        assert torch.equal(bright > (bright.min() + bright.max()) / 2, views["image"].mean(0) > 0.4)


def test_jitter__has_no_hue():
    image = noise(3)
    views = seen(TrainView(SIDE, color_jitter=0.4), Image.new("RGB", image.size, (120, 90, 60)), 0)
    red, green, blue = views["jittered"].mean((1, 2))
    assert red > green > blue


def test_flip__half_of_the_time_and_only_when_on():
    image = noise(4, SIDE, SIDE)
    whole = seen(TrainView(SIDE, scale=(1, 1), flip=False), image, 0)["image"]

    def flipped(view: TrainView, index: int) -> bool:
        shown = seen(view, image, index)["image"]
        assert torch.equal(shown, whole) or torch.equal(shown, whole.flip(-1))
        return torch.equal(shown, whole.flip(-1))

    assert 10 < sum(flipped(TrainView(SIDE, scale=(1, 1)), i) for i in range(40)) < 30
    assert not any(flipped(TrainView(SIDE, scale=(1, 1), flip=False), i) for i in range(10))


def test_scale__bounds_the_crop():
    ramp = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (256, 1))).convert("RGB")

    def width(scale: tuple[float, float], index: int) -> float:
        row = seen(TrainView(SIDE, scale=scale), ramp, index)["image"][0].mean(0)
        return float(row.max() - row.min())

    assert max(width((0.2, 0.2), i) for i in range(20)) < 0.55  # sqrt(0.2 * 4 / 3) is 0.52
    assert min(width((0.9, 1.0), i) for i in range(20)) > 0.75


def test_erasing__one_box_for_both_views():
    image = Image.new("RGB", (SIDE, SIDE), (100, 150, 200))
    views = seen(TrainView(SIDE, color_jitter=0.4, random_erasing=1.0), image, 1)
    colour = torch.tensor([100, 150, 200]).view(3, 1, 1) / 255
    erased = ((views["image"] - colour).abs() > 1e-4).any(0)
    assert 0.015 < erased.float().mean() < 0.4
    other = views["jittered"]
    assert torch.allclose(other[:, erased], views["image"][:, erased], atol=1e-6)
    assert other[:, ~erased].std(1).max() < 1e-4


def test_rand_augment__changes_images_as_seeded():
    image, view = noise(5, SIDE, SIDE), TrainView(SIDE, (1, 1), False, rand_augment="rand-m9-mstd0.5-inc1")
    shown = [seen(view, image, index)["image"] for index in [0, 0, 1, 2, 3, 4, 5, 6]]
    assert torch.equal(shown[0], shown[1])
    assert len({tensor.numpy().tobytes() for tensor in shown}) >= 4


def test_plain__margin_of_the_published_evaluation():
    sides = {size: PlainView(size).shorter for size in (32, 160, 224, 256, 384, 448)}
    assert sides == {32: 37, 160: 183, 224: 256, 256: 256, 384: 384, 448: 448}
    assert PlainView(384, 0.875).shorter == 439  # every size, before there was the option
    assert PlainView(224, 1.0).shorter == 224
    assert PlainView(384)(Image.new("RGB", (500, 400)))["image"].shape == (3, 384, 384)
    assert crop_problems(None) == crop_problems(1.0) == []
    for share in (0.0, -0.5, 1.2):
        assert "data.crop_pct" in crop_problems(share)[0]


def test_plain__central_seven_eighths():
    image = np.zeros((64, 128, 3), np.uint8)
    image[4:60, 36:92] = 255  # 7/8 of the shorter side, in the middle
    view = seen(PlainView(28), Image.fromarray(image))["image"]
    assert view[:, 1:-1, 1:-1].min() > 0.95
    assert seen(PlainView(32), Image.fromarray(image[:, :64]))["image"].mean() < 0.95


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the old name works in all versions
def test_recipe__builds_the_class():
    from jsonargparse import ArgumentParser

    parser = ArgumentParser()
    parser.add_subclass_arguments(ImageFolderData, "data")
    options = {"root": "~/images", "scale": [0.3, 1.0], "held_out": 0.1, "color_jitter": 0.4}
    config = {"data": {"class_path": "tinymim.data.ImageFolderData", "init_args": options}}
    data = parser.instantiate_classes(parser.parse_object(config)).data
    assert (tuple(data.scale), data.held_out_fraction, data.batch_size) == ((0.3, 1.0), 0.1, 128)


def test_rand_augment__never_posterises_to_nothing() -> None:
    augment = rand_augment_of("rand-m9-mstd0.5-inc1", 32)
    (posterize,) = [operation for operation in augment.ops if operation.name.startswith("Posterize")]
    pixels = np.asarray(posterize.aug_fn(Image.new("RGB", (4, 4), (200, 100, 50)), 0))
    assert set(np.unique(pixels)) == {0, 128}  # one bit of each channel
