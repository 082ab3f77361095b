"""Schemas of cards, records and configurations: types and ranges, checked before anything else looks at a file.

Fields that decide something are listed here and typed. A record's network, a card and a head take no other ones; a
``config.json`` of others, and what modules of one's own note in a record, may hold more, which nobody looks at.
"""

from __future__ import annotations

import dataclasses
import typing
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from tinymim.errors import TinymimError
from tinymim.safety.names import PLAIN
from tinymim.safety.text import mapping
from tinymim.safety.wording import message
from tinymim.vit import network_options
from tinymim.vit.conventions import Conventions
from tinymim.vit.description import DEVIATION, Architecture, HeadForm, Init

Line = Annotated[str, Meta(max_length=4000)]  # a text that is shown to people

Name = Annotated[str, Meta(pattern=rf"^{PLAIN}\Z(?#a plain name of one file or folder)")]
"""Name of a file or folder that it may become."""

Timm = Annotated[
    str, Meta(pattern=r"^[a-z0-9_]{1,80}(\.[a-z0-9_]{1,80})?\Z(?#a name of timm's, such as vit_base_patch16_224)")
]
"""timm's name of a network, perhaps with a tag."""

Heads = Annotated[int, Meta(ge=1, le=1 << 14)]
Block = Annotated[int, Meta(ge=1, le=256)]
Channel = Annotated[float, Meta(ge=-DEVIATION[1], le=DEVIATION[1])]
Colour = tuple[Channel, Channel, Channel]
Deviation = Annotated[float, Meta(ge=DEVIATION[0], le=DEVIATION[1])]
Spread = tuple[Deviation, Deviation, Deviation]
"""A standard deviation of images, by which they are divided: neither 0, nor 0 in float32. NaN is in no range."""
Plain = dict[str, Any]
Whole = Annotated[int, Meta(ge=0)]
Kind = TypeVar("Kind")


def _struct(name: str, of: Any, **narrower: Any) -> Any:
    """A struct with the fields of a dataclass, some of them typed more narrowly, and no other ones."""
    hints = typing.get_type_hints(of) | narrower
    listed: list[Any] = []
    for field in dataclasses.fields(of):
        if field.default is not dataclasses.MISSING:
            listed.append((field.name, hints[field.name], field.default))
        elif field.default_factory is not dataclasses.MISSING:
            listed.append((field.name, hints[field.name], msgspec.field(default_factory=field.default_factory)))
        else:
            listed.append((field.name, hints[field.name]))
    return msgspec.defstruct(name, listed, forbid_unknown_fields=True, kw_only=True)


Network = _struct(
    "Network",
    Architecture,
    arch=Timm,
    options=Plain,
    heads=Heads | Annotated[list[Heads], Meta(min_length=1, max_length=256)] | None,
    mean=Colour,
    std=Spread,
)
"""An :class:`Architecture`; its options are :mod:`tinymim.vit.network_options`'s."""

Head = _struct(
    "Head", HeadForm, classes=Annotated[int, Meta(ge=1, le=1 << 20)], neck=Annotated[int, Meta(ge=0, le=1 << 14)]
)
"""A :class:`HeadForm`."""

Followed = _struct("Followed", Conventions, norm_eps=Annotated[float, Meta(gt=0, le=0.1)])
"""Conventions under which a checkpoint was made, as :class:`Conventions` takes them."""


class Identity(Struct):
    """Weights by name and sha256, and those they were distilled from."""

    name: Line
    sha256: Line = ""
    teacher: Identity | None = None
    init: Init | UnsetType = UNSET


class Stored(Struct, forbid_unknown_fields=True):
    """The network of a record."""

    architecture: Network  # type: ignore[valid-type]
    output_block: Block
    beyond: list[Literal["q", "k", "v"]] = []


class DeiTRecord(Struct):
    """DeiT's teacher."""

    teacher: Identity | None = None
    kind: Line | None = None


class Record(Struct):
    """The record beside the weights in a file of ours."""

    backbone: Stored
    prefix: Line
    licence: Line = "unknown"
    teacher: Identity | None = None
    start: Identity | None = None
    deit: DeiTRecord | None = None
    ema: float | None = None
    classifier: Head | None = None  # type: ignore[valid-type]
    classes: list[Line] = []
    init: Init | UnsetType = UNSET
    conventions: Followed | UnsetType = UNSET  # type: ignore[valid-type]


class CardFields(Struct, forbid_unknown_fields=True):
    """A teacher card."""

    name: Name
    architecture: Network  # type: ignore[valid-type]
    file: Annotated[str, Meta(min_length=1, max_length=4000)]
    licence: Line
    citation: Line
    source: Line
    hub: Annotated[
        str, Meta(pattern=r"^[A-Za-z0-9_./-]{0,300}\Z(?#a file of the hub, such as owner/repository/file)")
    ] = ""
    url: Annotated[
        str, Meta(pattern=r"^(https?://[!-~]+)?\Z(?#an address, such as https://host/file)", max_length=2000)
    ] = ""
    page: Line = ""
    sha256: Annotated[str, Meta(max_length=64)] | None = None
    target_block: Block | None = None
    labels_seen: bool = False
    note: Line = ""
    rebuild: Line = ""


class Published(Struct):
    """timm's ``pretrained_cfg``."""

    mean: Colour | None = None
    std: Spread | None = None
    license: Line | None = None


class TimmConfig(Struct):
    """timm's ``config.json``."""

    architecture: Timm
    model_args: Plain | None = None
    pretrained_cfg: Published | None = None


class TransformersConfig(Struct):
    """transformers' ``config.json``."""

    hidden_act: Line = "gelu"
    layer_norm_eps: float = 0.0
    num_attention_heads: Heads | None = None
    model_type: Line | None = None
    rope_theta: float | None = None
    use_gated_mlp: bool | None = None


class ImageConfig(Struct):
    """transformers' ``preprocessor_config.json``."""

    do_rescale: bool | None = True
    rescale_factor: Annotated[float, Meta(ge=1e-6, le=1e6)] | None = None
    do_normalize: bool | None = True
    image_mean: Colour | None = None
    image_std: Spread | None = None


def fit(value: Any, schema: type[Kind], what: str) -> Kind:
    """Plain data as a struct of ``schema``, one of those here; ``what`` (``teacher card x.yaml``) begins the error.

    Raises:
        TinymimError: a field is missing or unknown, or of another type or range; one line.
    """
    try:
        return msgspec.convert(mapping(value, what), schema, strict=True)
    except msgspec.ValidationError as error:
        raise TinymimError(f"{what}: {message(error, value, schema)}") from None


def record(value: Any, what: str) -> dict[str, Any]:
    """The record of a file, once it is known to be one.

    Raises:
        TinymimError: it is none; or its network has options that make none, or an output block it has not.
    """
    known = fit(value, Record, what)
    stored: dict[str, Any] = value["backbone"]["architecture"]
    network_options.check(stored.get("options", {}), f"{what}: backbone.architecture.options")
    if (depth := stored.get("options", {}).get("depth")) and known.backbone.output_block > depth:
        raise TinymimError(f"{what}: backbone.output_block: {known.backbone.output_block} of {depth} blocks")
    return value


def architecture(value: Any, what: str) -> Architecture:
    """The architecture that a card describes.

    Raises:
        TinymimError: a field of another type or range, or an option that makes no network.
    """
    known = fit(value, Network, what)
    network_options.check(known.options, f"{what}: options")  # type: ignore[attr-defined]
    return Architecture(**mapping(value, what))
