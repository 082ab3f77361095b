"""``tinymim report RUN``: one self-contained HTML page of a run: curves, figures, other runs, attention maps."""

from __future__ import annotations

from tinymim import files
from tinymim.cli.network_command_options import report as parser
from tinymim.errors import TinymimError
from tinymim.report import run_report, runs


def main(arguments: list[str]) -> int:
    """Run ``tinymim report RUN [OTHER ...]``."""
    args = parser().parse_args(arguments)
    if args.count < 0:
        raise TinymimError(f"count: {args.count} is not a number of images")
    run = runs.read(args.run)
    others = [runs.read(place) for place in args.others] or runs.beside(run)
    runs.distinguish([run, *others])
    out = args.out or args.run / "report.html"
    text = run_report.render(run, others, args.images, args.count, args.trust)
    try:
        files.write_text(out, text)
    except OSError as error:
        raise TinymimError(f"out: {out} cannot be written ({error.strerror or error})") from None
    print(f"wrote {out} ({len(text) / 1e6:.1f} MB): open it in a browser; it needs no other file")
    return 0
