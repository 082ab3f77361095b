"""``tinymim analyze MODEL [MODEL ...] --data WHAT``: attention distance, entropy, diversity, CKA, relations."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import get_args

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tinymim import files
from tinymim.analysis import analysis_page, cka, networks, sample_images
from tinymim.analysis.agreement import RelationOptions
from tinymim.analysis.heads import HeadOptions
from tinymim.analysis.measure import MEASURES, MeasureOptions, measure
from tinymim.analysis.results import ABOUT, TABLES, AnalysisResults
from tinymim.cli.predict_command import positive
from tinymim.device import usable_device
from tinymim.errors import TinymimError
from tinymim.log import say
from tinymim.safety.console import PlainConsole
from tinymim.targets.relation import check_pairs
from tinymim.training import inspection
from tinymim.vit.initialise import Init

OURS = {ABOUT, analysis_page.NAME, *(f"{name}.csv" for name in TABLES)}
"""Files of an analysis in its folder, beside figures."""

EXAMPLES = """\
MODEL is [TITLE=]SOURCE, and SOURCE one of
  a card's name (tinymim teachers list), a checkpoint or an exported folder, another's file of weights,
  timm:NAME (vit, deit, beit, eva and swin models),
  random:SOURCE, the same network with random weights of --seed, a second one of the next seed, and so on; the weights
    of SOURCE need not be there. They follow --init: `published`, TinyMIM's and MAE's rule (SimMIM's for its
    checkpoints), or `timm`; by default the rule a checkpoint says it began with, and published for all else.

example: tinymim analyze digits_mae student=runs/relation_digits/checkpoints/last.ckpt random:digits_mae --data digits
"""


def main(arguments: list[str]) -> int:
    """Run ``tinymim analyze``."""
    parser = argparse.ArgumentParser(
        prog="tinymim analyze",
        description="Attention distance, entropy and diversity of heads; CKA of blocks; agreement of relations: "
        "tables, figures and one page.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("models", nargs="+", metavar="MODEL", help="a network; see below")
    add(
        "--data", required=True, help="a folder of images, digits, shapes, or a recipe, whose held-out images are taken"
    )
    add("--images", type=positive, default=1000, help="how many at most, spread evenly (1000)")
    add("--image_size", type=positive, help="side of the images, to which positions are resampled (each network's own)")
    add("--batch_size", type=positive, default=50, help="images at a time (50)")
    add("--measures", type=_some(MEASURES), default=MEASURES, help=f"some of {','.join(MEASURES)} (all)")
    add(
        "--cls",
        choices=("drop", "keep"),
        help="the CLS token in attention maps and relations; by default it is dropped from maps, as others have "
        "measured them, and kept in relations, as they are distilled",
    )
    add("--kl", choices=("forward", "reverse", "both"), default="both", help="direction between two heads (both)")
    add("--tokens", choices=("mean", "cls", "all"), default="mean", help="what represents an image in CKA (mean)")
    add("--relations", type=_listed, default=("qk", "vv"), help="compared with the teacher's (qk,vv)")
    add("--teacher", metavar="TITLE", help="the model that the others are compared with (the first)")
    add("--seed", type=int, default=0, help="of the first random weights (0)")
    add("--init", choices=get_args(Init), help="rule of random weights; see below")
    add("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto takes a GPU if there is one")
    add("--out", type=Path, default=Path("runs/analysis"), help="folder for what is found (runs/analysis)")
    inspection.add_argument(parser, "the recipe of --data")
    args = parser.parse_args(arguments)
    _check_out(args.out)
    if "cka" in args.measures and args.batch_size < cka.LEAST:
        raise TinymimError(
            f"batch_size: {args.batch_size} is not {cka.LEAST} or more, which CKA needs; take more, or "
            "leave CKA out with --measures heads,relations"
        )
    check_pairs(args.relations, "relations")
    device = usable_device(args.device)
    models = networks.load(args.models, args.seed, args.init, args.image_size)
    titles = [model.title for model in models]
    if args.teacher and args.teacher not in titles:
        raise TinymimError(f"teacher: {args.teacher} is none of the models: {', '.join(titles)}")
    options = MeasureOptions(
        args.measures,
        args.batch_size,
        HeadOptions(**({"cls": args.cls} if args.cls else {}), kl=args.kl),
        args.tokens,
        RelationOptions(args.relations, **({"cls": args.cls} if args.cls else {})),
        args.teacher or titles[0],
    )
    side = max(side for model in models for side in model.network.image_size)
    shown = sample_images.find(args.data, args.images, side, args.trust)
    say(f"{shown.what}, {len(models)} models: {', '.join(titles)}")
    measured = with_bar(len(shown.chosen), partial(measure, models, shown, options, device))
    measured.about["options"] |= {"data": args.data, "images": args.images, "seed": args.seed, "device": str(device)}
    measured.about["options"] |= {"image_size": args.image_size} if args.image_size else {}
    for note in measured.about["notes"]:
        say(f"- {note}")
    write(measured, args.out)
    print(f"wrote {args.out / analysis_page.NAME}: open it in a browser; the tables and figures lie beside it")
    return 0


def with_bar(whole: int, work: Callable[[Callable[[int], None]], AnalysisResults]) -> AnalysisResults:
    """Do ``work``, which reports the images of each step, under a progress bar of ``whole`` images."""
    columns = (TextColumn("images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = PlainConsole(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=whole)
        return work(lambda count: bar.advance(task, count))


def write(results: AnalysisResults, out: Path) -> None:
    """Tables, figures and page into a folder, which appears whole or not at all.

    Raises:
        TinymimError: it cannot be written.
    """

    def fill(folder: Path) -> None:
        results.write(folder)
        analysis_page.document(folder).write(folder / analysis_page.NAME)

    try:
        files.write_folder(out, fill)
    except OSError as error:
        raise TinymimError(f"out: {out} cannot be written ({files.unwritten(error) or error})") from None


def _check_out(out: Path) -> None:
    """Raise where results would take the place of something else."""
    if not out.exists():
        return
    if not out.is_dir():
        raise TinymimError(f"out: {out} is a file; give a folder")
    present = [path.relative_to(out) for path in out.rglob("*") if path.is_file()]
    known = (out / ABOUT).is_file()
    figures = [
        path for path in present if str(path.parent) == analysis_page.FIGURES and path.suffix in (".png", ".svg")
    ]
    if strange := [path for path in present if not known or (str(path) not in OURS and path not in figures)]:
        raise TinymimError(f"out: {out} holds {sorted(strange)[0]}, which no analysis wrote; give another folder")


def _listed(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",")))


def _some(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        parts = _listed(text)
        if wrong := [part for part in parts if part not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(map(repr, wrong))} is none of {', '.join(known)}")
        return parts

    return parse
