"""The page of an analysis: each measure with what it is, what the paper found, what is found here, and its figures."""

from __future__ import annotations

import math
import os
from itertools import combinations
from pathlib import Path

from tinymim import cards
from tinymim.analysis import drawing, findings, results
from tinymim.analysis.drawing import DISTANCE, DIVERSITY, ENTROPY, RELATIVE, Measure
from tinymim.analysis.results import Results
from tinymim.pages import Document, Picture, Section, Table

NAME = "index.html"
FIGURES = "figures"

SOURCE = (
    'Xie et al., "Revealing the Dark Secrets of Masked Image Modeling" (arXiv 2205.13543), for ViT-B, as its abstract '
    "and published reading notes tell"
)

DISTANCE_TEXT = (
    "Attention distance: for each head the distance in pixels between a query's patch and the patches it attends to, "
    "weighted by attention, mean over queries and images. Small is local."
)
DISTANCE_FOUND = (
    "Supervised (DeiT) and contrastive (MoCo v3) networks look near in their first blocks and far in their last; SimMIM "
    f"mixes near and far heads in every block, and its distance falls slightly with depth ({SOURCE})."
)
ENTROPY_TEXT = (
    "Entropy of attention, in nats, mean over queries and images. Low is focused, high is broad; uniform attention to N "
    "patches has ln N."
)
ENTROPY_FOUND = (
    "Nearly all heads of supervised and contrastive networks are broad in the last blocks; those of SimMIM keep a wide "
    f"spread in every block ({SOURCE})."
)
DIVERSITY_TEXT = (
    "Head diversity: the KL divergence between the attention maps of a head and of each other head of its block, mean "
    "over those, queries and images. 0 is heads that do the same."
)
DIVERSITY_FOUND = (
    "It stays high in all blocks of SimMIM; in supervised and contrastive networks it shrinks with depth, and almost "
    f"vanishes in the last three of twelve ({SOURCE})."
)
CKA_TEXT = (
    "Linear CKA of what two blocks give out over the same images, from 0 (nothing in common) to 1 (the same up to "
    "rotation and scale), by the unbiased estimator over minibatches."
)
CKA_FOUND = (
    "The blocks of a supervised network differ, from about 0.5 to 1; those of contrastive and masked ones are nearly "
    f"alike, from about 0.9 to 1 ({SOURCE})."
)
AGREEMENT_TEXT = (
    "Relation agreement: KL from the teacher's relations to the student's, with the student's channels in the teacher's "
    "heads, at every pair of blocks. qk is the attention map, vv the likeness of values. It is the loss that relation "
    "distillation (TinyMIM, arXiv 2301.01296) brings down at one pair; the framed one, where the student's run says it."
)
AGREEMENT_FOUND = "None of the papers shows this figure."


def document(folder: Path) -> Document:
    """The page of what was found, to be written into the same folder."""
    found = results.read(folder)
    about, options = found.about, found.about["options"]
    settings = [
        ("images", about["images"]["what"] + f"; {about['images']['used']} used"),
        *((name, _shown(value)) for name, value in options.items()),
        ("command", about["environment"]["command"]),
        ("versions", ", ".join(f"{name} {version}" for name, version in about["environment"]["packages"].items())),
    ]
    return Document(
        f"What {findings.together(found.titles)} learned",
        sections(folder),
        f"{len(found.models)} networks, analysed on the same {about['images']['used']} images "
        f"({about['images']['what']}).",
        _warning(found),
        settings,
    )


def sections(folder: Path, beside: Path | None = None) -> list[Section]:
    """The sections of the page; their figures are drawn into the folder.

    Args:
        folder: that an analysis was written to.
        beside: the folder of the page that is to hold them, where it is another.

    Raises:
        TinymimError: there is no analysis.
    """
    found = results.read(folder)
    made = [_models(found)]
    if found.heads:
        made += _heads(found, folder)
    if found.cka:
        made += [_cka(found, folder)]
    if found.relations:
        made += [_agreement(found, folder)]
    at = os.path.relpath(folder, beside or folder)
    for section in made:
        for part in (*section.pictures, *section.tables):
            part.files = [os.path.normpath(f"{at}/{file}") for file in part.files]
    return made


