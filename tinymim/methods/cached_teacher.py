"""Cached teacher: run once for each view of an image, and read from the cache from then on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from tinymim.data.data_module import ImageData
from tinymim.errors import counted
from tinymim.log import detail
from tinymim.methods.frozen_teacher import FrozenTeacher, Stored, View, computing, given_out
from tinymim.seeds import seeded
from tinymim.teacher_cache.cache import Cache, StoredSet
from tinymim.teacher_cache.fill import Filler
from tinymim.teacher_cache.forms import forms_of
from tinymim.teacher_cache.storage import key_of
from tinymim.vit.backbone import Backbone
from tinymim.vit.positions import Positions
from tinymim.vit.taps import NORMED, QKV, Readings, Tap, kept_tokens, projected

PLAIN = ("held_out", "bank")
"""Data sets that have one view."""


class CachedTeacher:
    """Reads as a :class:`FrozenTeacher` does, from a cache where it can.

    Missing readings are computed, stored, and then taken as if they had been read: a step takes the same numbers
    whether they were there or not. q, k and v are projected from the stored tokens, so those projections stay where the
    student is; the rest of the teacher is let go when all is stored, or once an epoch has missed nothing, and loaded
    again if something is missing after all.

    Args:
        load: gives the teacher that reads some taps, on the CPU; called again when it is needed again.
        taps: what is read.
        first_only: those of ``taps`` of which only the first token is.
        dtype: what the teacher computes in; ``None`` is what the run does, whose ``precision`` the cache's key names.
        skeleton: of the teacher, whole.
        root: of the cache.
        views: of each training image.
        bank: whether losses on the bank are evaluated too.
        trial: store nothing that stays; see :class:`Cache`.
    """

    processes = 1

    def __init__(
        self,
        load: Callable[[list[Tap]], FrozenTeacher],
        taps: list[Tap],
        first_only: list[Tap],
        dtype: torch.dtype | None,
        precision: str,
        skeleton: Backbone,
        root: Path,
        views: int,
        bank: bool = False,
        trial: bool = False,
    ):
        self._load, self.taps, self.dtype = load, list(dict.fromkeys(taps)), dtype
        self.skeleton, self.root, self.views, self._bank, self._trial = skeleton, root, views, bank, trial
        self._precision = precision
        tokens = skeleton.prefix + skeleton.patches
        self.forms = forms_of(self.taps, first_only, tokens, skeleton.width, skeleton.classes or 0)
        self.filler = Filler(self.forms)
        self._projections: dict[int, tuple[nn.Module, Positions]] = {}
        self._cache: Cache | None = None
        self._data: ImageData | None = None
        self._device = torch.device("cpu")
        self._teacher: FrozenTeacher | None = self._loaded()

    def _loaded(self) -> FrozenTeacher:
        """Load the teacher; its projections are kept when it is let go."""
        teacher = self._load([form.tap for form in self.forms])
        if not self._projections:
            with torch.no_grad(), computing(self.dtype, "cpu"):
                block_kwargs = teacher.backbone.block_kwargs()
            for block in {tap.block for tap in self.taps if tap.name in QKV}:
                attn = teacher.backbone.vit.blocks[block - 1].attn
                self._projections[block] = (cast(nn.Module, attn), dict(block_kwargs[block - 1]))
        return teacher

    @property
    def backbone(self) -> Backbone:
        """The teacher, up to the deepest block read; its sizes alone while it is let go."""
        return self._teacher.backbone if self._teacher else self.skeleton

    @property
    def cache(self) -> Cache:
        """The cache."""
        assert self._cache is not None, "open comes first"
        return self._cache

    def open(self, data: ImageData, name: str, sha256: str) -> None:
        """Open the stored readings of a data module that is set up, whose views come again from now on.

        Args:
            data: not opened again where it is the one that is open.
            name: of the teacher, for people.
            sha256: of its weights.

        Raises:
            TinymimError: see :class:`Cache`.
        """
        data.repeat(self.views)
        if self._data is data:
            return
        self.close()
        used = ("train", "held_out", *(["bank"] if self._bank else []))
        parts: list[StoredSet | None] = []
        for title, dataset in data.parts().items():
            if dataset is None or title not in used:
                parts.append(None)
                continue
            seed = 0 if title in PLAIN else data.view_seed
            key = key_of(self.skeleton, sha256, self._precision, dataset.identity(), seed)
            source = data.shown(data.source())
            about = {"teacher": name, "data": f"{type(data).__name__}, {title}", "source": source}
            parts.append(StoredSet(key, about, len(dataset), 1 if title in PLAIN else self.views))
        self._cache, self._data = Cache(self.root, self.forms, parts, self._trial), data
        detail(f"teacher cache {self._cache.describe()}; views of an image: {self.views}")
        if self._teacher and not any(self._cache.lacking):
            self._let_go()

    def fetch(self, view: Tensor, device: torch.device) -> Stored:
        """Stored records for the ``(B, 3)`` tags of a batch, on the host; ``missing`` are the samples that lack
        something, and ``view`` the tags."""
        tags = view.numpy()
        records, missing = self.cache.fetch(tags, pinned=device.type == "cuda")
        return {"records": records, "missing": missing, "view": tags}

    def read(
        self, images: Tensor, keep: Tensor | None = None, training: bool = False, stored: Stored | None = None
    ) -> Readings:
        """Its taps, as :meth:`FrozenTeacher.read` gives them out, of the ``whole`` image.

        Args:
            images: looked at where something is missing.
            keep: ``(B, K)`` indices of the patches that a masked student sees.
            training: changes nothing.
            stored: from :meth:`fetch`, on the device of the images; without it all is computed, in the form that a
                cache would have it, and nothing is stored.
        """
        records = dict(stored["records"]) if stored else {}
        missing = stored["missing"] if stored else list(range(len(images)))
        if missing:
            tags = stored["view"] if stored else None
            self.filler.fill(records, missing, images, self._read_anew, self._cache, tags)
        with torch.no_grad(), computing(self.dtype, images.device.type) as differs:
            readings = {form.tap: form.decode(records[form.name]).to(images.dtype) for form in self.forms}
            for block in self._projections:
                attn, block_kwargs = self._projection(block, images.device)
                parts = zip(QKV, projected(attn, readings[Tap(block, NORMED)], block_kwargs), strict=True)
                readings |= {Tap(block, name): part for name, part in parts}
            readings = given_out({tap: readings[tap] for tap in self.taps}, differs)
        if keep is None:
            return readings
        whole = {form.tap for form in self.forms if form.exact}  # CLS alone, or logits: nothing to drop
        prefix = self.skeleton.prefix
        return {tap: x if tap in whole else kept_tokens(x, keep, prefix) for tap, x in readings.items()}

    def _read_anew(self, images: Tensor) -> Readings:
        """Run the teacher, loaded again where it was let go."""
        if self._teacher is None:
            with seeded(0):  # building a network draws numbers, which must not be those of the step
                self._teacher = self._loaded()
        return self._teacher.read(images)

    def _projection(self, block: int, device: torch.device) -> tuple[Any, Positions]:
        """A block's attention and its keyword arguments, on the device of the images."""
        if device != self._device:
            for number, (module, positions) in self._projections.items():
                moved = {name: tensor.to(device) for name, tensor in positions.items()}
                self._projections[number] = (module.to(device), moved)
            self._device = device
        return self._projections[block]

    def rest(self, epoch: int) -> None:
        """After an epoch, from 0: let the teacher go if nothing was missing, and all views have had their turn."""
        if self._teacher and not self.filler.missed and epoch + 1 >= self.views:
            self._let_go()
        self.filler.missed = 0

    def _let_go(self) -> None:
        """Keep nothing of the teacher but the projections."""
        self._teacher = None
        for attn, _ in self._projections.values():
            attn.proj = nn.Identity()

    def finish(self) -> None:
        """Nobody shares it."""

    def close(self) -> None:
        """Let go of the files."""
        if self._cache:
            self._cache.close()
        self._cache = self._data = None

    def describe(self) -> str:
        """For people: what is stored of it."""
        dtype = f"computes in {str(self.dtype).removeprefix('torch.')}, " if self.dtype else ""
        resampled = ""
        if self._teacher and (old := self._teacher.backbone.resampled_from) is not None:
            resampled = f", positions resampled from {old[0]}x{old[1]} patches"
        kinds = {True: "float32", False: "int8"}
        stored = ", ".join(f"{form.name.replace('_', ' ')} in {kinds[form.exact]}" for form in self.forms)
        return (
            f"{dtype}run once for each of {counted(self.views, 'view')}, then read from the cache: {stored}{resampled}"
        )


