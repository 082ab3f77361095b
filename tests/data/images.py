"""Small image files, and the data module over them."""

from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from tinymim.data.folder import ImageFolderData

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
    return [name.decode() for name in dataset.names]


def likeness(a: Tensor, b: Tensor) -> float:
    return float(np.corrcoef(a.mean(0).flatten(), b.mean(0).flatten())[0, 1])
