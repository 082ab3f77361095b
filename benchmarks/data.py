"""Images/s of one core, ours against torchvision's ImageFolder: alternating rounds in one process, and each stage.

    python benchmarks/data.py                        # 64 JPEGs of 500x400, 16 of 2000x1500, made by this script
    python benchmarks/data.py --workers 2            # the DataLoaders with workers too, per core

The baseline is `ImageFolder` with its PIL loader, `RandomResizedCrop(224, (0.2, 1), bicubic)`, `RandomHorizontalFlip`,
`ToTensor`, `Normalize`. Ours is `tinymim.data.ImageFolderData` with the same crop and flip. Both give batches of 32;
ours of bytes, as the workers make them, and `+ floats` with their conversion and normalisation on the same core, which
a training does once a batch where the network runs. In one process it is CPU time that is measured, so that other work
on the machine counts little; with workers it is wall time.

The pictures are smooth noise with edges and a little grain; JPEG quality 90, 4:2:0. The difference in grey levels is
between our views and the baseline's of the same boxes, whose edges are multiples of 8.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.transforms import functional

from tinymim.data import ImageFolderData
from tinymim.data.decode import decoded, resized, resized_crop
from tinymim.data.device_augment import MEAN, STD, colours, crop_box, finished, jittered, unit
from tinymim.data.open_image import open_image
from tinymim.data.sampler import Draw
from tinymim.data.transforms import TrainView
from tinymim.seeds import stream

SIZE, SCALE, BATCH = 224, (0.2, 1.0), 32
BICUBIC = transforms.InterpolationMode.BICUBIC


def picture(seed: int, width: int, height: int) -> Image.Image:
    """Smooth noise of three sizes, six edges and a little grain."""
    rng = np.random.default_rng(seed)
    values = np.full((height, width, 3), 128, np.float32)
    for cells, strength in ((4, 90), (16, 40), (64, 20)):
        for channel in range(3):
            small = Image.fromarray(rng.uniform(-strength, strength, (cells, cells)).astype(np.float32))
            values[..., channel] += np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))
    y, x = np.mgrid[:height, :width]
    for angle in rng.uniform(0, np.pi, 6):
        side = np.cos(angle) * (x - rng.uniform(0, width)) + np.sin(angle) * (y - rng.uniform(0, height)) > 0
        values += side[..., None] * rng.uniform(-50, 50, 3)
    values += rng.normal(0, 4, (height, width, 1))
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def pictures(root: Path, count: int, width: int, height: int) -> Path:
    """``count`` JPEGs in two class folders."""
    for number in range(count):
        folder = root / f"{width}x{height}" / "train" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        picture(number, width, height).save(folder / f"{number:03}.jpg", quality=90, subsampling="4:2:0")
    return root / f"{width}x{height}"


class Baseline(Dataset[tuple[torch.Tensor, int]]):
    """torchvision's pipeline."""

    def __init__(self, root: Path):
        view = [
            transforms.RandomResizedCrop(SIZE, scale=SCALE, interpolation=BICUBIC),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
        self.images = ImageFolder(root / "train", transforms.Compose(view))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, draw: Draw) -> tuple[torch.Tensor, int]:
        return self.images[draw.index]


def ours(root: Path) -> Dataset[dict[str, torch.Tensor]]:
    """The training images of the data module, all of them."""
    data = ImageFolderData(str(root), image_size=SIZE, scale=SCALE)
    data.setup("fit")
    images = data._read[0]
    return images.some(np.arange(len(images)), TrainView(SIZE, SCALE))


