"""Small image files, and the data module over them."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import default_collate

from tinymim.data.device_augment import finished
from tinymim.data.folder import ImageFolderData
from tinymim.seeds import stream

SIDE = 32


def noise(seed: int = 0, width: int = 48, height: int = 40) -> Image.Image:
    """A smooth random picture: its parts differ, and it survives JPEG."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def write(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise(seed).save(path)
    return path


def class_folders(folder: Path, classes: str = "ab", each: int = 5) -> Path:
    for c, name in enumerate(classes):
        for i in range(each):
            write(folder / name / f"{i}.jpg", seed=100 * c + i)
    return folder


def prepared(root: Path, **options) -> ImageFolderData:
    options = {"image_size": SIDE, "batch_size": 4, "num_workers": 0} | options
    data = ImageFolderData(root=str(root), **options)
    assert data.problems() == []
    data.setup("fit")
    return data


def names(dataset) -> list[str]:
    return [name.decode() for name in dataset.rows]


def likeness(a: Tensor, b: Tensor) -> float:
    return float(np.corrcoef(a.mean(0).flatten(), b.mean(0).flatten())[0, 1])


def seen(view: Any, image: Image.Image, *key: int) -> dict[str, Tensor]:
    """What a module gets to see of an image, ``(3, H, W)`` in [0, 1], with the random numbers of a key."""
    batch = finished(default_collate([view(image, stream(*key))]))
    return {name: images[0] for name, images in batch.items()}
