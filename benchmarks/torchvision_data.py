"""Images/s of one core, TorchvisionData from memory against torchvision's own data sets under a DataLoader.

    python benchmarks/torchvision_data.py        # Fashion-MNIST and CIFAR-10, in files that this script makes

The baseline is `torchvision.datasets.FashionMNIST` and `CIFAR10` with `RandomResizedCrop(32, (0.4, 1), bicubic)`,
`RandomHorizontalFlip` and `ToTensor` (Fashion-MNIST's one channel made three after it), under a `DataLoader` of batches
of 256, without workers. Ours is `tinymim.data.TorchvisionData` with the same crop and flip, through its own training
loader, and `finished`, which makes the floats. Both give `(256, 3, 32, 32)` in [0, 1]. CPU time, alternating rounds in
one process, one thread.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import pickle
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torchvision
from data import BICUBIC, add_speeds, alternating
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader
from torchvision import transforms

from tinymim.data import TorchvisionData
from tinymim.data.device_augment import finished

SIZE, SCALE, BATCH = 32, (0.4, 1.0), 256


def fashion(root: Path, count: int) -> None:
    """Four IDX files of noise where torchvision looks for them, as they are and compressed."""
    folder, rng = root / "FashionMNIST" / "raw", np.random.default_rng(0)
    folder.mkdir(parents=True)
    for part in ("train", "t10k"):
        pixels, labels = rng.integers(0, 256, (count, 28, 28), np.uint8), rng.integers(0, 10, count, np.uint8)
        for kind, values in (("images-idx3", pixels), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
            (folder / f"{part}-{kind}-ubyte").write_bytes(head + values.tobytes())
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(head + values.tobytes(), 1))


def cifar(root: Path, count: int) -> None:
    """Seven pickles of noise in the published form; their md5 are put in the place of the published ones."""
    folder, rng, cls = root / "cifar-10-batches-py", np.random.default_rng(0), torchvision.datasets.CIFAR10
    folder.mkdir()

    def save(name: str, content: object) -> list[str]:
        raw = pickle.dumps(content)
        (folder / name).write_bytes(raw)
        return [name, hashlib.md5(raw).hexdigest()]

    def batch(name: str) -> list[str]:
        pixels = rng.integers(0, 256, (count // 5, 3072), np.uint8)
        return save(name, {"data": pixels, "labels": [number % 10 for number in range(count // 5)]})

    cls.train_list = [batch(f"data_batch_{number}") for number in range(1, 6)]
    cls.test_list = [batch("test_batch")]
    meta = save("batches.meta", {"label_names": [str(number) for number in range(10)]})
    cls.meta = {**cls.meta, "md5": meta[1]}


def baseline(name: str, root: Path) -> Callable[[], None]:
    """One pass over torchvision's own data set."""
    view = [
        transforms.RandomResizedCrop(SIZE, scale=SCALE, interpolation=BICUBIC),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
    ]
    images = getattr(torchvision.datasets, name)(str(root), transform=transforms.Compose(view))
    loader = DataLoader(images, BATCH, shuffle=True, drop_last=True)

    def once() -> None:
        for pixels, _ in loader:
            pixels.expand(-1, 3, -1, -1).contiguous()

    return once


def ours(name: str, root: Path) -> Callable[[], None]:
    """One pass of the data module's training loader."""
    data = TorchvisionData(name, str(root), image_size=SIZE, scale=SCALE, batch_size=BATCH, num_workers=0)
    data.setup("fit")
    loader = data.train_dataloader()

    def once() -> None:
        for batch in loader:
            finished(batch)

    return once


def main() -> None:
    """Make the files, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=5120)
    options = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=110)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        fashion(root, options.images)
        cifar(root, options.images)
        for name in ("FashionMNIST", "CIFAR10"):
            table = Table(title=f"{name}, {torch.backends.cpu.get_cpu_capability()}")
            for column in ("pipeline", "images/s a core", "ratio", "ratios of the rounds"):
                table.add_column(column, justify="left" if column == "pipeline" else "right")
            ways = {"torchvision": baseline(name, root), "ours": ours(name, root)}
            add_speeds(table, options.images // BATCH * BATCH, alternating(ways, options.rounds))
            console.print(table)


if __name__ == "__main__":
    main()
