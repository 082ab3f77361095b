"""Targets of distillation. A recipe picks them by class path; a user's own class does as well (see :class:`Target`)."""

from tinymim.targets.attention import AttentionMap
from tinymim.targets.base import Target
from tinymim.targets.cls import CLS
from tinymim.targets.feature import Feature
from tinymim.targets.logits import Logits
from tinymim.targets.relation import Relation

__all__ = ["CLS", "AttentionMap", "Feature", "Logits", "Relation", "Target"]
