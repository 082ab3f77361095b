"""LightningModules: what is trained, without data and without files."""

from tinymim.modules.classifier import Classifier
from tinymim.modules.distiller import Distiller
from tinymim.modules.mim import MAEPretrainer
from tinymim.modules.optim import Optim

__all__ = ["Classifier", "Distiller", "MAEPretrainer", "Optim"]
