"""Extras of the package: libraries that only some commands need, and the line that names one where it is missing."""

from __future__ import annotations

import importlib.util

from tinymim.errors import TinymimError

EXTRAS = {
    **{"matplotlib": "report", "pandas": "analysis", "scipy": "analysis"},
    **{"pycocotools": "coco", "pyarrow": "parquet", "tensorboard": "tensorboard"},
    **{"datasets": "hf", "transformers": "hf"},
    **{"onnx": "onnx", "onnxscript": "onnx", "onnxruntime": "onnx", "openvino": "openvino"},
}
"""The extra of pyproject.toml that brings a package; ``tinymim[all]`` brings all."""


def installed(package: str) -> bool:
    """Whether a package can be imported; it is not."""
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # somebody has put something without a specification in its place
        return False


def missing(what: str, *packages: str) -> list[str]:
    """The line that says what to install for what needs all of ``packages``; none where they are there.

    Args:
        what: needs them, and the verb, as ``HFData needs``.
        packages: of :data:`EXTRAS`.
    """
    lacking = [package for package in packages if not installed(package)]
    if not lacking:
        return []
    extras = ",".join(dict.fromkeys(EXTRAS[package] for package in lacking))
    return [f"{what} {' and '.join(lacking)}, not installed here: pip install 'tinymim[{extras}]'"]


def need(what: str, *packages: str) -> None:
    """Raise unless all packages are there.

    Raises:
        TinymimError: some are missing; it names the extra.
    """
    for line in missing(what, *packages):
        raise TinymimError(line)
