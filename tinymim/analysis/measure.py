"""All measures of all networks in one pass over the images, a batch and a block at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import product

import torch
from pandas import DataFrame
from torch import Tensor

from tinymim import precision
from tinymim.analysis import cka
from tinymim.analysis.agreement import Agreement, RelationOptions
from tinymim.analysis.heads import HeadMeasures, HeadOptions
from tinymim.analysis.layers import layers
from tinymim.analysis.networks import AnalysedNetwork
from tinymim.analysis.results import AnalysisResults
from tinymim.analysis.sample_images import SampleImages
from tinymim.errors import TinymimError
from tinymim.training.run_record import environment
from tinymim.vit.backbone import Backbone


@dataclass(frozen=True)
class MeasureOptions:
    """The measures, some of ``tinymim.analysis.captions.MEASURES``, and their options: ``tokens`` represent an
    image in CKA, and ``teacher`` is the title of the network whose relations the others' are compared with."""

    measures: tuple[str, ...]
    batch_size: int
    heads: HeadOptions
    tokens: cka.Which
    relations: RelationOptions
    teacher: str


def measure(
    networks: list[AnalysedNetwork],
    images: SampleImages,
    options: MeasureOptions,
    device: torch.device,
    advance: Callable[[int], None] = lambda count: None,
) -> AnalysisResults:
    """Measure all networks on the same images, in float32 on any machine (:func:`tinymim.precision.measuring`);
    ``advance`` is called with the number of images of each batch.

    Raises:
        TinymimError: an option that does not fit a network, or no image that can be read.
    """
    notes = [note for network in networks for note in (network.exclusions, network.resampled) if note]
    wanted = set(options.measures)
    for network in networks:
        network.network.to(device)
        if "cka" in wanted and options.tokens == "cls" and not getattr(network.network, "has_cls", False):
            raise TinymimError(f"cka.tokens: cls, but {network.title} has no CLS token; take mean or all")
    pairs = _pairs(networks, options, notes) if "relations" in wanted else {}
    heads = {network.title: HeadMeasures(options.heads) for network in networks if "heads" in wanted}
    likeness = cka.CKA([network.title for network in networks])
    too_few = 0
    with torch.inference_mode(), precision.measuring(device):
        for batch in images.batches(options.batch_size):
            shown = batch.to(device)
            compared = "cka" in wanted and len(batch) >= cka.LEAST
            if "cka" in wanted and not compared:
                too_few += len(batch)
            grams: dict[str, list[Tensor]] = {network.title: [] for network in networks}
            for network in networks if wanted & {"heads", "cka"} else ():
                mapped, whole = set(network.blocks_with_maps), set(network.blocks_with_outputs)
                for layer in layers(network.network, shown):
                    if "heads" in wanted and layer.block in mapped:
                        heads[network.title].add(layer)
                    if compared and layer.block in whole:
                        grams[network.title].append(cka.gram(layer.tokens, layer.prefix, options.tokens))
            if compared:
                likeness.add(grams)
            for agreement in pairs.values():
                agreement.add(shown)
            advance(len(batch))
    if too_few:
        notes.append(f"CKA: {too_few} images in a batch of fewer than {cka.LEAST} left out, too few for its estimator")
    about = {
        "options": asdict(options),
        "models": [network.as_dict() for network in networks],
        "teacher": options.teacher,
        "images": {"what": images.what, "used": images.used, "unreadable": list(images.unreadable)},
        "notes": notes,
        "environment": environment(),
    }
    return AnalysisResults(
        about,
        DataFrame([{"model": title, **row} for title, measured in heads.items() for row in measured.records()]),
        _cka_table(networks, likeness, notes) if likeness.batches else DataFrame(),
        _relation_table({network.title: network for network in networks}, pairs, options.teacher),
    )


def _pairs(networks: list[AnalysedNetwork], options: MeasureOptions, notes: list[str]) -> dict[str, Agreement]:
    """The teacher beside each of the others, by title; a note says why one is left out."""
    teacher = next(network for network in networks if network.title == options.teacher)
    pairs: dict[str, Agreement] = {}
    if len(networks) == 1:
        notes.append("relation agreement: left out, it takes two models")
    for student in networks:
        if student is teacher:
            continue
        what = f"relation agreement of {teacher.title} and {student.title}"
        if not (isinstance(teacher.network, Backbone) and isinstance(student.network, Backbone)):
            notes.append(f"{what}: left out, as attention in windows has no relations among all patches")
            continue
        try:
            pairs[student.title] = Agreement(teacher.network, student.network, options.relations)
        except TinymimError as error:
            notes.append(f"{what}: left out ({error})")
            continue
        grids = ["{}x{}".format(*network.grid) for network in (teacher.network, student.network)]
        if grids[0] != grids[1]:
            notes.append(f"{what}: the teacher's {grids[0]} patches are resampled to the student's {grids[1]}")
    return pairs


def _relation_table(networks: dict[str, AnalysedNetwork], pairs: dict[str, Agreement], teacher: str) -> DataFrame:
    """The pairs of blocks whose relations were trained on both sides."""
    return DataFrame(
        {"teacher": teacher, "student": student, **row}
        for student, agreement in pairs.items()
        for row in agreement.records()
        if networks[teacher].is_trained(row["relation"], row["teacher_block"])
        and networks[student].is_trained(row["relation"], row["student_block"])
    )


def _cka_table(networks: list[AnalysedNetwork], likeness: cka.CKA, notes: list[str]) -> DataFrame:
    rows = []
    for number, a in enumerate(networks):
        if undefined := likeness.undefined(a.title):
            blocks = ", ".join(str(a.blocks_with_outputs[block - 1]) for block in undefined)
            notes.append(f"CKA: {a.title} tells no two images apart in block {blocks}, so there is none")
        for b in networks[number:]:
            values = likeness.matrix(a.title, b.title).flatten().tolist()
            blocks_of_both = product(a.blocks_with_outputs, b.blocks_with_outputs)
            rows += [
                {"model_a": a.title, "block_a": block_a, "model_b": b.title, "block_b": block_b, "cka": value}
                for (block_a, block_b), value in zip(blocks_of_both, values, strict=True)
            ]
    return DataFrame(rows)
