"""tinymim: distil masked-image-modelling teachers into small Vision Transformers."""

__version__ = "0.1.0"
