"""Exports in any form: written, read again and compared, and with their card; whole or not at all.

Each form is a function ``write(source, folder)`` that fills an empty folder with what :class:`Source` holds and returns
an :class:`ExportedForm`. It raises :class:`TinymimError` where the form cannot express the network, where what it wrote
gives other outputs, or where its packages are not installed.
"""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError

from tinymim import files
from tinymim.errors import TinymimError
from tinymim.export import hf_folder, onnx, source, timm_folder, torch_export
from tinymim.export.model_card import TAG, model_card
from tinymim.teachers import card as cards
from tinymim.teachers import weights

FORMS = {"timm": timm_folder.write, "hf": hf_folder.write, "onnx": onnx.write, "torch-export": torch_export.write}


def export_file(checkpoint: str, file: Path, overwrite: bool = False) -> None:
    """Write the backbone of ``checkpoint`` to one file in the project's own form; its classifier stays behind.

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
    """Write ``checkpoint`` as a folder in another form, with its card.

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
        _check_free(folder, overwrite)  # before the minutes that loading may take
    loaded = source.load(checkpoint, classifier)
    if not folder:
        folder = Path("exports") / f"{loaded.name}-{form}"
        _check_free(folder, overwrite)
    source.cut(loaded, blocks)
    differences = ""

    def fill(temporary: Path) -> None:
        nonlocal differences
        written = FORMS[form](loaded, temporary)
        (temporary / "README.md").write_text(model_card(loaded, written))
        differences = written.shown_differences()

    try:
        files.write_folder(folder, fill)
    except (OSError, SafetensorError, RuntimeError) as error:
        if reason := files.unwritten(error):
            raise TinymimError(f"out: {folder} cannot be written ({reason}); nothing is left of it") from None
        raise
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(
        f"wrote {folder} ({size / 1e6:.1f} MB), blocks 1 to {loaded.backbone.depth}; "
        f"largest differences from the network: {differences}"
    )
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