def cache_errors(data: Any) -> list[str]:
    """Why the views of a data module cannot come again."""
    if getattr(data, "repeatable", False):
        return []
    if data is None:
        return ["teacher_cache: it needs a data module of tinymim.data, and the Trainer was given loaders"]
    return [
        f"teacher_cache: {type(data).__name__} does not say what determines its views; set teacher_cache: null, or see "
        "tinymim.data.data_module.ImageData.repeatable"
    ]


def clashes(views: int, drop_path: float, masked: View | None, sharding: bool) -> list[str]:
    """Options that clash with a teacher that is run once for each of ``views``.

    Args:
        views: 0 is no cache.
        drop_path: the teacher's.
        masked: what it sees where the student sees a part of the patches; ``None`` where that sees all.
        sharding: whether processes share it.
    """
    if views < 0:
        return [f"teacher_cache: {views} is not a number of views, 1 or more; null or 0 is off"]
    conditions = [
        (drop_path > 0, f"teacher_drop_path {drop_path} makes it give other numbers in every step"),
        (masked == "visible", "it would see other patches in every epoch; teacher_view: whole goes with it"),
        (sharding, "teacher_sharding has all processes run it together"),
    ]
    return [f"teacher_cache: {why}; or set teacher_cache: null" for true, why in conditions if views and true]


def precision_name(dtype: torch.dtype | None, run: str) -> str:
    """Name of a teacher's precision, for the key: ``dtype``, or what the trainer's precision ``run`` means."""
    if dtype is not None:
        return str(dtype).removeprefix("torch.")
    return {"32-true": "float32", "bf16-mixed": "bfloat16", "16-mixed": "float16"}.get(run, run)
