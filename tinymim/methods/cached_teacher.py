"""A teacher that is run once for each view: what it gives is stored, and read from then on."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from tinymim.data.module import ImageData
from tinymim.log import say
from tinymim.methods.frozen_teacher import FrozenTeacher, Stored, View, computing, given_out
from tinymim.seeds import seeded
from tinymim.teacher_cache.cache import Cache, Part
from tinymim.teacher_cache.forms import Form, encoded, forms_of
from tinymim.teacher_cache.key import key_of
from tinymim.vit.backbone import Backbone
from tinymim.vit.blocks import NORMED, QKV, Readings, Tap, kept_tokens, projected
from tinymim.vit.positions import Positions

PLAIN = ("held_out", "bank")
"""Data sets that have one view."""


class CachedTeacher:
    """Reads as a :class:`FrozenTeacher` does, from a cache where it can.

    What is not stored yet is computed, stored, and then taken as if it had been read: a step takes the same numbers
    whether they were there or not. q, k and v are projected from the stored tokens, so those projections stay where the
    student is; the rest of the teacher is let go when all is stored, or once an epoch has missed nothing, and loaded
    again if something is missing after all.

    Args:
        load: the teacher, loaded and not cut, on the CPU; called again when it is needed again.
        work: makes a teacher at work of it, that reads the taps given.
        taps: what is read.
        first_only: those of ``taps`` of which only the first token is.
        dtype: what the teacher computes in; ``None`` is what the run does.
        precision: the same, for the key of the cache.
        skeleton: of the teacher, whole.
        root: of the cache.
        views: of each training image.
        bank: whether losses on the bank are evaluated too.
        trial: store nothing that stays; see :class:`Cache`.
    """

    processes = 1

    def __init__(
        self,
        load: Callable[[], Backbone],
        work: Callable[[Backbone, list[Tap]], FrozenTeacher],
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
        self._load, self._work, self.taps, self.dtype = load, work, list(dict.fromkeys(taps)), dtype
        self.skeleton, self.root, self.views, self._bank, self._trial = skeleton, root, views, bank, trial
        self._precision = precision
        tokens = skeleton.prefix + skeleton.grid[0] * skeleton.grid[1]
        self.forms = forms_of(self.taps, first_only, tokens, skeleton.width, skeleton.classes or 0)
        self._projections: dict[int, tuple[nn.Module, Positions]] = {}
        self._teacher: FrozenTeacher | None = None
        self._cache: Cache | None = None
        self._data: ImageData | None = None
        self._device = torch.device("cpu")
        self._missed = 0
        self.filled, self.seconds = 0, 0.0
        """Views that were computed, and how long that took, storing included."""
        self._teacher = self._loaded()

    def _loaded(self) -> FrozenTeacher:
        """Load the teacher; its projections are kept when it is let go."""
        backbone = self._load()
        if not self._projections:
            told = backbone.told()
            for block in {tap.block for tap in self.taps if tap.name in QKV}:
                attn = backbone.vit.blocks[block - 1].attn
                self._projections[block] = (cast(nn.Module, attn), dict(told[block - 1]))
        return self._work(backbone, [form.tap for form in self.forms])

    @property
    def backbone(self) -> Backbone:
        """The teacher, up to the deepest block read; its sizes alone while it is let go."""
        return self._teacher.backbone if self._teacher else self.skeleton

    @property
    def cache(self) -> Cache:
        """What is stored."""
        assert self._cache is not None, "open comes first"
        return self._cache

    def open(self, data: ImageData, name: str, sha256: str) -> None:
        """Have the views of a data module that is set up come again, and open what is stored of them.

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
        parts: list[Part | None] = []
        for title, dataset in data.parts().items():
            if dataset is None or title not in used:
                parts.append(None)
                continue
            seed = 0 if title in PLAIN else data.view_seed
            key = key_of(self.skeleton, sha256, self._precision, dataset.identity(), seed)
            about = {"teacher": name, "data": f"{type(data).__name__}, {title}", "source": data.source()}
            parts.append(Part(key, about, len(dataset), 1 if title in PLAIN else self.views))
        self._cache, self._data = Cache(self.root, self.forms, parts, self._trial), data
        say(f"teacher cache {self._cache.describe()}; views of an image: {self.views}")
        if self._teacher and not any(self._cache.lacking):
            self._let_go()

    def fetch(self, view: Tensor, device: torch.device) -> Stored:
        """What is stored for the ``(B, 3)`` tags of a batch, on the host; ``missing`` are the samples that lack
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
            self._fill(images, records, missing, stored["view"] if stored else None)
        with torch.no_grad(), computing(self.dtype, images.device.type) as differs:
            readings = {form.tap: form.decode(records[form.name]).to(images.dtype) for form in self.forms}
            for block in self._projections:
                attn, told = self._on(images.device, block)
                parts = zip(QKV, projected(attn, readings[Tap(block, NORMED)], told), strict=True)
                readings |= {Tap(block, name): part for name, part in parts}
            readings = given_out({tap: readings[tap] for tap in self.taps}, differs)
        if keep is None:
            return readings
        alone = {form.tap for form in self.forms if form.exact}
        prefix = self.skeleton.prefix
        return {tap: x if tap in alone else kept_tokens(x, keep, prefix) for tap, x in readings.items()}

    def _on(self, device: torch.device, block: int) -> tuple[Any, Positions]:
        """A block's attention, and what it is told, where the images are."""
        attn, told = self._projections[block]
        if device != self._device:
            for number, (module, positions) in self._projections.items():
                moved = {name: tensor.to(device) for name, tensor in positions.items()}
                self._projections[number] = (module.to(device), moved)
            self._device = device
            attn, told = self._projections[block]
        return attn, told

    def _fill(self, images: Tensor, records: dict[str, Tensor], missing: list[int], view: Any) -> None:
        """Compute what is missing, put it into ``records``, and store it."""
        if images.device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        if self._teacher is None:
            with seeded(0):  # building a network draws numbers, which must not be those of the step
                self._teacher = self._loaded()
        whole = len(missing) == len(images)
        which = torch.tensor(missing, device=images.device)
        found = encoded(self.forms, self._teacher.read(images if whole else images[which]))
        for name, new in found.items():
            records[name] = new if whole else records[name].index_copy(0, which, new)
        if view is not None and self._cache:  # a replay has none
            self.cache.store(np.asarray(view)[missing], found)
        self._missed += len(missing)
        self.filled, self.seconds = self.filled + len(missing), self.seconds + time.perf_counter() - start

    def rest(self, epoch: int) -> None:
        """After an epoch, from 0: let the teacher go if nothing was missing, and all views have had their turn."""
        if self._teacher and not self._missed and epoch + 1 >= self.views:
            self._let_go()
        self._missed = 0

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
        own = f"computes in {str(self.dtype).removeprefix('torch.')}, " if self.dtype else ""
        resampled = ""
        if self._teacher and (side := self._teacher.backbone.resampled_from) is not None:
            resampled = f", positions resampled from {side}x{side} patches"
        stored = ", ".join(_said(form) for form in self.forms)
        return f"{own}run once for each of {self.views} view(s), then read from the cache: {stored}{resampled}"


