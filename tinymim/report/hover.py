"""Values of a figure at the places where they are drawn: an SVG that tells them under the pointer."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from tinymim.safety.escaping import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS = 120
"""Values that are told of a line, evenly spread, the last one among them."""

MOST = 4000
"""Values of a figure: about 400 kB."""

Value = tuple[float, float, str]
"""Place in display coordinates, and text."""


def told(axes: Axes, x: Callable[[float], str] | None = None, y: Callable[[float], str] | None = None) -> None:
    """Say how values of ``axes`` read: matplotlib's own ``fmt_xdata`` and ``fmt_ydata``."""
    axes.fmt_xdata, axes.fmt_ydata = x or axes.fmt_xdata, y or axes.fmt_ydata


def values(figure: Figure) -> str:
    """Elements of SVG that are not seen, one for each value of a line or cell of a map; their ``title`` is the value.
    The figure must have been drawn as SVG last, at 72 dots per inch."""
    scale, height = 72 / figure.dpi, figure.get_figheight() * 72
    marks = []
    for axes in figure.axes:
        for across, up, text in (*_lines(axes), *_cells(axes)):
            if not math.isfinite(across + up):  # of 0 on a scale of logarithms
                continue
            place = f'cx="{across * scale:.1f}" cy="{height - up * scale:.1f}"'
            marks.append(f'<circle {place} r="4"><title>{escape(text)}</title></circle>')
    if not marks or len(marks) > MOST:
        return ""
    return f'<g class="values" fill="none" stroke="none" pointer-events="all">{"".join(marks)}</g>'


def _lines(axes: Axes) -> Iterator[Value]:
    for line in axes.lines:
        if line.get_transform() != axes.transData:  # a rule across the axes
            continue
        label = str(
            line.get_label()
        )  # an underscore keeps it out of the legend, and matplotlib's own begin with _child
        title = axes.get_title() if re.match(r"_child\d|_nolegend", label) else label.removeprefix("_")
        points: list[tuple[float, float]] = list(zip(*map(_numbers, line.get_data()), strict=True))
        points = [point for point in points if all(map(math.isfinite, point))]
        step = max(1, math.ceil(len(points) / POINTS))
        for point in points[::-step]:
            yield _at(axes, *point, title)


def _cells(axes: Axes) -> Iterator[Value]:
    for image in axes.images:
        cells: Any = image.get_array()
        if cells is None or cells.ndim != 2 or not axes.fmt_xdata:  # a photograph, or cells without names
            continue
        for row, line in enumerate(cells.tolist()):
            for column, value in enumerate(line):
                across, up = axes.transData.transform((column, row))
                where = f"{_name(axes, 'y')} {_text(axes, 'y', row)}, {_name(axes, 'x')} {_text(axes, 'x', column)}"
                title = f"{axes.get_title()}: " if axes.get_title() else ""
                yield across, up, one_line(f"{title}{where}: {'-' if value is None else f'{value:.4g}'}")


def _at(axes: Axes, x: float, y: float, title: str) -> Value:
    across, up = axes.transData.transform((x, y))
    where = f"{_name(axes, 'x')} {_text(axes, 'x', x)}".strip()
    return across, up, one_line(f"{title}{': ' if title else ''}{_text(axes, 'y', y)} at {where}")


def _text(axes: Axes, axis: str, value: float) -> str:
    form: Callable[[float], str] | None = getattr(axes, f"fmt_{axis}data")
    return form(value) if form else f"{value:.4g}" if axis == "y" else f"{value:.6g}"


def _name(axes: Axes, axis: str) -> str:
    """The axis' own label, or what all of the figure share."""
    label: str = getattr(axes, f"get_{axis}label")()
    shared: Any = axes.figure
    return label or getattr(shared, f"get_sup{axis}label")()


def _numbers(column: Any) -> list[float]:
    return [float(value) for value in column]
