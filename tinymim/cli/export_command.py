"""``tinymim export``: a checkpoint as one safetensors file with its record, or as a folder with a model card that timm,
Hugging Face, ONNX or PyTorch opens."""

from __future__ import annotations

import argparse
from pathlib import Path

from safetensors import SafetensorError

from tinymim import files
from tinymim.errors import TinymimError
from tinymim.export import hf_folder, onnx, source, timm_folder, torch_export
from tinymim.export.card import TAG, card, shown
from tinymim.export.push import Hub
from tinymim.teachers import card as cards
from tinymim.teachers import weights

FORMS = {"timm": timm_folder.write, "hf": hf_folder.write, "onnx": onnx.write, "torch-export": torch_export.write}


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
        "--blocks",
        help="trained (the default): up to the block whose output the features are; all; or a number",
    )
    parser.add_argument(
        "--classifier",
        action=argparse.BooleanOptionalAction,
        help="with the classifier it was fine-tuned with; by default if it has one",
    )
    parser.add_argument("--push", metavar="REPO", help="upload the folder to the Hugging Face hub as well")
    parser.add_argument("--private", action="store_true", help="let --push make a private repository")
    options = parser.parse_args(arguments)
    if not options.to:
        if options.file is None:
            raise TinymimError("give a FILE.safetensors, or --to " + ", ".join(FORMS))
        folder_options = ("out", "blocks", "classifier", "push")
        if misused := [f"--{name}" for name in folder_options if getattr(options, name) is not None]:
            raise TinymimError(f"{', '.join(misused)}: only with --to {', '.join(FORMS)}")
        export(options.checkpoint, options.file, options.overwrite)
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


def export(checkpoint: str, file: Path, overwrite: bool = False) -> None:
    """Write the backbone of ``checkpoint`` to ``file``, whole or not at all; its classifier stays behind.

    Args:
        checkpoint: its path, or a card's name.
        file: ends in ``.safetensors``.
        overwrite: replace it if it is there.

    Raises:
        TinymimError: nothing to read, or nowhere to write.
    """
    if file.suffix != ".safetensors":
        raise TinymimError(f"file: {file} does not end in .safetensors")
    if file.exists() and not overwrite:
        raise TinymimError(f"file: {file} is there already; give another, or --overwrite")
    loaded = source.load(checkpoint, classifier=False)
    try:
        weights.export(loaded.backbone, file, loaded.kept())
    except (OSError, SafetensorError) as error:
        raise TinymimError(
            f"file: {file} cannot be written ({files.unwritten(error)}); nothing is left of it"
        ) from None
    print(
        f"wrote {file} ({file.stat().st_size / 1e6:.1f} MB), sha256 {files.sha256(file)}, "
        f"licence {loaded.provenance.licence}"
    )


def export_folder(
    checkpoint: str,
    form: str,
    folder: Path | None = None,
    overwrite: bool = False,
    blocks: str = "trained",
    classifier: bool | None = None,
) -> Path:
    """Write ``checkpoint`` as a folder in another form, checked and with its card, whole or not at all.

    Args:
        checkpoint: its path, or a card's name.
        form: one of :data:`FORMS`.
        folder: where to; ``exports/NAME-FORM`` by default.
        overwrite: replace an export that is there.
        blocks: how many to keep, see :func:`tinymim.export.source.cut`.
        classifier: see :func:`tinymim.export.source.load`.

    Returns:
        The folder.

    Raises:
        TinymimError: nothing to read, nothing that the form can express, other outputs, or nowhere to write.
    """
    if form in ("onnx", "torch-export") and blocks == "all":
        raise TinymimError(
            f"blocks: all has no effect on --to {form}, whose graph ends at the output block; leave it out"
        )
    if folder:
        _check_free(folder, overwrite)
    loaded = source.load(checkpoint, classifier)
    if not folder:
        folder = Path("exports") / f"{loaded.name}-{form}"
        _check_free(folder, overwrite)
    source.cut(loaded, blocks)
    lines: list[str] = []

    def fill(temporary: Path) -> None:
        contents = FORMS[form](loaded, temporary)
        (temporary / "README.md").write_text(card(loaded, contents))
        lines.append(f"largest differences from the network: {shown(contents)}")

    try:
        files.write_folder(folder, fill)
    except (OSError, SafetensorError, RuntimeError) as error:
        if reason := files.unwritten(error):
            raise TinymimError(f"out: {folder} cannot be written ({reason}); nothing is left of it") from None
        raise
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"wrote {folder} ({size / 1e6:.1f} MB), blocks 1 to {loaded.backbone.depth}; {lines[0]}")
    licence = loaded.provenance.licence
    print(f"{'WARNING: ' if cards.restriction(licence) else ''}licence {cards.terms(licence)}")
    return folder


def _check_free(folder: Path, overwrite: bool) -> None:
    """Raise unless ``folder`` may be written: it is not there, or empty, or an export to replace."""
    if folder.is_file():
        raise TinymimError(f"out: {folder} is a file; give a folder")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    readme = folder / "README.md"
    if not readme.is_file() or f"\n- {TAG}\n" not in readme.read_text(errors="replace"):
        raise TinymimError(f"out: {folder} holds other files than an export; give a new folder")
    if not overwrite:
        raise TinymimError(f"out: {folder} is there already; give another, or --overwrite")
