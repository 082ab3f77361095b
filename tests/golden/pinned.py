"""Golden files: JSON beside this file, compared with what the product does now, numbers within a tolerance."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

HERE = Path(__file__).parent
ARTEFACTS = HERE / "artefacts"
WRITING = "TINYMIM_WRITE_GOLDENS"
"""Environment variable that :mod:`tests.golden.make` sets: files are rewritten instead of compared."""

KERNELS = 2e-5
"""Relative tolerance of float32 results, which differ between processors of AVX2 and AVX-512."""

COUNTED = 0.02
"""Tolerance of shares of a few hundred images on such networks, of which one or two may change sides."""

SHOWN = 20


def pinned(name: str, content: Any, rel: float = 1e-6, abs: float = 1e-9) -> None:
    """Compare ``content`` with ``NAME.json``, or write it there.

    Args:
        name: of the file.
        content: what the product does now, as JSON has it.
        rel: tolerance of numbers that are not whole, relative to the golden one.
        abs: least tolerance.
    """
    path = HERE / f"{name}.json"
    content = json.loads(json.dumps(content))
    if os.environ.get(WRITING):
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=True) + "\n")
        return
    differences = list(_differences(json.loads(path.read_text()), content, name, rel, abs))
    more = [f"... and {len(differences) - SHOWN} more"] if len(differences) > SHOWN else []
    told = "\n".join([*differences[:SHOWN], *more])
    assert not differences, f"{told}\nIf that is meant: python -m tests.golden.make, and say why in the commit"


def _differences(golden: Any, now: Any, where: str, rel: float, abs: float) -> Any:
    """A line for each place where the two differ."""
    if isinstance(golden, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*golden, *now]):
            if key not in golden or key not in now:
                yield f"{where}.{key}: {'new' if key not in golden else 'lost'}"
            else:
                yield from _differences(golden[key], now[key], f"{where}.{key}", rel, abs)
    elif isinstance(golden, list) and isinstance(now, list) and len(golden) == len(now):
        for number, (one, other) in enumerate(zip(golden, now, strict=True)):
            yield from _differences(one, other, f"{where}[{number}]", rel, abs)
    elif isinstance(golden, list) and isinstance(now, list) and all(isinstance(x, str) for x in [*golden, *now]):
        lost, new = [x for x in golden if x not in now], [x for x in now if x not in golden]
        yield f"{where}: lost {lost}, new {new}, or their order or number"
    elif not _same(golden, now, rel, COUNTED if rel >= KERNELS and "top1" in where else abs):
        yield f"{where}: pinned {golden!r}, now {now!r}"


def _same(golden: Any, now: Any, rel: float, abs: float) -> bool:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (golden, now))
    if numbers and (isinstance(golden, float) or isinstance(now, float)):
        return math.isclose(golden, now, rel_tol=rel, abs_tol=abs) or (math.isnan(golden) and math.isnan(now))
    return type(golden) is type(now) and golden == now


def table(path: Path) -> dict[str, list[Any]]:
    """The columns of a CSV file: numbers as numbers, all else as text."""
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(line for line in stream if not line.startswith("#")))
    return {column: [_value(row[column]) for row in rows] for column in rows[0]} if rows else {}


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def by_class_name(node: Any) -> Any:
    """Plain data in which each class of the package is its bare name, in overrides too, so that moves do not show."""
    if isinstance(node, str):
        return re.sub(r"\btinymim(?:\.[a-z_]\w*)+\.(?=[A-Z])", "", node)
    if isinstance(node, dict):
        return {key: by_class_name(value) for key, value in node.items()}
    return [by_class_name(value) for value in node] if isinstance(node, list) else node


def flat(node: Any, path: str = "") -> dict[str, Any]:
    """Nested mappings as ``{dotted.key: value}``, lists of mappings by number."""
    if isinstance(node, dict) and node:
        parts = ((f"{path}.{key}".lstrip("."), value) for key, value in node.items())
    elif isinstance(node, list) and any(isinstance(value, dict) for value in node):
        parts = ((f"{path}[{number}]", value) for number, value in enumerate(node))
    else:
        return {path: node}
    return {key: value for where, inner in parts for key, value in flat(inner, where).items()}


def files_in(folder: Path) -> list[str]:
    """What lies in a folder, with what differs from run to run taken out of the names."""
    names = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return sorted({"events.out.*" if name.startswith("events.out.") else name for name in names})


@contextlib.contextmanager
def undrawn() -> Iterator[None]:
    """Figures are files without a picture: drawing takes most of the time of a report."""

    def save(figure: Any, place: Any, *arguments: Any, **options: Any) -> None:
        if isinstance(place, io.TextIOBase):
            place.write("<svg/>")
        else:
            place.write(b"<svg/>") if hasattr(place, "write") else Path(place).write_bytes(b"<svg/>")

    with mock.patch("matplotlib.figure.Figure.savefig", save):
        yield