def _models(found: Results) -> Section:
    rows = [
        [
            model["title"],
            model["network"],
            _range(model["blocks_with_maps"]),
            _range(model["blocks_with_outputs"]),
            model["sha256"][:12] if model["sha256"] else "random",
            model["licence"] or "-",
        ]
        for model in found.models
    ]
    heads = ["model", "network", "maps of blocks", "outputs of blocks", "sha256", "licence"]
    unreadable = found.about["images"]["unreadable"]
    remarks = [f"{len(unreadable)} unreadable images were passed over: {', '.join(unreadable)}."] if unreadable else []
    return Section("The models", tables=[Table(heads, rows, files=[results.ABOUT])], remarks=[*_notes(found), *remarks])


def _heads(found: Results, folder: Path) -> list[Section]:
    ends = findings.ends(found)
    mean = findings.mean
    per_model = {
        "Attention distance": (
            DISTANCE,
            [DISTANCE_TEXT, DISTANCE_FOUND, *findings.distance(ends)],
            ["first third (px)", "last third (px)", "last / uniform", "local heads, last third"],
            lambda one: [
                f"{mean(one.first, 'distance_px'):.1f}",
                f"{mean(one.last, 'distance_px'):.1f}",
                f"{mean(one.last, 'distance_ratio'):.2f}",
                f"{one.local():.0%}",
            ],
        ),
        "Attention entropy": (
            ENTROPY,
            [ENTROPY_TEXT, ENTROPY_FOUND, *findings.entropy(ends)],
            ["first third (nats)", "last third (nats)", "last / uniform", "sd of heads, last third"],
            lambda one: [
                f"{mean(one.first, 'entropy_nats'):.2f}",
                f"{mean(one.last, 'entropy_nats'):.2f}",
                f"{mean(one.last, 'entropy_ratio'):.2f}",
                f"{one.spread():.2f}",
            ],
        ),
        "Head diversity": (
            DIVERSITY,
            [DIVERSITY_TEXT, DIVERSITY_FOUND, *findings.diversity(ends)],
            ["greatest block (nats)", "its number", "last third (nats)", "last / greatest", "JS, last third (nats)"],
            lambda one: [
                f"{one.greatest()[1]:.3g}",
                str(one.greatest()[0]),
                f"{mean(one.last, 'diversity_kl'):.3g}",
                f"{one.kept():.0%}" if math.isfinite(one.kept()) else "-",
                f"{mean(one.last, 'diversity_js'):.3g}",
            ],
        ),
    }
    made = []
    for title, (measure, text, heads, cells) in per_model.items():
        rows = [[model, *cells(ends[model])] for model in found.titles]
        table = Table(["mean over heads", *heads], rows, files=["heads.csv"])
        made.append(Section(title, text, [table], _head_pictures(found, measure, folder)))
    made[0].remarks += [text for text in (findings.prefix_mass(found),) if text]
    return made


def _head_pictures(found: Results, measure: Measure, folder: Path) -> list[Picture]:
    """A dot a head, and the means of all networks: in proportion to uniform attention too, where sizes differ."""
    name = measure.column.partition("_")[0]
    relative = [RELATIVE[measure]] if measure in RELATIVE and _differ(found) else []
    ratio = " Below, in proportion to uniform attention, as patches or their numbers differ." if relative else ""
    return [
        _picture(
            folder,
            f"{name}_heads",
            "Every head",
            "One dot a head, block by block; the line is their mean.",
            lambda stem: drawing.dots(found, measure, stem),
        ),
        _picture(
            folder,
            f"{name}_means",
            "All models",
            f"Mean over the heads of each block.{ratio}",
            lambda stem: drawing.lines(found, [measure, *relative], stem),
        ),
    ]