def normalised(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """What a network makes of a batch."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return finished(batch)["image"].sub_(mean).div_(std)


def batches(images: Dataset, draws: list[Draw], after: Callable | None) -> None:
    """One pass in this process."""
    for first in range(0, len(draws), BATCH):
        batch = default_collate([images[draw] for draw in draws[first : first + BATCH]])
        if after:
            after(batch)


def loaded(images: Dataset, draws: list[Draw], workers: int) -> Callable[[], None]:
    """One pass of a DataLoader whose workers stay."""
    loader = DataLoader(images, BATCH, sampler=draws, num_workers=workers, persistent_workers=True)

    def once() -> None:
        for _ in loader:
            pass

    return once


def alternating(
    ways: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.process_time
) -> dict[str, list[float]]:
    """Seconds of each way in each round, all ways in every round, after one to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            start = clock()
            way()
            if number:
                seconds[name].append(clock() - start)
    return seconds


def speeds(title: str, root: Path, rounds: int, workers: int) -> Table:
    """Images/s a core, and the ratio of each round's, as a median."""
    table = Table(title=title)
    for column in ("pipeline", "images/s a core", "ratio", "ratios of the rounds"):
        table.add_column(column, justify="left" if column == "pipeline" else "right")
    plain, fast = Baseline(root), ours(root)
    draws = [Draw(epoch, index) for epoch in range(max(1, 128 // len(plain))) for index in range(len(plain))]
    add_speeds(
        table,
        len(draws),
        alternating(
            {
                "torchvision": lambda: batches(plain, draws, None),
                "ours": lambda: batches(fast, draws, None),
                "ours + floats": lambda: batches(fast, draws, normalised),
            },
            rounds,
        ),
    )
    if workers:
        draws, cores = draws * 4, min(workers, os.cpu_count() or 1)
        ways = {
            f"torchvision, {workers} workers": loaded(plain, draws, workers),
            f"ours, {workers} workers": loaded(fast, draws, workers),
        }
        add_speeds(table, len(draws) / cores, alternating(ways, rounds, time.perf_counter))
    return table


def add_speeds(table: Table, images: float, seconds: dict[str, list[float]]) -> None:
    """A row for each way; the first is the baseline."""
    base = next(iter(seconds.values()))
    for way, taken in seconds.items():
        ratios = [one / other for one, other in zip(base, taken, strict=True)]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        table.add_row(way, f"{images / statistics.median(taken):.0f}", f"{statistics.median(ratios):.2f}", spread)


def stages(title: str, root: Path, rounds: int) -> Table:
    """Milliseconds an image of each stage of both pipelines, alternating, medians."""
    files = sorted(str(path) for path in root.rglob("*.jpg"))[:32]
    data = [Path(file).read_bytes() for file in files]
    images = [Image.open(io.BytesIO(one)).convert("RGB") for one in data]
    boxes = [crop_box(stream(0, index), image.size, SCALE) for index, image in enumerate(images)]
    whole = [decoded(open_image(one))[0] for one in data]
    parts = [pixels[:, top:bottom, left:right] for pixels, (left, top, right, bottom) in zip(whole, boxes, strict=True)]
    crops = [
        image.crop(box).resize((SIZE, SIZE), Image.Resampling.BICUBIC) for image, box in zip(images, boxes, strict=True)
    ]
    views = [resized(part, SIZE, SIZE) for part in parts]
    floats = torch.stack(views)
    jitter = transforms.ColorJitter(0.4, 0.4, 0.4)
    factors = torch.from_numpy(colours(stream(0), 0.4))[None]
    each = range(len(files))
    mean, std = torch.tensor(MEAN), torch.tensor(STD)

    def normalise(view: Image.Image) -> torch.Tensor:
        return functional.normalize(functional.to_tensor(view), mean, std)

    pairs: dict[str, tuple[Callable[[int], object], Callable[[int], object]]] = {
        "read and header": (lambda i: Image.open(files[i]), lambda i: open_image(files[i])),
        "decode": (lambda i: Image.open(io.BytesIO(data[i])).convert("RGB"), lambda i: decoded(open_image(data[i]))),
        "crop and resize": (
            lambda i: functional.resized_crop(
                images[i], boxes[i][1], boxes[i][0], boxes[i][3] - boxes[i][1], boxes[i][2] - boxes[i][0], SIZE, BICUBIC
            ),
            lambda i: resized(parts[i], SIZE, SIZE),
        ),
        "decode, crop and resize": (
            lambda i: Image.open(io.BytesIO(data[i])).convert("RGB").crop(boxes[i]).resize((SIZE, SIZE), 3),
            lambda i: resized_crop(open_image(data[i]), boxes[i], SIZE),
        ),
        "flip": (lambda i: functional.hflip(crops[i]), lambda i: views[i].flip(-1)),
        "to tensor, normalise": (
            lambda i: normalise(crops[i]),
            lambda i: normalised({"image": floats}) if i == 0 else None,
        ),
        "jitter": (lambda i: jitter(crops[i]), lambda i: jittered(unit(views[i][None]), factors)),
    }
    table = Table(title=title)
    for column in ("stage, ms an image", "torchvision", "ours"):
        table.add_column(column, justify="left" if "stage" in column else "right")
    for name, pair in pairs.items():
        ways = {side: (lambda way=way: [way(i) for i in each]) for side, way in zip(("a", "b"), pair, strict=True)}
        taken = [1000 * statistics.median(times) / len(files) for times in alternating(ways, rounds).values()]
        table.add_row(name, *(f"{milliseconds:.3f}" for milliseconds in taken))
    grid = [tuple(8 * (edge // 8) for edge in box) for box in boxes]
    differences = [
        np.abs(
            np.asarray(image.crop(box).resize((SIZE, SIZE), Image.Resampling.BICUBIC), float)
            - resized_crop(open_image(one), box, SIZE).permute(1, 2, 0).numpy()
        ).mean()
        for image, one, box in zip(images, data, grid, strict=True)
    ]
    table.caption = (
        f"views differ by {np.mean(differences):.3f} of 255 grey levels on average, {max(differences):.3f} at most"
    )
    return table


def main() -> None:
    """Make the pictures, measure, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workers", type=int, default=0, help="measure DataLoaders with so many workers as well")
    parser.add_argument("--images", type=int, default=64, help="of 500x400; a quarter as many of 2000x1500")
    options = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=110)
    with tempfile.TemporaryDirectory() as folder:
        for width, height, count in ((500, 400, options.images), (2000, 1500, options.images // 4)):
            root = pictures(Path(folder), count, width, height)
            console.print(speeds(f"{width}x{height}", root, options.rounds, options.workers))
            console.print(stages(f"{width}x{height}, by stage", root, options.rounds))


if __name__ == "__main__":
    main()
