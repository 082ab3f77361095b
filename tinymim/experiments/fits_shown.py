"""The fits of a plan on its page: how each went, its curve, and the way to its own page."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from tinymim import extras
from tinymim.errors import TinymimError, counted
from tinymim.experiments.state import State
from tinymim.experiments.status import headline, training_time
from tinymim.report import curves, runs
from tinymim.report.document import Link, Picture, Section, Table

FEW = 12
"""Fits that are listed open, and drawn; the table of more is folded away."""

PAGES = (
    "Training is the time that a fit has trained, in all its pieces. The page of a run is written by "
    "`tinymim report RUN`, and linked here when this page is written next."
)


def section(state: State, beside: Path) -> Section:
    """A table of all fits that a command has asked for; those whose folder has a page of its own lead to it, relative
    to the folder ``beside``."""
    rows = []
    for key, entry in state.asked.items():
        page = state.place / key / runs.PAGE
        name = Link(key, os.path.relpath(page, beside)) if page.is_file() else key
        figure = headline(state, key) if entry.state == "done" else "-"
        rows.append([name, state.plan.stage(key).kind, entry.state, figure, training_time(state, key)])
    folded = counted(len(rows), "run") if len(rows) > FEW else ""
    table = Table(["run", "kind", "state", "figure", "training"], rows, text=PAGES, folded=folded)
    return Section("Every run", tables=[table])


def drawn(state: State) -> Section:
    """The curve that says most of each finished fit, of the first :data:`FEW`."""
    done = [key for key, entry in state.entries.items() if entry.state == "done"]
    if missing := extras.missing("curves need", "matplotlib"):
        return Section("Curves", missing)
    pictures: list[Picture] = []
    for key in done[:FEW]:
        try:
            run = runs.read(state.place / key)
        except TinymimError:  # an export, which is no run
            continue
        if name := curves.headline(run):
            picture = curves.chart(name, run, [])
            pictures.append(replace(picture, title=f"{key}: {picture.title}"))
    return Section("Curves", pictures=pictures)
