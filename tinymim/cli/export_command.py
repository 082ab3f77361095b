"""``tinymim export``: a checkpoint as one safetensors file with its record, or as a folder with a model card that timm,
Hugging Face, ONNX, OpenVINO or PyTorch opens."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tinymim.cli.help_page import Page
from tinymim.errors import TinymimError, field_called
from tinymim.teachers import weights_file
from tinymim.training import data_source

ABOUT = (
    "A checkpoint as one safetensors file with its record, or as a folder with a model card that timm, Hugging Face, "
    "ONNX, OpenVINO or PyTorch opens."
)

GRAPHS = ("onnx", "openvino", "torch-export")
FORMS = ("timm", "hf", *GRAPHS)


def main(arguments: list[str]) -> int:
    """Run ``tinymim export CHECKPOINT FILE`` or ``tinymim export CHECKPOINT --to FORM``."""
    parser = Page(prog="tinymim export", description=ABOUT)
    parser.add_argument("checkpoint", help="a checkpoint, or a teacher card's name")
    parser.add_argument("file", type=Path, nargs="?", help="one file, with the ending .safetensors: our own form")
    parser.add_argument("--to", choices=FORMS, help="a folder in another form")
    parser.add_argument("--out", type=Path, help="that folder; exports/NAME-FORM by default")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the file or the exported folder that is there"
    )
    parser.add_argument(
        "--blocks", help="trained (the default): up to the block whose output the features are; all; or a number"
    )
    parser.add_argument(
        "--classifier",
        action=argparse.BooleanOptionalAction,
        help="with the classifier it was fine-tuned with; by default if it has one",
    )
    parser.further().add_argument("--bench", type=Path, help="figures for the card; RUN/bench.json by default")
    parser.add_argument("--push", metavar="REPO", help="upload the folder to the Hugging Face hub as well")
    parser.add_argument("--private", action="store_true", help="let --push make a private repository")
    group = parser.further("graphs", "compared with the network on held-out images; int8 is calibrated on others")
    group.add_argument("--images", metavar="DATA", help="a folder of images, digits, shapes, or a recipe")
    group.add_argument("--quantize", choices=("int8",), help="of --to onnx: matrix products of weights in int8")
    group.add_argument("--calibration", type=int, metavar="N", help="images to calibrate int8 on (128)")
    group.add_argument(
        "--force",
        action="store_true",
        help="write it though it loses more than 1 point or 0.01 of cosine, or int8 is judged on few images",
    )
    group.add_argument("--trust", action="store_true", help="build classes that are none of tinymim's own, of a recipe")
    options = parser.parse_args(arguments)
    with field_called("checkpoint"):
        return _export(options)


def _export(options: argparse.Namespace) -> int:
    _check(options)
    from tinymim.export.export_forms import export_file, export_folder
    from tinymim.export.push import Hub
    from tinymim.export.source import Source

    if not options.to:
        export_file(options.checkpoint, options.file, options.overwrite)
        return 0

    def judged(source: Source) -> Any:
        from tinymim.export.comparison import GRAPHS, Compared
        from tinymim.export.int8 import Int8
        from tinymim.export.judge import find

        images = find(options.images, source.backbone.image_size[0], options.trust, source.run)
        if options.quantize:
            return Int8(images, options.calibration or Int8.images, options.force)
        return Compared(GRAPHS[options.to], images, options.force)

    hub = Hub(options.push, options.private) if options.push else None
    with field_called("--images", "data.root"), field_called("--images", "data"):
        folder = export_folder(
            options.checkpoint,
            options.to,
            options.out,
            options.overwrite,
            options.blocks or "trained",
            options.classifier,
            judged if options.images else None,
            options.bench,
        )
    if hub:
        print(f"pushed to {hub.push(folder)}")
    return 0


def _check(options: argparse.Namespace) -> None:
    """Raise unless the options go together and what they name is there, before anything heavy is imported."""
    _check_images(options)
    if not options.to:
        if options.file is None:
            raise TinymimError("give a FILE.safetensors, or --to " + ", ".join(FORMS))
        of_folders = ("out", "blocks", "classifier", "push", "bench")
        if misused := [f"--{name}" for name in of_folders if getattr(options, name) is not None]:
            raise TinymimError(f"{', '.join(misused)}: only with --to {', '.join(FORMS)}")
    elif options.file is not None:
        raise TinymimError(f"file: {options.file}: with --to a folder is written; name it with --out")
    if options.private and not options.push:
        raise TinymimError("--private: only with --push")
    weights_file.check_named(options.checkpoint)
    if options.images:
        data_source.check(options.images, "--images")
    if options.bench and not options.bench.is_file():
        raise TinymimError(f"bench: there is no {options.bench}; `tinymim bench` writes one")


def _check_images(options: argparse.Namespace) -> None:
    """Raise unless the options on images and int8 go together."""
    if options.quantize and options.to != "onnx":
        raise TinymimError(
            f"--quantize: int8 is of --to onnx, and this is {f'--to {options.to}' if options.to else 'a file'}"
        )
    if options.quantize and not options.images:
        raise TinymimError(
            "--quantize: int8 is calibrated on images; give --images FOLDER, digits, shapes, or a recipe"
        )
    if options.calibration is not None and not options.quantize:
        raise TinymimError("--calibration: only with --quantize int8")
    if options.calibration is not None and options.calibration < 1:
        raise TinymimError(f"--calibration: {options.calibration} is no number of images, 1 or more")
    if options.images and options.to not in GRAPHS:
        raise TinymimError(f"--images: only with --to {', '.join(GRAPHS)}, which are compared on them")
    if options.force and not options.images:
        raise TinymimError("--force: only with --images, on which a graph may lose too much")
