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

BRINGS = {"analysis": "report", "openvino": "onnx"}
"""Extras that bring another one, too."""


def installed(package: str) -> bool:
    """Whether a package can be imported; it is not."""
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # somebody has put something without a specification in its place
        return False


def missing(what: str, *packages: str) -> list[str]:
    """The line that says what to install for what needs all of ``packages``; none where they are there.

    It names the extra of all that is needed, whichever part of that is lacking: an analysis without matplotlib alone is
    told ``analysis``, as its documents say, and not ``report``, which that brings.

    Args:
        what: needs them, and the verb, as ``HFData needs``.
        packages: of :data:`EXTRAS`.
    """
    lacking = [package for package in packages if not installed(package)]
    if not lacking:
        return []
    wanted, needed = ({EXTRAS[package] for package in each} for each in (lacking, packages))
    whole = {BRINGS[extra]: extra for extra in sorted(needed & BRINGS.keys())}
    extras = ",".join(dict.fromkeys(whole.get(extra, extra) for extra in sorted(wanted)))
    return [f"{what} {' and '.join(lacking)}, not installed here: pip install 'tinymim[{extras}]'"]


def need(what: str, *packages: str) -> None:
    """Raise unless all packages are there.

    Raises:
        TinymimError: some are missing; it names the extra.
    """
    for line in missing(what, *packages):
        raise TinymimError(line)
