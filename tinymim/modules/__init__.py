"""LightningModules: what is trained, without data and without files."""

from tinymim.modules.classifier import Classifier
from tinymim.modules.detector import Detector
from tinymim.modules.distiller import Distiller
from tinymim.modules.knn import Knn
from tinymim.modules.mae import MAEPretrainer
from tinymim.modules.optim import Optim
from tinymim.modules.scene_tasks import SceneTasks
from tinymim.modules.segmenter import Segmenter
from tinymim.modules.simmim import SimMIMPretrainer

__all__ = [
    "Classifier",
    "Detector",
    "Distiller",
    "Knn",
    "MAEPretrainer",
    "Optim",
    "SceneTasks",
    "Segmenter",
    "SimMIMPretrainer",
]
