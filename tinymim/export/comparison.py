"""A written graph beside the network it is of, on the user's held-out images: what its form costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tinymim.errors import TinymimError, counted
from tinymim.evaluation.few_images import FEW
from tinymim.export import graphs
from tinymim.export.judge import LEAST, Judge, Reading, Run
from tinymim.export.model_card import ExportedForm
from tinymim.export.network_runs import onnx_run, openvino_run, program_run, torch_run
from tinymim.export.source import Source
from tinymim.log import say

LEAST_COSINE = 0.99
"""Mean cosine of features below which a graph is refused."""

MOST_LOST = 0.01
"""Share of the held-out images that 10-NN or top-1 may lose."""


@dataclass(frozen=True)
class Graph:
    """How a graph is written, and how its file is run as a user would."""

    write: Callable[[Source, Path], ExportedForm]
    file: str
    run: Callable[[Path], Run]


GRAPHS = {
    "torch-export": Graph(graphs.write, graphs.FILE, program_run),
    "onnx": Graph(graphs.write_onnx, graphs.ONNX, onnx_run),
    "openvino": Graph(graphs.write_openvino, graphs.OPENVINO[0], openvino_run),
}
"""By the name of the form."""


@dataclass
class Compared:
    """A graph that is compared with the network on images before it is kept.

    Args:
        graph: its form.
        judge: the images.
        force: keep it whatever it loses.
    """

    graph: Graph
    judge: Judge
    force: bool = False

    def write(self, source: Source, folder: Path) -> ExportedForm:
        """Fill ``folder`` with the graph, as it computes on this machine unasked.

        Raises:
            TinymimError: it loses more than is allowed on images that are enough to tell, and is not forced.
        """
        self.judge.check(source.name, source.backbone.classes, "leave the classifier out with --no-classifier")
        form = self.graph.write(source, folder)
        before = self.judge.read(torch_run(source.backbone))
        after = self.judge.read(self.graph.run(folder / self.graph.file))
        if len(before.features) >= LEAST and (errors := losses(before, after)) and not self.force:
            raise TinymimError(
                f"images: the graph loses too much on the {len(before.features)} held-out images of "
                f"{self.judge.what}: {'; '.join(errors)}. Say --force to keep it"
            )
        few = few_line(self.judge, before)
        on = f"On {counted(len(before.features), 'held-out image')} of {self.judge.what}, against the network"
        say(note := f"{on}: {cost(before, after)}{few and f'; {few}'}.")
        form.notes.append(note)
        return form


def cost(before: Reading, after: Reading) -> str:
    """What a graph gives beside the network, in words: the features' mean cosine, and figures before and after."""
    figures = [
        f", {name} {100 * before.figures[name]:.1f} -> {100 * value:.1f} %" for name, value in after.figures.items()
    ]
    return f"mean cosine of the features {after.cosine(before):.4f}{''.join(figures)}"


def few_line(judge: Judge, reading: Reading) -> str:
    """Line on few held-out images, see :meth:`Judge.few`; without labels there are no shares. Empty where there are
    enough."""
    if reading.figures:
        return judge.few()
    count = len(reading.features)
    return f"few held-out images: {count}, whose mean cosine says little of others" if count < FEW else ""


def losses(before: Reading, after: Reading) -> list[str]:
    """What a graph loses beyond what is allowed."""
    errors = []
    if not (cosine := after.cosine(before)) >= LEAST_COSINE:
        errors.append(f"mean cosine of the features {cosine:.4f}, and {LEAST_COSINE} is the least")
    for name, value in before.figures.items():
        if value - after.figures[name] > MOST_LOST + 1e-9:
            errors.append(f"{name} {100 * value:.1f} -> {100 * after.figures[name]:.1f} %, and 1 point is the most")
    return errors
