"""LightningModules that use labels: classification, kNN, segmentation, detection, properties of drawn scenes."""

from tinymim.tasks.classification import Classifier
from tinymim.tasks.detection import Detector
from tinymim.tasks.knn_task import Knn
from tinymim.tasks.scene_tasks import SceneTasks
from tinymim.tasks.segmentation import Segmenter

__all__ = ["Classifier", "Detector", "Knn", "SceneTasks", "Segmenter"]
