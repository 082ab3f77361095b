"""Mistakes of a classifier on held-out images: which classes it takes for which, each class's figures, the worst."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tinymim import extras, precision
from tinymim.data.device_augment import unit
from tinymim.data.image_files import evenly
from tinymim.data.sampler import Draw
from tinymim.errors import counted
from tinymim.report import figures, hover
from tinymim.report.document import Picture, Section, Table
from tinymim.report.runs import Run
from tinymim.report.shown_images import ShownImages, picture
from tinymim.teachers import weights
from tinymim.training.checkpoint_files import newest
from tinymim.vit.backbone import Backbone
from tinymim.vit.taps import LOGITS, Tap

KIND = "Classifier"
"""Class of modules that have classes to confuse."""

IMAGES, SECONDS, BATCH = 2000, 30.0, 50
"""Images that are classified at the most, the time after which no further batch is, and images of a batch."""

DRAWN, LISTED, WORST = 40, 30, 8
"""Classes of a matrix, rows of a table that are not folded away, and mistakes that are shown."""

LONGEST = 14
"""Characters of a class on an axis."""


@dataclass(frozen=True)
class Classified:
    """Classes of ``(M,)`` images, what each was taken for, how surely, and its place in the data."""

    classes: list[str]
    labels: Tensor
    said: Tensor
    probability: Tensor
    index: Tensor
    all_images: int

    @property
    def matrix(self) -> Tensor:
        """``(classes, classes)`` counts: a row is what they are, a column what was said."""
        count = len(self.classes)
        return torch.bincount(self.labels * count + self.said, minlength=count * count).view(count, count)


def mistakes(run: Run, shown: ShownImages) -> Section | None:
    """A section of the run's page; ``None`` for a run that classifies nothing, or of which nothing can be shown."""
    checkpoint = newest(run.place)
    if run.kind != KIND or not shown.count or checkpoint is None:
        return None
    with shown.noted("the classifier's mistakes cannot be shown"):
        network, _, record = weights.load(checkpoint, classifier=True)
        pool: Any = shown.data.held_out
        if pool is None or not network.classes or "label" not in pool[Draw(0, 0)]:
            return None
        named = list(record.get("classes") or getattr(shown.data, "classes", None) or [])
        classes = [str(name) for name in named] if len(named) == network.classes else []
        result = classified(network, pool, classes or [str(number) for number in range(network.classes)])
        return section(result, pool)
    return None


def classified(network: Backbone, pool: Any, classes: list[str]) -> Classified:
    """Classify :data:`IMAGES` of a set, spread over it however many there is time for; labels beyond the classifier
    are left out."""
    spread = evenly(len(pool), min(len(pool), IMAGES))
    order = torch.randperm(len(spread), generator=torch.Generator().manual_seed(0)).tolist()
    tap, parts, end = Tap(network.depth, LOGITS), list[tuple[Tensor, Tensor]](), time.monotonic() + SECONDS
    network.eval()
    for start in range(0, len(order), BATCH):
        if parts and time.monotonic() > end:
            break
        index = torch.tensor([spread[place] for place in order[start : start + BATCH]])
        samples = [pool[Draw(0, int(place))] for place in index]
        images = torch.stack([unit(sample["image"]) for sample in samples])
        with torch.inference_mode(), precision.measuring(images.device):
            sure, said = network.read(images, [tap])[tap].float().softmax(-1).max(-1)
        labels = torch.tensor([int(sample["label"]) for sample in samples])
        numbers = torch.stack([labels, said, index])
        known = (labels >= 0) & (labels < len(classes))
        parts.append((numbers[:, known], sure[known]))
    labels, said, index = torch.cat([numbers for numbers, _ in parts], 1)
    return Classified(classes, labels, said, torch.cat([sure for _, sure in parts]), index, len(pool))


