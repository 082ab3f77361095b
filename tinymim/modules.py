"""Face of methods and tasks: the class paths ``tinymim.modules.X`` of recipes and run folders already written."""

from tinymim.methods import Distiller, MAEPretrainer, Optim, SimMIMPretrainer
from tinymim.tasks import Classifier, Detector, Knn, SceneTasks, Segmenter

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