def _cka(found: Results, folder: Path) -> Section:
    own = [(title, title) for title in found.titles]
    across = list(combinations(found.titles, 2))
    pictures = [
        _picture(
            folder,
            "cka_within",
            "Within each model",
            "Every block with every block.",
            lambda stem: drawing.likeness(found, own, stem),
        )
    ]
    if across:
        pictures.append(
            _picture(
                folder,
                "cka_between",
                "Between models",
                "The blocks of one model up, those of the other across.",
                lambda stem: drawing.likeness(found, across, stem),
            )
        )
    rows = []
    for title in found.titles:
        least = findings.least_alike(found, title)
        rows.append([title, *([f"{least['cka']:.3f}", _pair(least, "block_a", "block_b")] if least else ["-", "-"])])
    table = Table(["model", "least CKA of two blocks", "which"], rows, files=["cka.csv"])
    return Section("Likeness of blocks (CKA)", [CKA_TEXT, CKA_FOUND, *findings.likeness(found)], [table], pictures)


def _agreement(found: Results, folder: Path) -> Section:
    relations = list(dict.fromkeys(row["relation"] for row in found.relations))
    students = list(dict.fromkeys(row["student"] for row in found.relations))
    rows = []
    for student in students:
        for relation in relations:
            own = [row for row in found.relations if (row["student"], row["relation"]) == (student, relation)]
            if own:
                best = findings.nearest(own)
                where = _pair(best, "teacher_block", "student_block")
                rows.append([student, relation, where, f"{best['kl']:.3g}", f"{findings.relative(best):.0%}"])
    heads = ["student", "relation", "nearest pair (teacher's, student's)", "KL (nats)", "of a uniform relation's"]
    pictures = [
        _picture(
            folder,
            f"agreement_{relation}",
            f"{relation}: KL from the teacher, {found.about['teacher']}",
            "Dark is near. A frame marks the pair of blocks that was distilled." if _framed(found) else "Dark is near.",
            lambda stem, relation=relation: drawing.agreement(found, relation, stem),  # type: ignore[misc]
        )
        for relation in relations
    ]
    text = [AGREEMENT_TEXT, AGREEMENT_FOUND, *findings.agreement(found)]
    return Section("Relation agreement", text, [Table(heads, rows, files=["relations.csv"])], pictures)


def _picture(folder: Path, name: str, title: str, text: str, draw: drawing.Draw) -> Picture:
    content = draw(folder / FIGURES / name)
    return Picture(title, content, [f"{FIGURES}/{name}.png", f"{FIGURES}/{name}.svg"], text)


def _framed(found: Results) -> bool:
    return any(drawing.distilled(found, row["student"]) for row in found.relations)


def _differ(found: Results) -> bool:
    """Whether networks have patches of different sizes, or different numbers of them."""
    return len({(model["patch_px"], *model["grid"]) for model in found.models}) > 1


def _notes(found: Results) -> list[str]:
    return [f"{note[0].upper()}{note[1:]}." for note in found.about["notes"]]


def _warning(found: Results) -> str:
    """What stands against using any of the weights."""
    against = {
        model["title"]: f"{model['licence']}: {cards.restriction(model['licence'])}"
        for model in found.models
        if model["licence"] and cards.restriction(model["licence"])
    }
    return "Licence of " + "; of ".join(f"{title}: {terms}" for title, terms in against.items()) + "." if against else ""


def _pair(row: results.Row, one: str, other: str) -> str:
    return f"{row[one]}, {row[other]}"


def _range(blocks: list[int]) -> str:
    """Blocks in a row as 1-6, others one by one."""
    whole = blocks == list(range(blocks[0], blocks[-1] + 1)) if blocks else False
    return f"{blocks[0]}-{blocks[-1]}" if whole and len(blocks) > 1 else ", ".join(map(str, blocks)) or "none"


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(one)}" for name, one in value.items())
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