def _said(form: Form) -> str:
    kind = "float32" if form.exact else "int8"
    return f"{form.name.replace('_', ' ')} in {kind}"


def cache_problems(data: Any) -> list[str]:
    """Why the views of a data module cannot come again."""
    if getattr(data, "repeatable", False):
        return []
    if data is None:
        return ["teacher_cache: it needs a data module of tinymim.data, and the Trainer was given loaders"]
    return [
        f"teacher_cache: {type(data).__name__} does not say what determines its views; set teacher_cache: null, or see "
        "tinymim.data.module.ImageData.repeatable"
    ]


def option_problems(views: int, drop_path: float, masked: View | None, sharding: bool) -> list[str]:
    """What cannot go with a teacher that is run once for each of ``views``.

    Args:
        views: 0 is no cache.
        drop_path: the teacher's.
        masked: what it sees where the student sees a part of the patches; ``None`` where that sees all.
        sharding: whether processes share it.
    """
    if views < 0:
        return [f"teacher_cache: {views} is not a number of views, 1 or more; null or 0 is off"]
    clashes = [
        (drop_path > 0, f"teacher_drop_path {drop_path} makes it give other numbers in every step"),
        (masked == "visible", "it would see other patches in every epoch; teacher_view: whole goes with it"),
        (sharding, "teacher_sharding has all processes run it together"),
    ]
    return [f"teacher_cache: {why}; or set teacher_cache: null" for true, why in clashes if views and true]


def precision_name(dtype: torch.dtype | None, run: str) -> str:
    """What a teacher computes in, for the key: ``dtype``, or what the trainer's precision ``run`` means."""
    if dtype is not None:
        return str(dtype).removeprefix("torch.")
    return {"32-true": "float32", "bf16-mixed": "bfloat16", "16-mixed": "float16"}.get(run, run)
