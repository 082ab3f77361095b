"""Data modules. Images reach the modules in [0, 1]: each network normalises its own input."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinymim.data.digits import DigitsData
    from tinymim.data.folder import ImageFolderData
    from tinymim.data.hf import HFData
    from tinymim.data.imagenet_variants import RobustnessData
    from tinymim.data.object_data import ObjectData
    from tinymim.data.segmentation_folder import SegmentationFolderData
    from tinymim.data.shapes import ShapesData
    from tinymim.data.shards import ShardsData
    from tinymim.data.torchvision_data import TorchvisionData

__all__ = [
    "DigitsData",
    "HFData",
    "ImageFolderData",
    "ObjectData",
    "RobustnessData",
    "SegmentationFolderData",
    "ShapesData",
    "ShardsData",
    "TorchvisionData",
]

# Imported when they are asked for: `tinymim data check` reads image files, and needs neither PyTorch nor Lightning.
_FILES = (
    "digits",
    "hf",
    "folder",
    "object_data",
    "imagenet_variants",
    "segmentation_folder",
    "shapes",
    "shards",
    "torchvision_data",
)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FILES[__all__.index(name)]}"), name)


def __dir__() -> list[str]:
    return __all__
