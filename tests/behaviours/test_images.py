"""Images in torchvision, Pillow, timm, datasets and webdataset: what differs where the same is expected."""

from __future__ import annotations

import random
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
import webdataset
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from timm.data.distributed_sampler import RepeatAugSampler
from timm.data.readers.reader_image_folder import find_images_and_targets
from torch.utils.data import default_collate
from torchvision import tv_tensors
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as V

WHITE = torch.full((3, 4, 4), 255, dtype=torch.uint8)


def test_grey__white_bytes_become_254() -> None:
    assert V.rgb_to_grayscale(WHITE).unique().tolist() == [254]
    assert V.adjust_saturation(WHITE, 0.5).unique().tolist() == [254]
    assert np.unique(np.asarray(V.rgb_to_grayscale(Image.new("RGB", (4, 4), "white")))).tolist() == [255]


def test_to_dtype__bytes_in_sixteen_bits_are_not_white() -> None:
    wide = V.to_dtype(WHITE, torch.uint16, scale=True)
    assert wide.unique().tolist() == [65280]
    assert float(V.to_dtype(wide, torch.float32, scale=True).max()) == pytest.approx(65280 / 65535)


def test_sixteen_bits__are_cut_off_by_pillow() -> None:
    grey = Image.fromarray(np.full((4, 4), 300, np.uint16))
    assert grey.mode == "I;16"
    assert np.unique(np.asarray(grey.convert("RGB"))).tolist() == [255]


def test_erasing__noise_on_bytes_is_black_and_white() -> None:
    torch.manual_seed(0)
    grey = torch.full((3, 32, 32), 100, dtype=torch.uint8)
    erased = v2.RandomErasing(p=1, value="random", scale=(0.3, 0.3))(grey)
    noise = erased[erased != 100].long()
    assert len(noise) > 500
    assert torch.minimum(noise, 255 - noise).max() < 8


def test_resize__bytes_are_clipped_between_the_passes_and_floats_are_not() -> None:
    edge = torch.zeros(1, 32, 32, dtype=torch.uint8)
    edge[:, :16, :16] = 255
    edge[:, 16:, 16:] = 255
    of_bytes = V.resize(edge, [40, 40], interpolation=v2.InterpolationMode.BICUBIC)
    of_floats = V.resize(edge.float(), [40, 40], interpolation=v2.InterpolationMode.BICUBIC)
    assert (of_bytes.float() - of_floats.clamp(0, 255)).abs().max() > 4
    assert of_floats.max() > 260


def test_nearest__is_another_pixel_in_pillow() -> None:
    row = torch.arange(8, dtype=torch.uint8).repeat(8, 1)
    assert V.resize_mask(tv_tensors.Mask(row[None]), [3, 3])[0, 0].tolist() == [0, 2, 5]
    assert np.asarray(Image.fromarray(row.numpy()).resize((3, 3), Image.Resampling.NEAREST))[0].tolist() == [1, 4, 6]


def test_bicubic__of_pillow_is_another_kernel_where_it_moves() -> None:
    point = Image.fromarray(np.eye(1, 21, 10, dtype=np.float32).repeat(21, 0))
    moved = point.transform((21, 21), Image.Transform.AFFINE, (1, 0, 0.5, 0, 1, 0), Image.Resampling.BICUBIC)
    resized = point.resize((20, 21), Image.Resampling.BICUBIC, box=(0.5, 0, 20.5, 21))
    assert np.asarray(moved)[10, 8:12].tolist() == [-1 / 8, 5 / 8, 5 / 8, -1 / 8]
    assert np.allclose(np.asarray(resized)[10, 8:12], [-1 / 16, 9 / 16, 9 / 16, -1 / 16])


def test_collate__makes_masks_plain_tensors_which_transforms_leave_alone() -> None:
    pair = (tv_tensors.Image(torch.rand(3, 2, 2)), tv_tensors.Mask(torch.tensor([[0, 1], [0, 1]])))
    image, mask = default_collate([pair, pair])
    flipped = v2.RandomHorizontalFlip(p=1)(image, mask)
    assert torch.equal(flipped[0], image.flip(-1))
    assert torch.equal(flipped[1], mask)  # and is not flipped with its image


def test_rand_augment__of_nine_turns_three_times_as_far_in_timm() -> None:
    assert v2.RandAugment(magnitude=9)._AUGMENTATION_SPACE["Rotate"][0](31, 224, 224)[9] == pytest.approx(9)
    timms = rand_augment_transform("rand-m9-n1-p1.0", {})
    rotate = next(op for op in timms.ops if op.name == "Rotate")
    assert abs(rotate.level_fn(9, {})[0]) == pytest.approx(27)


def test_rand_augment__of_timm_leaves_a_quarter_untouched() -> None:
    augment = rand_augment_transform("rand-m9-n2-mstd0", {})
    random.seed(0)
    np.random.seed(0)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))
    untouched = sum(augment(image) is image for _ in range(400))
    assert 60 < untouched < 140  # each of the two operations is left out every second time


def test_folder__classes_are_numbered_in_two_orders(tmp_path: Path) -> None:
    for name in ("1", "2", "10"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (2, 2)).save(tmp_path / name / "image.png")
    assert ImageFolder(tmp_path).class_to_idx == {"1": 0, "10": 1, "2": 2}
    assert find_images_and_targets(str(tmp_path))[1] == {"1": 0, "2": 1, "10": 2}


def test_repeated_augmentation__an_epoch_has_a_third_of_the_images() -> None:
    drawn = list(RepeatAugSampler(list(range(300)), num_replicas=1, rank=0))
    assert (len(drawn), len(set(drawn))) == (256, 86)


def test_datasets__formats_change_types() -> None:
    table = datasets.Dataset.from_dict({"codes": [np.zeros(3, np.uint8)], "exact": [1.0]})
    assert (table.features["codes"].feature.dtype, table.features["exact"].dtype) == ("uint8", "float64")
    arrays, tensors = table.with_format("numpy")[:], table.with_format("torch")[:]
    assert (arrays["codes"].dtype, arrays["exact"].dtype) == (np.int64, np.float32)
    assert (tensors["codes"].dtype, tensors["exact"].dtype) == (torch.int64, torch.float32)


def test_webdataset__shuffles_by_the_clock(tmp_path: Path) -> None:
    with webdataset.TarWriter(str(tmp_path / "shard.tar")) as shard:
        for number in range(50):
            shard.write({"__key__": f"{number:02d}", "txt": str(number)})

    def order() -> list[str]:
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)
        stream = webdataset.WebDataset(str(tmp_path / "shard.tar"), shardshuffle=False).shuffle(50)
        return [sample["__key__"] for sample in stream]

    assert sorted(order()) == sorted(order())
    assert order() != order()
