"""Weights in files: read them safely, know what they are, load them whole or not at all.

A file of ours (a Lightning checkpoint or an exported safetensors) carries a *record* beside the weights: architecture
with head layout, input normalisation, output block, teacher. Other files are known by their keys alone, and need a
teacher card.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from tinymim.errors import TinymimError, first_few
from tinymim.files import noted, sha256, write_atomically
from tinymim.log import say
from tinymim.safety import text
from tinymim.teachers import formats, record_schemas, safe_pickle, sizes, weights_file, weights_summary
from tinymim.teachers.formats import State
from tinymim.teachers.learned import check_values
from tinymim.teachers.provenance import OURS, Provenance, licence_of
from tinymim.vit import conventions
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone, skeleton
from tinymim.vit.classifier_head import Head, HeadForm
from tinymim.vit.positions import square
from tinymim.vit.taps import QKV

RECORD = "tinymim"  # key of the record in a Lightning checkpoint and in a safetensors header
FOREIGN = ("decoder", "mask_token", "head.", "head_dist.", "fc_norm.", "lm_head.", "norm.")
"""Keys that belong to no encoder this project reads: decoders, mask tokens, classifiers, the final norm."""


@dataclass
class File:
    """A weights file as read: the backbone's ``state`` under timm's names, and the record if it is one of ours.

    A fine-tuned checkpoint has its classifier's weights too, in ``classifier`` under the names of :class:`Head`.
    A file of others has the name of its published ``form`` (see ``tinymim/teachers/formats.py``).
    """

    path: Path
    state: State
    record: dict[str, Any] | None = None
    classifier: State = field(default_factory=dict)
    form: str = OURS

    def __post_init__(self) -> None:
        self._stamp = self._now()

    def _now(self) -> tuple[int, ...]:
        if not self.path.is_file():
            return ()
        stat = self.path.stat()
        return stat.st_ino, stat.st_size, stat.st_mtime_ns

    def changed(self) -> bool:
        """Whether the file was written since it was read."""
        return self._now() != self._stamp


def read(path: Path) -> File:
    """Read a weights file, safetensors or a pickle of PyTorch's, without running any code in it.

    Raises:
        TinymimError: missing, truncated, carrying code, or holding no weights.
    """
    weights_file.check_file(path)
    if not _is_safetensors(path):  # whatever its ending
        return _unwrap(path, safe_pickle.load(path, mapped=True))
    try:
        with safe_open(path, framework="pt") as stored:
            header = (stored.metadata() or {}).get(RECORD)
            keys = list(stored.keys())
            weights_summary.check_names(path, keys)
            state = {key: stored.get_tensor(key) for key in keys}
    except (SafetensorError, *safe_pickle.DAMAGED) as error:
        raise safe_pickle.damaged(path, error) from None
    if not header:
        return _foreign(path, state)
    what = f"the record of {path}"
    record = record_schemas.record(text.json_data(header, what), what)
    sizes.compare(path, state, record)
    return File(path, state, record)


def _is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do, with a length and a mapping in JSON; or ends so, and begins as no pickle
    does."""
    with path.open("rb") as stream:
        start = stream.read(9)
    begins_so = start[4:] == b"\0\0\0\0{"
    return begins_so or (path.suffix == ".safetensors" and start[:2] != b"PK" and start[:1] != b"\x80")


