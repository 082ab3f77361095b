"""Fill the cache: run the teacher for the views that lack a record, and store what it gives."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tinymim.teacher_cache.cache import Cache
from tinymim.teacher_cache.forms import Form, encoded
from tinymim.vit.taps import Readings


class Filler:
    """Completes the records of batches in the ``forms`` that are stored, and counts how many views that took."""

    def __init__(self, forms: Iterable[Form]):
        self.forms = list(forms)
        self.filled, self.seconds = 0, 0.0  # views that were computed, and how long that took, storing included
        self.missed = 0  # views that lacked a record since an epoch began

    def fill(
        self,
        records: dict[str, Tensor],
        missing: list[int],
        images: Tensor,
        read: Callable[[Tensor], Readings],
        cache: Cache | None,
        tags: Any,
    ) -> None:
        """Put what is missing into ``records``, in place, and store it.

        Args:
            records: of a batch by the name of their form, ``(B, size)`` each; may be empty where all is missing.
            missing: samples of the batch that lack something.
            images: of the whole batch, ``(B, 3, H, W)``.
            read: runs the teacher on images.
            cache: where to store; ``None`` nowhere.
            tags: of the samples, ``(B, 3)``; ``None`` stores nothing.
        """
        if images.device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        whole = len(missing) == len(images)
        which = torch.tensor(missing, device=images.device)
        computed = encoded(self.forms, read(images if whole else images[which]))
        for name, new in computed.items():
            records[name] = new if whole else records[name].index_copy(0, which, new)
        if tags is not None and cache:  # a replay has none
            cache.store(np.asarray(tags)[missing], computed)
        self.missed += len(missing)
        self.filled, self.seconds = self.filled + len(missing), self.seconds + time.perf_counter() - start
