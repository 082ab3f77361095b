"""Data modules. Images leave them in [0, 1]: each network normalises its own input."""

from tinymim.data.digits import DigitsData
from tinymim.data.folder import ImageFolderData
from tinymim.data.segmentation import SegmentationFolderData
from tinymim.data.shapes import ShapesData

__all__ = ["DigitsData", "ImageFolderData", "SegmentationFolderData", "ShapesData"]
