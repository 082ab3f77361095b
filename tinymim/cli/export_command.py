"""``tinymim export``: a checkpoint as one safetensors file with its record, or as a folder with a model card that timm,
Hugging Face, ONNX or PyTorch opens."""

from __future__ import annotations

import argparse
from pathlib import Path

from tinymim.errors import TinymimError

FORMS = ("timm", "hf", "onnx", "torch-export")


def main(arguments: list[str]) -> int:
    """Run ``tinymim export CHECKPOINT FILE`` or ``tinymim export CHECKPOINT --to FORM``."""
    parser = argparse.ArgumentParser(prog="tinymim export", description=__doc__)
    parser.add_argument("checkpoint", help="a checkpoint of this project, or a teacher card's name")
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
    parser.add_argument("--push", metavar="REPO", help="upload the folder to the Hugging Face hub as well")
    parser.add_argument("--private", action="store_true", help="let --push make a private repository")
    options = parser.parse_args(arguments)
    from tinymim.export.export_forms import export_file, export_folder
    from tinymim.export.push import Hub

    if not options.to:
        if options.file is None:
            raise TinymimError("give a FILE.safetensors, or --to " + ", ".join(FORMS))
        of_folders = ("out", "blocks", "classifier", "push")
        if misused := [f"--{name}" for name in of_folders if getattr(options, name) is not None]:
            raise TinymimError(f"{', '.join(misused)}: only with --to {', '.join(FORMS)}")
        export_file(options.checkpoint, options.file, options.overwrite)
        return 0
    if options.file is not None:
        raise TinymimError(f"file: {options.file}: with --to a folder is written; name it with --out")
    if options.private and not options.push:
        raise TinymimError("--private: only with --push")
    hub = Hub(options.push, options.private) if options.push else None
    folder = export_folder(
        options.checkpoint, options.to, options.out, options.overwrite, options.blocks or "trained", options.classifier
    )
    if hub:
        print(f"pushed to {hub.push(folder)}")
    return 0
