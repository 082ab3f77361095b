"""Sizes that a file tells, compared with the weights in it before anything is built: a few bytes of text ask for no
gigabytes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from tinymim.errors import TinymimError, misfit
from tinymim.teachers import record_schemas, weights_summary
from tinymim.teachers.formats import State
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone, skeleton

SPARE = 128 << 20  # bytes that any network may take beyond four times those of its file
MOST_PARTS = 25_000
"""Modules and parameters that a module of a file may have, those of networks whose sizes are looked at on the way
included: a ViT of 48 blocks has 1,600."""


def compare(path: Path, state: State, record: dict[str, Any]) -> None:
    """Raise unless the network of a record, which the schema has passed, has the width, depth and patch of the weights
    beside it, named as timm names them."""
    held, stated = weights_summary.summarise(state), record["backbone"]["architecture"]
    if held is None:
        raise TinymimError(f"{path} holds no weights of a ViT (keys: {', '.join(sorted(state)[:4])})")
    options = stated.get("options", {})
    sizes = {"width": ("embed_dim", held.width), "depth": ("depth", held.depth), "patch": ("patch_size", held.patch)}
    usual = None
    if any(option not in options for option, _ in sizes.values()):
        network = skeleton(Architecture(stated.get("arch", Architecture.arch)))
        usual = weights_summary.summarise(network.vit.state_dict())
    for name, (option, stored) in sizes.items():
        size = options.get(option, getattr(usual, name, 0))
        if stored and stored not in (size if isinstance(size, list) else [size]):
            raise TinymimError(f"{path}: its record says {name} {size}, its weights {stored}")


def check_bytes(path: Path, weights: Iterable[Tensor], backbone: Backbone) -> None:
    """Raise where a network, better a skeleton, would take many times the bytes of its file: tables of positions grow
    with the image."""
    held = sum(value.numel() for value in weights) * 4
    needed = sum(part.nbytes for part in (*backbone.parameters(), *backbone.buffers()))
    if needed > 4 * held + SPARE:
        raise TinymimError(
            f"{path} holds {held / 1e6:.0f} MB of weights, and {backbone.describe()} would take {needed / 1e6:.0f} MB: "
            "they are not its own, or img_size is far from theirs"
        )


def check_described(model: dict[str, Any], weights: Iterable[Tensor]) -> None:
    """Raise where a network that a recipe's model (``class_path``, and ``init_args`` with a ``student`` or
    ``architecture``) describes has more weights than there are beside the recipe, or where none can be described so."""
    held = sum(value.numel() for value in weights)
    for name in ("student", "architecture"):
        described = (model.get("init_args") or {}).get(name)
        if isinstance(described, dict):
            stated = {key: value for key, value in described.items() if value is not None}
            network = skeleton(record_schemas.architecture(stated, name))
            if (needed := sum(part.numel() for part in network.parameters())) > held:
                raise TinymimError(f"{name}: it would have {needed:,} weights, and the file has {held:,} numbers")


def check_built(build: Callable[[], nn.Module], state: State, what: str) -> None:
    """Raise unless the module that ``build`` makes has the weights of ``state``, name for name and shape for shape, and
    little besides. It is made on the meta device first, where nothing takes memory. ``what`` begins the error."""
    with torch.device("meta"), _few_parts(what), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's: a copy onto the meta device is none
        module = build()
        try:
            module.load_state_dict(state)
        except RuntimeError as error:
            raise TinymimError(f"{what}: {misfit(error)}") from None
    held = sum(value.numel() for value in state.values()) * 4
    sizes = {id(part): part.nbytes for inner in module.modules() for part in _tensors(vars(inner))}
    if sum(sizes.values()) > 4 * held + SPARE:
        raise TinymimError(
            f"{what}: the file holds {held / 1e6:.0f} MB, and {sum(sizes.values()) / 1e6:.0f} MB would be taken, most "
            f"by {_largest(module)}: img_size or num_classes is far from theirs"
        )


def _tensors(value: Any) -> Iterator[Tensor]:
    """Tensors in an attribute of a module: parameters, buffers, and what figures are counted in; not of its parts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _tensors(inner)


def _largest(module: nn.Module) -> str:
    sizes = {name: sum(part.nbytes for part in _tensors(vars(inner))) for name, inner in module.named_modules()}
    return max(sizes, key=lambda name: sizes[name]) or type(module).__name__


@contextmanager
def _few_parts(what: str) -> Iterator[None]:
    """Within it, a module of more than :data:`MOST_PARTS` parts is no further built: each takes time on any device."""
    count = 0

    def counted(module: nn.Module, name: str, part: Any) -> None:
        nonlocal count
        if (count := count + 1) > MOST_PARTS:
            raise TinymimError(f"{what}: more than {MOST_PARTS:,} parts; --trust builds as many as it likes")

    handles = [
        register_module_module_registration_hook(counted),  # type: ignore[arg-type]
        register_module_parameter_registration_hook(counted),  # type: ignore[arg-type]
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
