"""LightningModules that learn weights without labels: distillation, MAE, SimMIM."""

from tinymim.methods.distillation import Distiller
from tinymim.methods.mae import MAEPretrainer
from tinymim.methods.optim import Optim
from tinymim.methods.simmim import SimMIMPretrainer

__all__ = ["Distiller", "MAEPretrainer", "Optim", "SimMIMPretrainer"]
