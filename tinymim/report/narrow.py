"""A wide figure drawn again for a narrow page, where its letters would be too small or a part of it out of sight."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from tinymim.report import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONGEST = 22
"""Characters of a line of the names up the side; longer names have two lines."""

LEGEND = 2
"""Columns of a legend, at most."""


def narrow(drawn: Figure) -> bytes:
    """The SVG of a figure whose panels stand one below the other, each one column wide; empty where it is no wider.

    Args:
        drawn: inside its ``with`` of :func:`tinymim.report.figures.figure`, and nothing more is drawn of it after.
    """
    from matplotlib.gridspec import GridSpec

    width, height = (25.4 * inches for inches in drawn.get_size_inches())
    if width <= figures.WIDTH + 1:
        return b""
    seen = [axes for axes in drawn.axes if axes.axison and axes.get_visible()]
    panels = [(axes, place) for axes in seen if (place := axes.get_subplotspec())]
    rows = panels[0][1].get_gridspec().nrows
    across = panels[0][0].get_ylabel()
    grid = GridSpec(len(panels), 1, figure=drawn)
    for row, (axes, _) in enumerate(panels):
        axes.set_subplotspec(grid[row])
        axes.tick_params(labelleft=True, labelbottom=True)  # which axes on shared scales leave to the first
        axes.set_ylabel(axes.get_ylabel() or across)
        names = [label.get_text() for label in axes.get_yticklabels()]
        if any(len(name) > LONGEST for name in names):
            axes.set_yticks(axes.get_yticks(), [_in_two_lines(name) for name in names])
    for spare in {*drawn.axes} - {axes for axes, _ in panels}:
        if spare.get_subplotspec():
            drawn.delaxes(spare)
    for legend in [*drawn.legends]:  # whose columns are laid out when it is made
        labels, title = [text.get_text() for text in legend.get_texts()], legend.get_title().get_text()
        legend.remove()
        options: Any = {"loc": "outside lower center", "ncols": min(LEGEND, len(labels)), "title": title or None}
        drawn.legend([handle for handle in legend.legend_handles if handle], labels, **options)
    drawn.set_size_inches(figures.WIDTH / 25.4, height * len(panels) / rows / 25.4)
    return figures.svg(drawn)


def _in_two_lines(name: str) -> str:
    """A name as high as the room of a row."""
    return "\n".join(textwrap.wrap(name, LONGEST, max_lines=2, placeholder="…"))