def _unwrap(path: Path, content: Any) -> File:
    if not isinstance(content, dict):
        raise TinymimError(f"{path} holds a {type(content).__name__}, not a state dict")
    record, state = text.plain(content.get(RECORD), f"the record of {path}"), formats.unwrapped(content)
    weights_summary.check_names(path, state)
    if not record and state:
        if averages := [key for key in formats.AVERAGES if isinstance(content.get(key), dict)]:
            say(f"{path} holds an average of its weights too ({averages[0]}), which is not read; saved alone, it is")
        return _foreign(path, state)
    classifier: State = {}
    if record:
        what = f"the record of {path}"
        record = record_schemas.record(record, what)
        # A module's other weights, a decoder's for instance, stay out; its classifier lies around the backbone.
        prefix = record["prefix"]
        if record.get("classifier"):
            around = prefix.removesuffix("backbone.vit.")
            classifier = {
                key.removeprefix(around): value
                for key, value in state.items()
                if key.startswith(around) and not key.startswith(prefix)
            }
        state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if not state:
        raise TinymimError(f"{path} holds no weights (keys: {first_few([str(key) for key in content])})")
    if record:
        sizes.compare(path, state, record)
    return File(path, state, record, classifier)


def _foreign(path: Path, state: State) -> File:
    form, state = formats.recognised(path, state)
    return File(path, state, form=form)


def fill(backbone: Backbone, file: File, classifier: bool = False) -> tuple[int, list[str]]:
    """Load ``file`` into ``backbone``, in place: every encoder weight must be there, and with ``classifier`` every one
    of the backbone's classifier.

    Returns:
        How many keys matched, and the keys the file has beyond them: none of an encoder.

    Raises:
        TinymimError: an encoder's weights missing, left over or of another shape, or a head layout that differs from
            the file's record.
    """
    if file.record:
        stored = file.record["backbone"]["architecture"].get("heads")
        if stored and stored != backbone.heads:
            raise TinymimError(
                f"head layout: {file.path} was trained with heads {stored}, and {backbone.architecture.arch} is built "
                f"with {backbone.heads}; the same weights in other heads are another network. Set heads: {stored}"
            )
    whole = backbone.vit.state_dict()
    sizes.check_bytes(file.path, [*file.state.values(), *file.classifier.values()], backbone)
    state = backbone.fit(formats.fitted(file.state, whole), _trained_on(file, backbone))
    needed = {key: value for key, value in whole.items() if not key.startswith(FOREIGN)}
    _check_fit(file, backbone, "encoder", needed, state)
    head: State = {}
    if classifier and backbone.classifier:
        head = backbone.classifier.state_dict()
        _check_fit(file, backbone, "classifier", head, file.classifier)
    elif classifier:
        needed = whole
        _check_fit(file, backbone, "classifier", needed, state)
    if next(backbone.parameters()).is_meta:  # sizes alone were asked for
        return 0, []
    grid, other = backbone.grid, square(backbone.patches)
    if not (file.record or backbone.resampled_from) and other not in (None, grid) and "pos_embed" in state:
        say(f"{file.path}: its positions are taken as {grid[0]}x{grid[1]} patches, as img_size says, not as a square")
    if backbone.classifier and head:
        backbone.classifier.load_state_dict({key: file.classifier[key] for key in head})
    backbone.vit.load_state_dict({key: state[key] for key in needed}, strict=False)
    check_values(file.path, [(backbone.vit, needed), *([(backbone.classifier, head)] if head else [])])
    return len(needed) + len(head), sorted(state.keys() - needed.keys())


def _trained_on(file: File, backbone: Backbone) -> tuple[int, int] | None:
    """The grid that a file's positions were trained on, as its record says; ``None`` without one."""
    if not file.record:
        return None
    stored = Architecture(**file.record["backbone"]["architecture"])
    same = stored.options.get("img_size") == backbone.architecture.options.get("img_size")
    return backbone.grid if same else skeleton(stored).grid


def built(architecture: Architecture, file: File, classifier: bool = False) -> tuple[Backbone, int, list[str]]:
    """The network of a card's architecture with the weights of ``file``, and what :func:`fill` returns; it is built
    once its sizes are known to be theirs."""
    fill(skeleton(architecture), file, classifier)
    backbone = Backbone(architecture, initialise=False)
    return backbone, *fill(backbone, file, classifier)


