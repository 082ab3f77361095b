"""tinymim: distil masked-image-modelling teachers into small Vision Transformers.

:func:`distill` and :func:`load` are the short way; :class:`Distiller` is a LightningModule for a Trainer of one's own.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinymim.errors import TinymimError
    from tinymim.methods import Distiller, Optim
    from tinymim.ops import relation_kl
    from tinymim.training.distill import distill, load
    from tinymim.vit.description import Architecture
    from tinymim.vit.taps import Tap

    __version__: str

__all__ = ["Architecture", "Distiller", "Optim", "Tap", "TinymimError", "distill", "load", "relation_kl"]

# Imported when they are asked for: `import tinymim` takes milliseconds, and PyTorch seconds.
_MODULES = (
    "vit.description",
    "methods",
    "methods",
    "vit.taps",
    "errors",
    "training.distill",
    "training.distill",
    "ops",
)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[__all__.index(name)]}"), name)


def _version() -> str:
    """Version of what is installed, which the build took from the tag; of files that nothing has installed unknown."""
    from importlib import metadata

    try:
        return metadata.version(__name__)
    except metadata.PackageNotFoundError:
        return "0.0"


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
