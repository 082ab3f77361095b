"""``tinymim report RUN``: one self-contained HTML page of a run: curves, figures, other runs, attention maps."""

from __future__ import annotations

import argparse
from pathlib import Path

from tinymim import extras, files
from tinymim.errors import TinymimError
from tinymim.log import say
from tinymim.report import run_report, runs
from tinymim.training import inspection


def main(arguments: list[str]) -> int:
    """Run ``tinymim report RUN [OTHER ...]``."""
    parser = argparse.ArgumentParser(prog="tinymim report", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument(
        "others", type=Path, nargs="*", help="runs to compare with; by default those in the same folder"
    )
    parser.add_argument("--out", type=Path, help="where the page goes; RUN/report.html by default")
    parser.add_argument("--images", type=Path, help="a folder of images for the attention maps, not the run's own data")
    parser.add_argument("--count", type=int, default=4, help="how many images (4); 0 leaves the maps out")
    inspection.add_argument(parser, "the run's recipe")
    args = parser.parse_args(arguments)
    if args.count < 0:
        raise TinymimError(f"count: {args.count} is not a number of images")
    run = runs.read(args.run)
    others = [runs.read(place) for place in args.others] or runs.beside(run)
    runs.distinguish([run, *others])
    out = args.out or args.run / "report.html"
    for line in extras.missing("curves need", "matplotlib"):
        say(f"report: {line}")
    text = run_report.render(run, others, args.images, args.count, args.trust)
    try:
        files.write_text(out, text)
    except OSError as error:
        raise TinymimError(f"out: {out} cannot be written ({error.strerror or error})") from None
    print(f"wrote {out} ({len(text) / 1e6:.1f} MB): open it in a browser; it needs no other file")
    return 0
