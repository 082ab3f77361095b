"""``tinymim cache``: what teachers gave for views of images, kept on disk for all runs."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from rich.table import Table

from tinymim.errors import TinymimError
from tinymim.safety.console import PlainConsole
from tinymim.teacher_cache.cache import VARIABLE, place, size
from tinymim.teacher_cache.storage import Entry, check_own, entries, remove


def main(arguments: list[str]) -> int:
    """Run ``tinymim cache [list | clear [NAME ...]] [--dir FOLDER]``."""
    parser = argparse.ArgumentParser(prog="tinymim cache", description=__doc__)
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument("--dir", help=f"of the cache; ${VARIABLE} by default, else runs/teacher_cache")
    actions = parser.add_subparsers(dest="action")
    actions.add_parser("list", parents=[where], help="what is in it (the default)")
    clearing = actions.add_parser("clear", parents=[where], help="remove what no run has open")
    clearing.add_argument("names", nargs="*", metavar="NAME", help="as `list` shows them; all by default")
    options = parser.parse_args(arguments)
    root = place(getattr(options, "dir", None))
    if options.action == "clear":
        clear(root, options.names)
    else:
        show(root)
    return 0


def show(root: Path) -> None:
    """Print a table of the entries of the cache."""
    stored = entries(root)
    if not stored:
        print(f"the teacher cache {root} is empty")
        return
    table = Table(title=f"teacher cache {root}", title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("name", "teacher", "data", "stored", "views", "full", "size", "last used"):
        right = column in ("views", "full", "size")
        table.add_column(column, justify="right" if right else "left", overflow="fold", no_wrap=column == "name")
    for entry in stored:
        table.add_row(*_row(entry))
    PlainConsole().print(table)
    print(f"{size(sum(entry.size for entry in stored))} in all; `tinymim cache clear [NAME ...]` removes it")


def _row(entry: Entry) -> list[str]:
    teacher, data = (entry.about.get(name, "its key.json is damaged") for name in ("teacher", "data"))
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
    taps = ", ".join(tap.replace("_", " ") for tap in entry.taps)
    return [entry.path.name, teacher, data, taps, str(entry.views), f"{entry.full:.0%}", size(entry.size), when]


def clear(root: Path, names: list[str]) -> None:
    """Remove some entries, or all; what a run has open stays.

    Raises:
        TinymimError: nothing of that name, or a link, before anything is removed; or a run has some of it open, and the
            others are removed all the same.
    """
    stored = {entry.path.name: entry for entry in entries(root)}
    for name in names:
        check_own(root / name)
    if unknown := [name for name in names if name not in stored]:
        raise TinymimError(f"there is no {unknown[0]} in {root}; `tinymim cache list` shows what is")
    refused = []
    for name in names or list(stored):
        try:
            remove(stored[name].path)
            print(f"removed {name}, {size(stored[name].size)}")
        except TinymimError as error:
            refused.append(str(error))
    if refused:
        raise TinymimError("; ".join(refused))
