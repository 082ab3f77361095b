"""The page of an analysis: each measure with what it is, the paper's finding, the one here, and its figures."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

from tinymim.analysis import analysis_figures, captions, findings, results
from tinymim.analysis.analysis_figures import DISTANCE, DIVERSITY, ENTROPY, RELATIVE
from tinymim.analysis.results import AnalysisResults
from tinymim.errors import counted
from tinymim.report.document import Document, Section, Table, moved
from tinymim.teachers import card

NAME = "index.html"
FIGURES = "figures"


def document(folder: Path) -> Document:
    """The page of an analysis, to be written into the same folder."""
    analysed = results.read(folder)
    about, images = analysed.about, analysed.about["images"]
    versions = about["environment"]["packages"].items()
    settings = [
        ("images", f"{images['what']}; {images['used']} used"),
        *((name, _plain(value)) for name, value in about["options"].items()),
        ("command", about["environment"]["command"]),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions)),
    ]
    return Document(
        f"What {findings.together(analysed.titles)} learned",
        [*_cards(analysed), *sections(folder)],
        f"{counted(len(analysed.models), 'network')}, analysed on the same {counted(images['used'], 'image')} "
        f"({images['what']}).",
        _warning(analysed),
        settings,
    )


def sections(folder: Path, beside: Path | None = None) -> list[Section]:
    """The sections of the page of an analysis; their figures are drawn into its folder. The page that is to hold them
    may be in another one, ``beside``.

    Raises:
        TinymimError: there is no analysis.
    """
    analysed = results.read(folder)
    made = _heads(analysed, folder) if len(analysed.heads) else []
    made += [_cka(analysed, folder)] if len(analysed.cka) else []
    made += [_agreement(analysed, folder)] if len(analysed.relations) else []
    made.append(_models(analysed))
    return moved(made, folder, beside or folder)


def _cards(analysed: AnalysisResults) -> list[Section]:
    """The figure of each network that says most in a word: how far its last blocks look; nothing without heads."""
    if not len(analysed.heads):
        return []
    name, ends = "last third (px)", findings.summary(analysed)
    cells = [findings.COLUMNS[DISTANCE.column][name](row) for _, row in ends.iterrows()]
    heads = [f"{network}: attention distance, {name}" for network in ends.index]
    return [Section("", tables=[Table(heads, [cells], cards=True)])]


def _models(analysed: AnalysisResults) -> Section:
    rows = [
        [
            model["title"],
            model["arch"],
            str(model["width"]),
            str(model["depth"]),
            ",".join(map(str, dict.fromkeys(model["heads"]))),
            "{}x{} of {:g} px".format(*model["grid"], model["patch_px"]),
            model["sha256"][:12] if model["sha256"] else "random",
            model["licence"] or "-",
        ]
        for model in analysed.models
    ]
    heads = ["model", "network", "width", "depth", "heads", "patches", "weights (sha256)", "licence"]
    remarks = [f"{note[0].upper()}{note[1:]}." for note in analysed.about["notes"]]
    if unreadable := analysed.about["images"]["unreadable"]:
        remarks.append(f"{len(unreadable)} unreadable images were passed over: {', '.join(unreadable)}.")
    return Section("The models", tables=[Table(heads, rows, files=[results.ABOUT])], remarks=remarks)


def _heads(analysed: AnalysisResults, folder: Path) -> list[Section]:
    ends = findings.summary(analysed)
    differ = len({(model["patch_px"], *model["grid"]) for model in analysed.models}) > 1
    parts = (
        ("Attention distance", captions.DISTANCE, captions.DISTANCE_PAPER, DISTANCE, findings.distance),
        ("Attention entropy", captions.ENTROPY, captions.ENTROPY_PAPER, ENTROPY, findings.entropy),
        ("Head diversity", captions.DIVERSITY, captions.DIVERSITY_PAPER, DIVERSITY, findings.diversity),
    )
    sections = []
    for title, about, paper, measure, sentences in parts:
        columns = findings.COLUMNS[measure.column]
        rows = [[network, *(cell(row) for cell in columns.values())] for network, row in ends.iterrows()]
        table = Table(["mean over heads", *columns], rows, files=["heads.csv"])
        # means also in proportion to uniform attention where patches are of different sizes, or differ in number
        measures = [measure, RELATIVE[measure]] if measure in RELATIVE and differ else [measure]
        heads, means = (folder / FIGURES / f"{measure.column.partition('_')[0]}_{kind}" for kind in ("heads", "means"))
        pictures = [analysis_figures.dots(analysed, measure, heads), analysis_figures.lines(analysed, measures, means)]
        sections.append(Section(title, [about, paper, *sentences(ends)], [table], pictures))
    if text := findings.prefix_mass(analysed):
        sections[0].remarks.append(text)
    return sections


def _cka(analysed: AnalysisResults, folder: Path) -> Section:
    titles = analysed.titles
    figures = {"cka_within": [(title, title) for title in titles], "cka_between": list(combinations(titles, 2))}
    pictures = [
        analysis_figures.likeness(analysed, pairs, folder / FIGURES / name) for name, pairs in figures.items() if pairs
    ]
    rows = []
    for title in titles:
        least = findings.least_alike(analysed, title)
        values = ["-", "-"] if least is None else [f"{least.cka:.3f}", f"{least.block_a}, {least.block_b}"]
        rows.append([title, *values])
    table = Table(["model", "least CKA of two blocks", "which"], rows, files=["cka.csv"])
    text = [captions.CKA, captions.CKA_PAPER, *findings.likeness(analysed)]
    return Section("Likeness of blocks (CKA)", text, [table], pictures)


def _agreement(analysed: AnalysisResults, folder: Path) -> Section:
    pairs = analysed.relations.assign(share=findings.relative(analysed.relations))
    nearest = pairs.loc[pairs.groupby(["student", "relation"], sort=False)["share"].idxmin()]
    rows = [
        [row.student, row.relation, f"{row.teacher_block}, {row.student_block}", f"{row.kl:.3g}", f"{row.share:.0%}"]
        for row in nearest.itertuples()
    ]
    heads = ["student", "relation", "nearest pair (teacher's, student's)", "KL (nats)", "of a uniform relation's"]
    pictures = [
        analysis_figures.agreement(analysed, relation, folder / FIGURES / f"agreement_{relation}")
        for relation in pairs["relation"].unique()
    ]
    table = Table(heads, rows, files=["relations.csv"])
    return Section("Relation agreement", [captions.AGREEMENT, *findings.agreement(analysed)], [table], pictures)


def _warning(analysed: AnalysisResults) -> str:
    """The licences that restrict the use of any of the weights."""
    licences = {model["title"]: model["licence"] for model in analysed.models if model["licence"]}
    terms = [f"of {title}: {name}: {use}" for title, name in licences.items() if (use := card.restriction(name))]
    return f"Licence {'; '.join(terms)}." if terms else ""


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(inner)}" for name, inner in value.items())
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