def section(result: Classified, pool: Any) -> Section:
    """The matrix, the worst mistakes and each class's figures."""
    wrong = result.labels != result.said
    count, errors = len(wrong), int(wrong.sum())
    of = (
        counted(count, "held-out image") if count == result.all_images else f"{count:,} of {result.all_images:,} images"
    )
    text = [
        f"{errors:,} of {of} are taken for another class ({errors / max(count, 1):.1%}), by the newest checkpoint, "
        "in float32."
    ]
    missing = extras.missing("the matrix needs", "matplotlib")
    pictures = [_drawn(result)] if len(result.classes) <= DRAWN and not missing else []
    tables = [_worst(result, pool)] if errors else []
    if pairs := _pairs(result):
        tables.append(Table(["class, and what it is taken for", "images", "of the class"], pairs, "Most confused"))
    return Section("What it confuses", text + missing, [*tables, *_each(result)], pictures)


def _drawn(result: Classified) -> Picture:
    """The matrix, each row in per cent of its class."""
    matrix = result.matrix
    shares = 100 * matrix / matrix.sum(1, keepdim=True).clamp(min=1)
    names = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in result.classes]
    side = max(80.0, 34 + 4.6 * len(names))
    with figures.figure(height=side, width=side * 1.25) as (figure, axes):
        image = axes.imshow(shares.numpy(), cmap=figures.SEQUENTIAL, vmin=0, vmax=100, interpolation="nearest")
        places = range(len(names))
        axes.set_xticks(places, names, rotation=90 if max(map(len, names)) > 2 else 0)
        axes.set_yticks(places, names)
        axes.set(xlabel="taken for", ylabel="class")
        axes.grid(visible=False)
        figure.colorbar(image, label="images of the class, %")
        hover.told(axes, lambda place: result.classes[round(place)], lambda place: result.classes[round(place)])
        if len(names) <= 12:
            for row, line in enumerate(matrix.tolist()):
                for column, number in enumerate(line):
                    colour = figures.ON_MAP[int(shares[row, column] > 50)]
                    text = str(number) if number else ""
                    axes.text(column, row, text, ha="center", va="center", fontsize=6, color=colour)
        return Picture("Classes and what they are taken for", figures.svg(figure), wide=len(names) > 12)


def _worst(result: Classified, pool: Any) -> Table:
    """The mistakes that the classifier is surest of."""
    wrong = (result.labels != result.said).nonzero().flatten()
    surest = wrong[result.probability[wrong].argsort(descending=True)][:WORST].tolist()
    cells: list[Picture | str] = []
    for place in surest:
        is_, said = (result.classes[int(classes[place])] for classes in (result.labels, result.said))
        text = f"{is_}, taken for {said} ({result.probability[place]:.0%} sure)"
        image = unit(pool[Draw(0, int(result.index[place]))]["image"])
        cells.append(picture(text, image, text))
    rows = [cells[start : start + 4] for start in range(0, len(cells), 4)]
    width = len(rows[0])
    rows[-1].extend([""] * (width - len(rows[-1])))
    return Table(["surest mistakes", *[""] * (width - 1)], rows, prose=True)


def _pairs(result: Classified) -> list[list[str]]:
    """The pairs of classes that are confused most often, of more than once."""
    off = result.matrix.clone().fill_diagonal_(0)
    sizes, count = result.matrix.sum(1).tolist(), len(result.classes)
    rows = []
    for place in off.flatten().argsort(descending=True, stable=True)[:5].tolist():
        is_, said = divmod(place, count)
        if (number := int(off[is_, said])) > 1:
            names = f"{result.classes[is_]}, taken for {result.classes[said]}"
            rows.append([names, str(number), f"{number / sizes[is_]:.1%}"])
    return rows


def _each(result: Classified) -> list[Table]:
    """Each class's figures, the worst first."""
    matrix = result.matrix
    right, sizes, said = matrix.diagonal().tolist(), matrix.sum(1).tolist(), matrix.sum(0).tolist()
    rows = [
        [name, str(size), f"{hits / size:.1%}", f"{hits / claims:.1%}" if claims else "-"]
        for hits, size, claims, name in sorted(
            zip(right, sizes, said, result.classes, strict=True), key=lambda each: each[0] / max(each[1], 1)
        )
        if size
    ]
    heads = ["class, worst first", "images", "recognised", "right where said"]
    more = f"{len(rows) - LISTED} more classes"
    tables = [Table(heads, rows[:LISTED], "Each class"), Table(heads, rows[LISTED:], folded=more)]
    return [table for table in tables if table.rows]
