"""Exports in any form: written, read again and compared, and with their card; whole or not at all.

Each form is a function ``write(source, folder)`` that fills an empty folder with what :class:`Source` holds and returns
an :class:`ExportedForm`. It raises :class:`TinymimError` where the form cannot express the network, or where what it
wrote gives other outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tinymim import extras, files
from tinymim.errors import TinymimError, first_few
from tinymim.export import graphs, hf_folder, source, timm_folder
from tinymim.export.comparison import GRAPHS, Compared
from tinymim.export.int8 import Int8
from tinymim.export.model_card import TAG, model_card
from tinymim.log import say
from tinymim.teachers import card as cards
from tinymim.teachers import weights

FORMS = {
    "timm": timm_folder.write,
    "hf": hf_folder.write,
    **{name: graph.write for name, graph in GRAPHS.items()},  # which end at the output block
}

ONNX = ("onnx", "onnxscript", "onnxruntime")
PACKAGES = {"hf": ("transformers",), "onnx": ONNX, "openvino": (*ONNX, "openvino")}
"""What a form is written and tried with, of :data:`tinymim.extras.EXTRAS`."""

WRITTEN = {source.WEIGHTS, *graphs.FILES, "README.md", "config.json", "preprocessor_config.json"}
"""Names of all that an export of any form writes; nothing else in a folder is ever taken away."""


def export_file(checkpoint: str, file: Path, overwrite: bool = False) -> None:
    """Write the backbone of ``checkpoint``, a path or a card's name, to one ``.safetensors`` file in the project's own
    form; its classifier stays behind. The error says what cannot be read or written."""
    if file.suffix != ".safetensors":
        raise TinymimError(f"file: {file} does not end in .safetensors")
    if file.is_dir():
        raise TinymimError(f"file: {file} is a folder; give a file, or a form of folders by --to")
    if file.exists() and not overwrite:
        raise TinymimError(f"file: {file} is there already; give another, or --overwrite")
    files.check_writable("file", file)
    loaded = source.load(checkpoint, classifier=False)
    with files.writing("file", file):
        weights.export(loaded.backbone, file, loaded.kept())
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
    judged: Callable[[source.Source], Compared | Int8] | None = None,
    bench: Path | None = None,
) -> Path:
    """Write ``checkpoint``, a path or a card's name, as a folder in one of :data:`FORMS` with its card, and give it
    back: ``exports/NAME-FORM`` by default. ``blocks`` and ``classifier`` are those of :func:`tinymim.export.source.cut`
    and ``load``, ``judged`` writes it where it is compared on images, and ``bench`` is that of
    :func:`tinymim.export.model_card.model_card`.

    Raises:
        TinymimError: nothing to read, nothing that the form can express, other outputs, nowhere to write, or a package
            that is not installed.
    """
    extras.need(f"--to {form} needs", *PACKAGES.get(form, ()))
    if form in GRAPHS and blocks == "all":
        raise TinymimError(
            f"blocks: all has no effect on --to {form}, whose graph ends at the output block; leave it out"
        )
    if folder:
        _check_free(folder, overwrite)  # before the minutes that loading may take
    loaded = source.load(checkpoint, classifier)
    writer = judged(loaded) if judged else None
    if not folder:
        folder = Path("exports") / f"{loaded.name}-{form}{'-int8' if isinstance(writer, Int8) else ''}"
        _check_free(folder, overwrite)
    source.cut(loaded, blocks)
    write = writer.write if writer else FORMS[form]
    say(f"writing {loaded.name} for {form}, and comparing what it gives with the network")
    differences = ""

    def fill(temporary: Path) -> None:
        nonlocal differences
        written = write(loaded, temporary)
        (temporary / "README.md").write_text(model_card(loaded, written, bench))
        differences = written.shown_differences()

    with files.writing("out", folder):
        files.write_folder(folder, fill)
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(
        f"wrote {folder} ({size / 1e6:.1f} MB), blocks 1 to {loaded.backbone.depth}; "
        f"largest differences from the network: {differences}"
    )
    licence = loaded.provenance.licence
    print(f"{'WARNING: ' if cards.restriction(licence) else ''}licence {cards.terms(licence)}")
    return folder


def _check_free(folder: Path, overwrite: bool) -> None:
    if folder.is_symlink():
        raise TinymimError(f"out: {folder} is a link to {folder.resolve()}; name that itself")
    if folder.exists() and not folder.is_dir():
        raise TinymimError(f"out: {folder} is a file; give a folder")
    files.check_writable("out", folder)
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    readme = folder / "README.md"
    if not readme.is_file() or f"\n- {TAG}\n" not in readme.read_text(errors="replace"):
        raise TinymimError(f"out: {folder} holds other files than an export; give a new folder")
    if not overwrite:
        raise TinymimError(f"out: {folder} is there already; give another, or --overwrite")
    if others := sorted(place.name for place in folder.iterdir() if place.name not in WRITTEN or place.is_dir()):
        raise TinymimError(
            f"out: {folder} holds more than an export, and --overwrite would take it away: {first_few(others)}; "
            "move that elsewhere, or give a new folder"
        )