def _check_fit(file: File, backbone: Backbone, part: str, needed: State, stored: State) -> None:
    """Raise unless ``stored`` has every weight that is ``needed``, in its shape, and nothing more of an encoder."""
    # A decoder or another classifier may be left out; an encoder's weight may not, or another network was trained.
    left = stored.keys() - needed.keys()
    over = {key for key in left if key.startswith(weights_summary.ENCODER)}
    problems = {
        f"{part} weights missing": weights_summary.by_meaning(needed.keys() - stored.keys()),
        "left over": weights_summary.by_meaning(over),
        "no floating-point numbers": first_few(
            [
                f"{key} {stored[key].dtype}"
                for key, value in needed.items()
                if key in stored and value.is_floating_point() and not stored[key].is_floating_point()
            ]
        ),
        "of another shape": first_few(
            [
                f"{key} {tuple(stored[key].shape)}, not {tuple(value.shape)}"
                for key, value in needed.items()
                if key in stored and stored[key].shape != value.shape
            ]
        ),
    }
    if any(problems.values()):
        listed = {**problems, "left out": weights_summary.by_meaning(left - over)}
        misfits = "; ".join(f"{what}: {keys}" for what, keys in listed.items() if keys)
        raise TinymimError(
            f"{file.path} holds {weights_summary.describe(file.form, file.state)}, which do not fit "
            f"{backbone.describe()}. {misfits}{weights_summary.advice(stored, needed)}"
        )


def from_record(record: dict[str, Any], classifier: bool = False) -> Backbone:
    """The network a record describes, without its weights; with ``classifier``, the one it was fine-tuned with too."""
    stored = record["backbone"]
    beyond = stored.get("beyond", QKV)  # records of before it was noted: relations of all three were the only ones
    backbone = Backbone(Architecture(**stored["architecture"]), stored["output_block"], beyond, initialise=False)
    if classifier and (form := record.get("classifier")):
        backbone.classifier = Head(backbone.width, backbone.prefix, HeadForm(**form))
        conventions.of(record).lay_on(backbone.classifier)
    return backbone


def load(path: Path, classifier: bool = False, file: File | None = None) -> tuple[Backbone, Provenance, dict[str, Any]]:
    """The backbone in a file of ours, a Lightning checkpoint or an export (read already where ``file`` is), where it
    came from, and the file's record; with ``classifier`` with the one it was fine-tuned with.

    Raises:
        TinymimError: not a file of ours, and the message says how to describe it with a card; or one that was never
            fine-tuned, and its classifier is asked for.
    """
    with torch.device("cpu"):  # also where a network is built for its sizes alone
        file = file or read(path)
    if not file.record:
        raise TinymimError(
            f"{path} is no checkpoint of tinymim: it holds {weights_summary.describe(file.form, file.state)}; "
            "describe it with a teacher card, as in teachers/, and name the card instead"
        )
    with torch.device("meta"):
        fill(from_record(file.record, classifier), file, classifier)
    backbone = from_record(file.record, classifier)
    matched, unexpected = fill(backbone, file, classifier)
    licence, digest = licence_of(file.record), sha256(path)
    verified = noted(path, digest)
    return backbone, Provenance(path.name, str(path), digest, verified, matched, [], unexpected, licence), file.record


def export(backbone: Backbone, path: Path, extra: dict[str, Any], dtype: torch.dtype = torch.float32) -> None:
    """Write a backbone, but for the parts in :data:`FOREIGN`, under timm's names as safetensors, whole or not at all;
    its record and ``extra`` fields of it (``teacher``, ``licence``) stand in the header."""
    state = {
        key: value.to(dtype).contiguous()
        for key, value in backbone.vit.state_dict().items()
        if not key.startswith(FOREIGN)
    }
    record = {"backbone": backbone.record(), "prefix": "", **extra}
    write_atomically(path, lambda temporary: save_file(state, temporary, metadata={RECORD: json.dumps(record)}))
