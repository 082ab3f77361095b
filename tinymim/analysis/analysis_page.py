"""The page of an analysis: each measure with what it is, what the paper found, what is found here, and its figures."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

from tinymim.analysis import analysis_figures, captions, findings, results
from tinymim.analysis.analysis_figures import DISTANCE, DIVERSITY, ENTROPY, RELATIVE, Measure
from tinymim.analysis.findings import Ends
from tinymim.analysis.results import Results
from tinymim.report.document import Document, Picture, Section, Table, moved
from tinymim.teachers import card

NAME = "index.html"
FIGURES = "figures"


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
    return moved(made, folder, beside or folder)


def _models(found: Results) -> Section:
    rows = [
        [
            model["title"],
            model["arch"],
            *(str(model[name]) for name in ("width", "depth")),
            ",".join(map(str, dict.fromkeys(model["heads"]))),
            "{}x{} of {:g} px".format(*model["grid"], model["patch_px"]),
            model["sha256"][:12] if model["sha256"] else "random",
            model["licence"] or "-",
        ]
        for model in found.models
    ]
    heads = ["model", "network", "width", "depth", "heads", "patches", "weights (sha256)", "licence"]
    unreadable = found.about["images"]["unreadable"]
    remarks = [f"{len(unreadable)} unreadable images were passed over: {', '.join(unreadable)}."] if unreadable else []
    return Section("The models", tables=[Table(heads, rows, files=[results.ABOUT])], remarks=[*_notes(found), *remarks])


def _heads(found: Results, folder: Path) -> list[Section]:
    ends = findings.ends(found)
    return [
        Section(
            "Attention distance",
            [captions.DISTANCE, captions.DISTANCE_FOUND, *findings.distance(ends)],
            [_head_table(ends, findings.DISTANCE_COLUMNS)],
            _head_pictures(found, DISTANCE, folder),
            [text for text in (findings.prefix_mass(found),) if text],
        ),
        Section(
            "Attention entropy",
            [captions.ENTROPY, captions.ENTROPY_FOUND, *findings.entropy(ends)],
            [_head_table(ends, findings.ENTROPY_COLUMNS)],
            _head_pictures(found, ENTROPY, folder),
        ),
        Section(
            "Head diversity",
            [captions.DIVERSITY, captions.DIVERSITY_FOUND, *findings.diversity(ends)],
            [_head_table(ends, findings.DIVERSITY_COLUMNS)],
            _head_pictures(found, DIVERSITY, folder),
        ),
    ]


def _head_table(ends: dict[str, Ends], columns: findings.Columns) -> Table:
    rows = [[title, *(cell(one) for cell in columns.values())] for title, one in ends.items()]
    return Table(["mean over heads", *columns], rows, files=["heads.csv"])


def _head_pictures(found: Results, measure: Measure, folder: Path) -> list[Picture]:
    """A dot a head, and the means of all networks: in proportion to uniform attention too, where sizes differ."""
    name = measure.column.partition("_")[0]
    relative = [RELATIVE[measure]] if measure in RELATIVE and _differ(found) else []
    ratio = " Below, in proportion to uniform attention, as patches or their numbers differ." if relative else ""
    dots, lines = (folder / FIGURES / f"{name}_{what}" for what in ("heads", "means"))
    return [
        _picture(
            "Every head",
            "One dot a head, block by block; the line is their mean.",
            dots,
            analysis_figures.dots(found, measure, dots),
        ),
        _picture(
            "All models",
            f"Mean over the heads of each block.{ratio}",
            lines,
            analysis_figures.lines(found, [measure, *relative], lines),
        ),
    ]


def _cka(found: Results, folder: Path) -> Section:
    within, between = (folder / FIGURES / f"cka_{what}" for what in ("within", "between"))
    own, across = [(title, title) for title in found.titles], list(combinations(found.titles, 2))
    drawn = analysis_figures.likeness(found, own, within)
    pictures = [_picture("Within each model", "Every block with every block.", within, drawn)]
    if across:
        drawn = analysis_figures.likeness(found, across, between)
        text = "The blocks of one model up (↑), those of the other across (→)."
        pictures.append(_picture("Between models", text, between, drawn))
    rows = []
    for title in found.titles:
        least = findings.least_alike(found, title)
        rows.append([title, *([f"{least['cka']:.3f}", _pair(least, "block_a", "block_b")] if least else ["-", "-"])])
    table = Table(["model", "least CKA of two blocks", "which"], rows, files=["cka.csv"])
    return Section(
        "Likeness of blocks (CKA)", [captions.CKA, captions.CKA_FOUND, *findings.likeness(found)], [table], pictures
    )


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
    frame = " A frame marks the pair of blocks that was distilled." if _framed(found) else ""
    pictures = []
    for relation in relations:
        stem = folder / FIGURES / f"agreement_{relation}"
        title = f"{relation}: KL from the teacher, {found.about['teacher']}"
        drawn = analysis_figures.agreement(found, relation, stem)
        pictures.append(_picture(title, f"Dark is near.{frame}", stem, drawn))
    text = [captions.AGREEMENT, *findings.agreement(found)]
    return Section("Relation agreement", text, [Table(heads, rows, files=["relations.csv"])], pictures)


def _picture(title: str, text: str, stem: Path, svg: bytes) -> Picture:
    """A figure saved under a stem in the folder of figures."""
    return Picture(title, svg, [f"{FIGURES}/{stem.name}{suffix}" for suffix in (".png", ".svg")], text)


def _framed(found: Results) -> bool:
    return any(analysis_figures.distilled(found, row["student"]) for row in found.relations)


def _differ(found: Results) -> bool:
    """Whether networks have patches of different sizes, or different numbers of them."""
    return len({(model["patch_px"], *model["grid"]) for model in found.models}) > 1


def _notes(found: Results) -> list[str]:
    return [f"{note[0].upper()}{note[1:]}." for note in found.about["notes"]]


def _warning(found: Results) -> str:
    """What stands against using any of the weights."""
    against = {
        model["title"]: f"{model['licence']}: {card.restriction(model['licence'])}"
        for model in found.models
        if model["licence"] and card.restriction(model["licence"])
    }
    return (
        "Licence of " + "; of ".join(f"{title}: {terms}" for title, terms in against.items()) + "." if against else ""
    )


def _pair(row: results.Row, one: str, other: str) -> str:
    return f"{row[one]}, {row[other]}"


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(one)}" for name, one in value.items())
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
