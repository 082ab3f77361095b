"""``tinymim report RUN``: one self-contained HTML page of a run: figures, curves, pictures, other runs beside it."""

from __future__ import annotations

from tinymim import extras, files
from tinymim.cli.network_command_options import report as parser
from tinymim.errors import TinymimError
from tinymim.log import say
from tinymim.report import run_report, runs, watch
from tinymim.report.run_report import Seen
from tinymim.report.runs import Run
from tinymim.training import lock


def main(arguments: list[str]) -> int:
    """Run ``tinymim report RUN [OTHER ...]``."""
    args = parser().parse_args(arguments)
    if args.count < 0:
        raise TinymimError(f"count: {args.count} is not a number of images")
    run = runs.read(args.run)
    others = [runs.read(place) for place in args.others] or runs.beside(run)
    out = args.out or args.run / runs.PAGE
    files.check_file("out", out)

    for line in extras.missing("curves need", "matplotlib"):
        say(f"report: {line}")

    def look(run: Run) -> Seen:
        return run_report.seen(run, args.images, args.count, args.trust)

    def write(run: Run, looked: Seen, again: int = 0) -> None:
        runs.distinguish([run, *others])
        text = run_report.render(run, others, looked, out.parent, again)
        with files.writing("out", out):
            files.write_text(out, text)
        if not again:
            print(f"wrote {out} ({len(text) / 1e6:.1f} MB): open it in a browser; it needs no other file")

    if not args.watch:
        write(run, look(run))
        return 0
    if lock.owner(args.run):
        print(f"following {args.run} in {out}, which a browser reads anew by itself; Ctrl-C ends it", flush=True)
    print(f"{args.run}: {watch.follow(args.run, look, write).state}")
    return 0
