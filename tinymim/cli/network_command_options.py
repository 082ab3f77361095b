"""Options of the commands over networks and runs, whose work imports much: their help answers without it."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any, get_args

from tinymim.analysis.captions import MEASURES
from tinymim.cli import plan_options
from tinymim.cli.help_page import Page, listed, positive, some
from tinymim.vit.description import Init

PRECISIONS = {"auto": "auto", "32-true": "32-true", "bf16-mixed": "bf16-mixed", "16-mixed": "16-mixed"}
PRECISIONS |= {"32": "32-true", "bf16": "bf16-mixed"}
"""Values of ``--precision``, a trainer's names and two shorter ones, and the trainer's name for each."""

MODELS = """\
MODEL is [TITLE=]SOURCE, and SOURCE one of
  a card's name (tinymim teachers list), a checkpoint or an exported folder, another's file of weights,
  timm:NAME (vit, deit, beit, eva and swin models),
  random:SOURCE, the same network with random weights of --seed, a second one of the next seed, and so on; the weights
    of SOURCE need not be there. They follow --init: `published`, TinyMIM's and MAE's rule (SimMIM's for its
    checkpoints), or `timm`; by default the rule a checkpoint says it began with, and published for all else."""


def predict() -> Page:
    """The options of ``tinymim predict CHECKPOINT --images FOLDER``."""
    page = Page(
        prog="tinymim predict",
        description="Write features or classes of any images, without the training's recipe.",
        examples=(
            "tinymim predict runs/relation_digits/checkpoints/last.ckpt --images photos",
            "tinymim predict digits_mae --images photos --out features.npz --block 3",
            "tinymim predict --config RECIPE --ckpt_path last   # of a recipe's own held-out images",
        ),
    )
    add, further = page.add_argument, page.further().add_argument
    add("checkpoint", help="a checkpoint, an exported folder for timm, or a teacher card's name")
    add("--images", type=_folder, required=True, help="folder of images, looked through to any depth")
    add("--out", type=Path, default=Path("predictions.parquet"), help="ends in .parquet or .npz")
    add("--overwrite", action="store_true", help="replace the file that is there")
    add("--classes", action="store_true", help="write the classifier's labels, not features")
    add("--block", type=positive, help="block to read features from; the output block by default")
    add("--pool", choices=("mean", "cls"), default="mean", help="mean patch token, or the CLS token")
    further("--batch_size", type=positive, default=64, help="images at a time (64)")
    further("--num_workers", type=_workers, default="auto", help="processes that decode; auto: one a core, at most 8")
    further("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto takes a GPU if there is one")
    further("--precision", choices=PRECISIONS, default="auto", help="auto is what is faster here")
    further("--crop_pct", type=float, help="share of the shorter side seen: 0.875 to 224 px, then 1")
    return page


def replay() -> Page:
    """The options of ``tinymim replay``; others are overrides of the captured recipe."""
    about = "Run a captured step again, and show where it stops being finite."
    page = plan_options.parser("replay", about, examples=("tinymim replay runs/NAME/nonfinite/step_120.pt",))
    page.add_argument("file", type=Path, help="RUN/nonfinite/step_N.pt")
    page.add_argument("--precision", help="another than it ran in, such as 32-true or auto")
    plan_options.add_trust(page, "the captured recipe or an override")
    return page


def report() -> Page:
    """The options of ``tinymim report``."""
    page = Page(
        prog="tinymim report",
        description="Write one self-contained HTML page of a run: curves, figures, other runs, attention maps.",
        examples=("tinymim report runs/relation_digits", "tinymim report runs/a runs/b --images photos --count 8"),
    )
    page.add_argument("run", type=Path, help="folder of the run")
    page.add_argument("others", type=Path, nargs="*", help="runs to compare with; by default those beside it")
    page.add_argument("--out", type=Path, help="where the page goes; RUN/report.html by default")
    page.add_argument("--watch", action="store_true", help="follow a run at work: write the page anew until it ends")
    page.add_argument("--images", type=Path, help="a folder of images to look at, not the run's own data")
    page.add_argument("--count", type=int, default=4, help="how many images (4); 0 leaves all pictures of images out")
    plan_options.add_trust(page, "the run's recipe")
    return page


def analyze() -> Page:
    """The options of ``tinymim analyze``."""
    student = "student=runs/relation_digits/checkpoints/last.ckpt"
    page = Page(
        prog="tinymim analyze",
        description="Distance, entropy and diversity of attention; CKA; agreement of relations.\n\n"
        "Of the heads of some networks, and of their blocks: tables, figures and one page.",
        examples=(f"tinymim analyze digits_mae {student} random:digits_mae --data digits",),
        whole=lambda: MODELS,
    )
    add, further = page.add_argument, page.further().add_argument
    add("models", nargs="+", metavar="MODEL", help="[TITLE=] a card's name, checkpoint, timm:NAME or random:SOURCE")
    add("--data", required=True, help="a folder of images, digits, shapes, or a recipe (its held-out images)")
    add("--images", type=positive, default=1000, help="how many at most, spread evenly (1000)")
    add("--image_size", type=positive, help="side, to which positions are resampled (each network's own)")
    add("--measures", type=some(MEASURES), default=MEASURES, help=f"some of {','.join(MEASURES)} (all)")
    add("--relations", type=listed, default=("qk", "vv"), help="compared with the teacher's (qk,vv)")
    add("--teacher", metavar="TITLE", help="the model others are compared with (the first)")
    add("--out", type=Path, default=Path("runs/analysis"), help="folder for what is found (runs/analysis)")
    further("--batch_size", type=positive, default=50, help="images at a time (50)")
    cls = "the CLS token in maps and relations; by default dropped from maps, as others measured, and kept in relations"
    further("--cls", choices=("drop", "keep"), help=cls)
    further("--kl", choices=("forward", "reverse", "both"), default="both", help="direction between two heads (both)")
    further("--tokens", choices=("mean", "cls", "all"), default="mean", help="what represents an image in CKA (mean)")
    further("--seed", type=int, default=0, help="of the first random weights (0)")
    further("--init", choices=get_args(Init), help="rule of random weights; see below")
    further("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto takes a GPU if there is one")
    plan_options.add_trust(page, "the recipe of --data")
    return page


def cache() -> Page:
    """The options of ``tinymim cache``."""
    page = Page(prog="tinymim cache", description="What teachers gave for views of images, kept on disk for all runs.")
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument("--dir", help="of the cache; $TINYMIM_TEACHER_CACHE by default, else runs/teacher_cache")
    actions = page.add_subparsers(dest="action")
    parents: Any = [where]
    actions.add_parser("list", parents=parents, help="what is in it (the default)")
    clearing = actions.add_parser("clear", parents=parents, help="remove what no run has open")
    clearing.add_argument("names", nargs="*", metavar="NAME", help="as `list` shows them; all by default")
    return page


def bench() -> Page:
    """The options of ``tinymim bench``."""
    page = Page(
        prog="tinymim bench",
        description="Parameters, MACs, size, latency and speed on this machine, and what the features are worth: what "
        "distilling bought.",
        examples=("tinymim bench runs/relation_digits/checkpoints/last.ckpt digits_mae --data digits",),
    )
    what = "a checkpoint, a card's name, timm:NAME, or an exported folder; the first is compared with"
    page.add_argument("networks", nargs="+", metavar="NETWORK", help=what)
    page.add_argument("--data", help="a folder of images, digits, shapes, or a recipe: 10-NN and top-1 on it")
    page.add_argument("--threads", type=positive, help="threads of each (PyTorch's choice)")
    page.add_argument("--seconds", type=float, default=2.0, help="that each runs, images alone and in batches (2)")
    page.add_argument("--out", type=Path, help="JSON file of the figures; of a run's checkpoint, RUN/bench.json")
    plan_options.add_trust(page, "the recipe of --data")
    return page


def _workers(text: str) -> int | str:
    if text != "auto" and not re.fullmatch(r"\s*-?\d+\s*", text):  # the range is told with its end
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 0 or more, or auto")
    return text if text == "auto" else int(text)


def _folder(text: str) -> Path:
    """A folder, for argparse: an empty variable is not the working folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError("no folder is named, or a variable that holds its name is empty")
    return Path(text)
