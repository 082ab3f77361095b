"""All measures of all networks in one pass over the images, a batch and a block at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from tinymim import precision
from tinymim.analysis import cka, heads
from tinymim.analysis.agreement import Agreement
from tinymim.analysis.agreement import Options as Relations
from tinymim.analysis.attention_maps import layers
from tinymim.analysis.networks import Subject
from tinymim.analysis.results import Results, Row
from tinymim.analysis.sample_images import Images
from tinymim.errors import TinymimError
from tinymim.training.run_folder import environment
from tinymim.vit.backbone import Backbone

MEASURES = ("heads", "cka", "relations")


@dataclass(frozen=True)
class Options:
    """What is measured.

    Args:
        measures: of :data:`MEASURES`.
        batch_size: images at a time.
        heads: of attention distance, entropy and diversity.
        tokens: what represents an image in CKA.
        relations: of the agreement.
        teacher: title of the network that the others are compared with.
    """

    measures: tuple[str, ...]
    batch_size: int
    heads: heads.Options
    tokens: cka.Which
    relations: Relations
    teacher: str

    def as_dict(self) -> dict[str, Any]:
        """In plain types, to be written beside a result."""
        nested = {"heads": self.heads.as_dict(), "relations": self.relations.as_dict()}
        return {**asdict(self), "measures": list(self.measures), **nested}


def measure(
    subjects: list[Subject],
    images: Images,
    options: Options,
    device: torch.device,
    advance: Callable[[int], None] = lambda done: None,
) -> Results:
    """Measure them all on the same images, in float32 on any machine (:func:`tinymim.precision.measuring`).

    Args:
        subjects: the networks.
        images: what they are shown.
        options: what is measured.
        device: to compute on.
        advance: told how many images each batch had.

    Raises:
        TinymimError: an option that does not fit a network, or no image that can be read.
    """
    notes = [subject.left_out for subject in subjects if subject.left_out]
    wanted = set(options.measures)
    for subject in subjects:
        subject.network.to(device)
        if "cka" in wanted:
            cka.check_tokens(options.tokens, getattr(subject.network, "has_cls", False), subject.title)
    pairs = _pairs(subjects, options, notes) if "relations" in wanted else {}
    measured = {subject.title: heads.HeadMeasures(options.heads) for subject in subjects if "heads" in wanted}
    likeness = cka.CKA([subject.title for subject in subjects])
    alone = 0
    with torch.inference_mode(), precision.measuring(device):
        for batch in images.batches(options.batch_size):
            shown = batch.to(device)
            compared = "cka" in wanted and len(batch) >= cka.LEAST
            alone += "cka" in wanted and not compared and len(batch)
            grams: dict[str, list[torch.Tensor]] = {subject.title: [] for subject in subjects}
            for subject in subjects if wanted & {"heads", "cka"} else ():
                mapped, given_out = set(subject.mapped), set(subject.given_out)
                for layer in layers(subject.network, shown):
                    if "heads" in wanted and layer.block in mapped:
                        measured[subject.title].add(layer)
                    if compared and layer.block in given_out:
                        grams[subject.title].append(cka.gram(layer.tokens, layer.prefix, options.tokens))
            if compared:
                likeness.add(grams)
            for agreement in pairs.values():
                agreement.add(shown)
            advance(len(batch))
    if alone:
        notes.append(f"CKA: {alone} images in a batch of fewer than {cka.LEAST} left out, too few for its estimator")
    about = {
        "options": options.as_dict(),
        "models": [subject.as_dict() for subject in subjects],
        "teacher": options.teacher,
        "images": {"what": images.what, "used": images.used, "unreadable": list(images.unreadable)},
        "notes": notes,
        "environment": environment(),
    }
    return Results(
        about,
        [{"model": title, **row} for title, one in measured.items() for row in one.records()],
        _cka_rows(subjects, likeness, notes) if likeness.batches else [],
        [
            row
            for student, agreement in pairs.items()
            for row in _trained(agreement, student, subjects, options.teacher)
        ],
    )


def _pairs(subjects: list[Subject], options: Options, notes: list[str]) -> dict[str, Agreement]:
    """The teacher beside each of the others, by title; a note says why one is left out."""
    teacher = next(subject for subject in subjects if subject.title == options.teacher)
    found: dict[str, Agreement] = {}
    if len(subjects) == 1:
        notes.append("relation agreement: left out, it takes two models")
    for student in subjects:
        if student is teacher:
            continue
        what = f"relation agreement of {teacher.title} and {student.title}"
        if not (isinstance(teacher.network, Backbone) and isinstance(student.network, Backbone)):
            notes.append(f"{what}: left out, as attention in windows has no relations among all patches")
            continue
        try:
            found[student.title] = pair = Agreement(teacher.network, student.network, options.relations)
        except TinymimError as error:
            notes.append(f"{what}: left out ({error})")
            continue
        if pair.teacher.grid != pair.student.grid:
            grids = ["{}x{}".format(*one.grid) for one in (pair.teacher, pair.student)]
            notes.append(f"{what}: the teacher's {grids[0]} patches are resampled to the student's {grids[1]}")
    return found


def _trained(agreement: Agreement, student: str, subjects: list[Subject], teacher: str) -> list[Row]:
    """Rows of the pairs of blocks whose parts were trained on both sides."""
    by_title = {subject.title: subject for subject in subjects}
    return [
        {"teacher": teacher, "student": student, **row}
        for row in agreement.records()
        if by_title[teacher].trained(row["relation"], row["teacher_block"])
        and by_title[student].trained(row["relation"], row["student_block"])
    ]


def _cka_rows(subjects: list[Subject], likeness: cka.CKA, notes: list[str]) -> list[Row]:
    rows: list[Row] = []
    for number, a in enumerate(subjects):
        if undefined := likeness.undefined(a.title):
            blocks = ", ".join(str(a.given_out[block - 1]) for block in undefined)
            notes.append(f"CKA: {a.title} tells no two images apart in block {blocks}, so there is none")
        for b in subjects[number:]:
            matrix = likeness.matrix(a.title, b.title).tolist()
            rows += [
                {"model_a": a.title, "block_a": block_a, "model_b": b.title, "block_b": block_b, "cka": value}
                for block_a, line in zip(a.given_out, matrix, strict=True)
                for block_b, value in zip(b.given_out, line, strict=True)
            ]
    return rows
