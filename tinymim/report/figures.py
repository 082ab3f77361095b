"""Figures in one style: readable at 80 mm, told apart without colour too, and the same file from the same data."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinymim.files import write_atomically
from tinymim.report import hover
from tinymim.safety.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
"""Okabe and Ito's, told apart by any eye; the series of a figure take them in this order."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
"""Line styles, beside the colours, for an eye that sees none."""

SEQUENTIAL = "cividis"
"""The colour map of pictures with one quantity: even in brightness."""

ON_MAP = ("#fefefe", "#010101")
"""Colours of text on the dark and the light end of :data:`SEQUENTIAL`, on light and dark pages alike."""

EAST_ASIAN = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans JP", "Noto Sans SC", "Noto Sans KR", "Source Han Sans"),
    *("WenQuanYi Zen Hei", "IPAexGothic", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "PingFang SC"),
    *("Hiragino Sans", "Arial Unicode MS"),
)
"""Fonts for titles that matplotlib's own font would draw as boxes."""

WIDTH = 80
"""Millimetres of a figure of one column."""

_STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "tinymim",
    "font.family": "sans-serif",
    "text.parse_math": False,
}


@contextmanager
def figure(
    rows: int = 1, columns: int = 1, height: float = 55, width: float | None = None, **options: Any
) -> Iterator[tuple[Figure, Any]]:
    """A figure and its axes, as ``plt.subplots`` gives them, to be drawn and saved inside the ``with``.

    Args:
        rows: of axes.
        columns: of axes; each has 80 mm unless ``width`` says otherwise.
        height: of a row, in millimetres.
        width: of the whole, in millimetres.
        options: of ``Figure.subplots``, such as ``sharey``.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({**_STYLE, "font.sans-serif": _fonts()}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # which prints characters of titles as they are on the terminal
        size = ((width or WIDTH * columns) / 25.4, height * rows / 25.4)
        drawn = Figure(figsize=size, layout="constrained")
        yield drawn, drawn.subplots(rows, columns, **options)


@cache
def _fonts() -> list[str]:
    """matplotlib's own font, then whichever fonts of this machine draw Chinese, Japanese and Korean titles."""
    from matplotlib import font_manager

    return ["DejaVu Sans", *(name for name in EAST_ASIAN if name in set(font_manager.get_font_names()))]


def series(number: int) -> dict[str, Any]:
    """Options of ``Axes.plot`` for series ``number``, from 0: its colour, marker and dashes."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": DASHES[number % len(DASHES)],
    }


def whole_numbers(axes: Axes) -> None:
    """Ticks of the x axis at whole numbers alone, as blocks are."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def svg(drawn: Figure) -> bytes:
    """A figure as SVG that tells its values under the pointer, without characters that XML has none of."""
    out = io.StringIO()
    drawn.savefig(out, format="svg", metadata={"Date": None})
    text = printable(out.getvalue())
    return text.replace("</svg>", f"{hover.values(drawn)}</svg>").encode() if "</svg>" in text else text.encode()


def png(drawn: Figure) -> bytes:
    """A figure as PNG, at 300 dots per inch."""
    out = io.BytesIO()
    drawn.savefig(out, format="png", dpi=300, metadata={"Software": None})
    return out.getvalue()


def save(drawn: Figure, stem: Path) -> bytes:
    """Write STEM.png and STEM.svg, each whole or not at all.

    Returns:
        The SVG, for a page.
    """
    drawn_svg = svg(drawn)
    for suffix, content in ((".png", png(drawn)), (".svg", drawn_svg)):
        path = stem.with_name(stem.name + suffix)
        write_atomically(path, partial(Path.write_bytes, data=content))
    return drawn_svg


def data_uri(kind: str, content: bytes) -> str:
    """A picture as text, to be the source of an ``img``; ``kind`` is ``png`` or ``svg+xml``."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
