"""Data modules. Images reach the modules in [0, 1]: each network normalises its own input."""

from tinymim.data.digits import DigitsData
from tinymim.data.folder import ImageFolderData
from tinymim.data.hf import HFData
from tinymim.data.robustness import RobustnessData
from tinymim.data.segmentation_masks import SegmentationFolderData
from tinymim.data.shapes import ShapesData
from tinymim.data.shards import ShardsData

__all__ = [
    "DigitsData",
    "HFData",
    "ImageFolderData",
    "RobustnessData",
    "SegmentationFolderData",
    "ShapesData",
    "ShardsData",
]
