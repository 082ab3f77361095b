"""Extras of the package: libraries that only some commands need, and the line that names one where it is missing."""

from __future__ import annotations

import importlib.util

from tinymim.errors import TinymimError, several

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
    """Lines, one for each extra to install, for what needs all of ``packages``.

    Args:
        what: is needed for, as ``data: HFData``.
        packages: of :data:`EXTRAS`.
    """
    lacking: dict[str, list[str]] = {}
    for package in packages:
        if not installed(package):
            lacking.setdefault(EXTRAS[package], []).append(package)
    return [
        f"{what} needs {' and '.join(names)}, not installed here: pip install 'tinymim[{extra}]'"
        for extra, names in lacking.items()
    ]


def need(what: str, *packages: str) -> None:
    """Raise unless all packages are there.

    Raises:
        TinymimError: one is missing; it names the extra, or all of them.
    """
    if lines := missing(what, *packages):
        raise TinymimError(lines[0]) if len(lines) == 1 else several(f"{what} lacks packages", lines)
