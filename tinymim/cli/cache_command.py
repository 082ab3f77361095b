"""``tinymim cache``: what teachers gave for views of images, kept on disk for all runs."""

from __future__ import annotations

import time
from pathlib import Path

from rich.table import Table

from tinymim.cli.network_command_options import cache as parser
from tinymim.errors import TinymimError
from tinymim.near_names import strangers
from tinymim.safety.console import PlainConsole
from tinymim.safety.escaping import one_line
from tinymim.teacher_cache.cache import place, size
from tinymim.teacher_cache.storage import CacheFolder, check_own, entries, remove

WIDEST = 100_000
"""Columns of the table at most, so that no name is folded or cut."""

EMPTY = "the teacher cache {} is empty"


def main(arguments: list[str]) -> int:
    """Run ``tinymim cache [list | clear [NAME ...]] [--dir FOLDER]``."""
    args = parser().parse_args(arguments)
    root = place(getattr(args, "dir", None))
    if args.action == "clear":
        clear(root, args.names)
    else:
        show(root)
    return 0


def show(root: Path) -> None:
    """Print a table of what is in the cache, a line an entry, however wide: names and paths are whole in a pipe, and a
    terminal breaks long lines by itself."""
    listed = entries(root)
    if not listed:
        print(EMPTY.format(root))
        return
    table = Table(title=f"teacher cache {root}", title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("name", "teacher", "precision", "data", "from", "stored", "views", "full", "size", "last used"):
        table.add_column(column, justify="right" if column in ("views", "full", "size") else "left", no_wrap=True)
    for entry in listed:
        table.add_row(*_row(entry))
    PlainConsole(width=WIDEST).print(table)
    print(f"{size(sum(entry.size for entry in listed))} in all; `tinymim cache clear [NAME ...]` removes it")


def _row(entry: CacheFolder) -> list[str]:
    teacher, data = (entry.about.get(name, "its key.json is damaged") for name in ("teacher", "data"))
    if teacher.startswith("run ") or teacher.endswith(".ckpt"):  # a later run in its folder is another teacher
        teacher += f", sha256 {entry.sha256[:12] or 'unknown'}"
    made = (teacher, entry.precision or "-", data, entry.about.get("source") or "-")
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
    stored = ", ".join(tap.replace("_", " ") for tap in entry.taps)
    return [entry.path.name, *made, stored, str(entry.views), f"{entry.full:.0%}", size(entry.size), when]


def clear(root: Path, names: list[str]) -> None:
    """Remove some of it, or all: what a run has open stays.

    Raises:
        TinymimError: nothing of that name, or a link, before anything is removed; or a run has some of it open, and the
            others are removed all the same.
    """
    listed = {entry.path.name: entry for entry in entries(root)}
    for name in names:
        check_own(root / name)
    if unknown := [name for name in names if name not in listed]:
        raise TinymimError(
            f"the teacher cache {root} has no {strangers(unknown, listed)}" if listed else EMPTY.format(root)
        )
    if not listed:
        print(EMPTY.format(root))
    refused = []
    for name in names or list(listed):
        try:
            remove(listed[name].path)
            print(f"removed {one_line(name)}, {size(listed[name].size)}")
        except TinymimError as error:
            refused.append(str(error))
    if refused:
        raise TinymimError("; ".join(refused))
