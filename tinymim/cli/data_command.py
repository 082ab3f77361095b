"""``tinymim data check DIR``: what is in a folder of images and what is wrong with it, before anything trains on it."""

from __future__ import annotations

import os
from pathlib import Path

from rich.table import Table

from tinymim.cli.help_page import Page
from tinymim.data.folder_check import FolderFindings, check
from tinymim.data.open_image import MAX_PIXELS
from tinymim.errors import TinymimError, counted
from tinymim.files import check_file, write_json, writing
from tinymim.safety.console import PlainConsole

SHOWN = 20  # broken files, groups of duplicates and classes on the screen; the JSON file has all


def main(arguments: list[str]) -> int:
    """Run ``tinymim data check DIR [--workers N] [--crop 224] [--json FILE]``."""
    about = "What is in a folder of images and what is wrong with it, before anything trains on it."
    parser = Page(prog="tinymim data", description=about, allow_abbrev=False)
    actions = parser.add_subparsers(dest="action", required=True)
    checking = actions.add_parser(
        "check", help="counts, sizes, broken files, duplicates; exit code 1 if it found faults"
    )
    checking.add_argument("folder", help="with train/ and val/, with class folders, or with images anyhow")
    checking.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (one a core)")
    checking.add_argument("--crop", type=int, default=224, help="count images with a side below this (224)")
    checking.add_argument(
        "--max-pixels", type=int, default=MAX_PIXELS, help=f"pixels of the largest image that is read ({MAX_PIXELS})"
    )
    checking.add_argument("--json", type=Path, help="write all findings to this file")
    options = parser.parse_args(arguments)
    for name in ("workers", "crop", "max_pixels"):
        if (value := getattr(options, name)) < 1:
            raise TinymimError(f"--{name.replace('_', '-')}: {value} is not 1 or more")
    if options.json and not options.json.parent.is_dir():
        raise TinymimError(f"--json: {options.json} lies in no folder; give a file to be written")
    if options.json:
        check_file("--json", options.json)
    findings = check(options.folder, options.workers, options.crop, options.max_pixels)
    show(findings, options.crop)
    if options.json:
        with writing("--json", options.json):
            write_json(options.json, vars(findings))
    faults = findings.faults()
    print(f"{findings.root}: {faults or 'in order'}")
    return 1 if faults else 0


def show(findings: FolderFindings, crop: int) -> None:
    """Print a table of the contents, and lists of the faults."""
    console = PlainConsole()
    table = Table(title=findings.root, title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for split, classes in findings.splits.items():
        counts = sorted(classes.values())
        spread = f" {next(iter(classes))}"
        if len(classes) > 1:
            spread = f" in {counted(len(classes), 'class')}, {counts[0]} to {counts[-1]} in each"
        table.add_row(split, f"{counted(sum(counts), 'image')}{spread}")
        if 1 < len(classes) <= SHOWN:
            table.add_row("", ", ".join(f"{label} {count}" for label, count in classes.items()))
    for name, sizes in (("width", findings.widths), ("height", findings.heights)):
        table.add_row(name, f"{sizes[0]:g} to {sizes[2]:g} pixels, median {sizes[1]:g}" if sizes else "-")
    table.add_row("smaller", f"{len(findings.small)} have a side below {crop} pixels and are enlarged in every crop")
    for name, kinds in (("formats", findings.forms), ("modes", findings.modes)):
        table.add_row(name, ", ".join(f"{what} {count}" for what, count in kinds.items()) or "-")
    console.print(table)

    groups = {
        "not used": findings.mistakes + findings.passed_over,
        "masks without a labelled pixel": findings.unlabelled,
        "cannot be read": [f"{path}: {error}" for path, error in findings.broken.items()],
        "the same image in train/ and val/": [" = ".join(group) for group in findings.leaks],
        "the same image in several classes": [" = ".join(group) for group in findings.contradictions],
        "the same bytes": [" = ".join(group) for group in findings.duplicates if group not in findings.leaks],
    }
    for title, lines in groups.items():
        if lines:
            more = f"; the first {SHOWN}, and all with --json FILE" if len(lines) > SHOWN else ""
            console.print(f"{title} ({len(lines)}{more}):")
            for line in lines[:SHOWN]:
                console.print(f"  {line}", soft_wrap=True)
