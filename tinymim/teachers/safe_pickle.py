"""Read a pickled checkpoint without running any code in it.

Authors leave objects beside their weights: the ``argparse.Namespace`` of a command line, a ``CfgNode``, a numpy scalar
of the best accuracy. For the classes named here an inert stand-in takes the object's place, so that the weights can be
read; the classes themselves are never imported or called. Whatever else a pickle asks for is refused.
"""

from __future__ import annotations

import pickle
import pickletools
import re
import struct
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any

import torch

from tinymim.errors import TinymimError
from tinymim.files import checksum_beside
from tinymim.safety import signatures

DAMAGED = (RuntimeError, EOFError, OSError, ValueError, LookupError, AttributeError, TypeError, struct.error)
"""Errors of the readers on files that are cut short or are something else."""


MOST_STEPS = 1_000_000
"""Steps of the pickles that say what the tensors are called and where they lie: some thirty a tensor."""

FREE = 1 << 20  # bytes of a pickle that cannot have as many, and are not looked through
SHARED = 8  # how often tensors of a file may share their values


class Fields:
    """Stand-in for an object with fields, or for a dict with a name."""

    def __new__(cls, *_: Any) -> Any:
        """An ordinary dict: PyTorch's reader sets the items and fields of no other kind."""
        return OrderedDict()


class Called:
    """Stand-in for what a call would have made: nothing is called, and its arguments are dropped."""

    def __init__(self, *_: Any):
        pass

    def __setstate__(self, _: Any) -> None:
        pass


HARMLESS = {
    "argparse.Namespace": Fields,  # MAE, TinyMIM, BEiT, DINO, iBOT: the command line
    "yacs.config.CfgNode": Fields,  # SimMIM: the configuration
    "numpy.core.multiarray.scalar": Called,  # the best accuracy, as numpy counts it; before numpy 2
    "numpy._core.multiarray.scalar": Called,
    "numpy.core.multiarray._reconstruct": Called,
    "numpy._core.multiarray._reconstruct": Called,
    "numpy.ndarray": Called,
    "numpy.dtype": Called,
    "pathlib.PosixPath": Called,  # a folder on the command line
    "pathlib._local.PosixPath": Called,  # since Python 3.13
}
"""Classes of objects that published checkpoints hold beside their weights, and what stands in for each."""


def load(path: Path, device: Any = "cpu", mapped: bool = False) -> Any:
    """Read ``path`` by ``torch.load`` with ``weights_only``, and stand-ins for :data:`HARMLESS`; ``mapped`` leaves
    tensors in the file until they are looked at, where its form allows that.

    Raises:
        TinymimError: truncated, no pickle of PyTorch's, or asking for code to be run.
    """
    zipped = _check_zip(path)
    stand_ins: list[Any] = [(stand_in, name) for name, stand_in in HARMLESS.items()]
    try:
        with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's own, on raw pickles and TorchScript, which are refused below
            if path.suffix == ".safetensors":  # which PyTorch would believe
                with path.open("rb") as stream:
                    content = torch.load(stream, map_location=device, weights_only=True)
            else:
                content = torch.load(path, map_location=device, weights_only=True, mmap=mapped and zipped)
    except pickle.UnpicklingError as error:
        if kind := signatures.named(path):
            raise TinymimError(f"{path} is {kind}") from None
        refused = re.search(r"GLOBAL (\S+)", str(error))
        raise TinymimError(
            f"{path} is no plain state dict: it is damaged, or reading it would run code"
            f"{f' ({refused[1]})' if refused else ''}, which is never done. "
            "Have it saved again as a plain state dict or as safetensors"
        ) from None
    except (*DAMAGED, MemoryError, OverflowError) as error:
        raise damaged(path, error) from None
    _check_tensors(path, content)
    return content


def _check_zip(path: Path) -> bool:
    """Whether a file is a zip of PyTorch's, once that unpacks to no more than it is and its pickles are as short as
    those of weights.

    PyTorch never compresses, so that a file of a few bytes that becomes gigabytes is no file of PyTorch's.
    """
    if not zipfile.is_zipfile(path):
        if path.stat().st_size > FREE:
            with path.open("rb") as stream:
                _check_length(path, stream, 5)  # of the form before zips: magic number, protocol, system, content, keys
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, *DAMAGED) as error:
        raise damaged(path, error) from None
    if sum(member.file_size for member in members) > path.stat().st_size:
        kind = (
            signatures.named(path) or "compressed, which PyTorch's files are not; have it saved again with torch.save"
        )
        raise TinymimError(f"{path} is {kind}")
    if not checksum_beside(path.resolve()).is_file():  # else its reader compares that
        _check_sums(path)
    for member in members:
        if member.filename.endswith(".pkl") and member.file_size > FREE:
            with zipfile.ZipFile(path) as archive, archive.open(member) as stream:
                _check_length(path, stream, 1)
    return True


def _check_sums(path: Path) -> None:
    """Raise where a part of a zip does not have its checksum, which PyTorch does not look at; where none has, they were
    left out on purpose (``torch.serialization.set_crc32_options``)."""
    right, broken = 0, []
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            try:
                with archive.open(member) as stream:
                    while stream.read(1 << 20):
                        pass
                right += bool(member.file_size)
            except zipfile.BadZipFile:
                broken.append(member.filename)
    if broken and right:
        raise TinymimError(f"{path} is damaged: {broken[0]} in it does not have its checksum; take another copy")


def _check_length(path: Path, stream: IO[bytes], pickles: int) -> None:
    steps = 0
    try:
        for _ in range(pickles):
            for _ in pickletools.genops(stream):
                if (steps := steps + 1) > MOST_STEPS:
                    raise TinymimError(
                        f"{path} has a list of contents of more than {MOST_STEPS:,} steps; weights do not"
                    )
    except (zipfile.BadZipFile, *DAMAGED):
        return  # which its reader will say


def _check_tensors(path: Path, content: Any) -> None:
    claimed, waiting, seen = 0, [content], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, torch.Tensor):
            if value.layout is not torch.strided:
                raise TinymimError(f"{path} holds a tensor of layout {value.layout}, and weights are dense")
            claimed += value.numel() * value.element_size()
        elif isinstance(value, dict | list | tuple | set) and id(value) not in seen:
            seen.add(id(value))
            waiting += value.values() if isinstance(value, dict) else value
    if claimed > SHARED * path.stat().st_size + (1 << 20):
        raise TinymimError(
            f"{path} has {path.stat().st_size / 1e6:.1f} MB and claims tensors of {claimed / 1e6:.0f} MB; it is damaged"
        )


def damaged(path: Path, error: Exception) -> TinymimError:
    """The error for a file on which a reader stumbled."""
    if kind := signatures.named(path):
        return TinymimError(f"{path} is {kind}")
    reason = re.split(r"\n|\. ", str(error))[0] or type(error).__name__
    if "weights_only" in reason:  # PyTorch's advice is to read it unsafely
        reason = "a program or a raw pickle"
    return TinymimError(f"{path} is truncated or not a weights file ({reason})")
