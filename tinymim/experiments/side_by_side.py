"""Fits side by side: how many by default, and the GPUs that each has to itself."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable

import torch

from tinymim.device import device_of
from tinymim.experiments.plan import Plan
from tinymim.system import cores


def at_once(plan: Plan, keys: Iterable[str]) -> int:
    """Fits of a plan that run side by side by default: one a GPU where they use GPUs, else one a core, and no more than
    can, as some start from others."""
    levels: dict[str, int] = {}
    place = {name: number for number, name in enumerate(plan.stages)}  # behind those that it starts from
    for key in sorted(plan.with_sources(keys), key=lambda key: place[plan.fits[key].stage]):
        levels[key] = 1 + max((levels[source] for source in plan.sources(key).values()), default=0)
    most = max(Counter(levels.values()).values(), default=1)
    return min(len(gpus(plan)) or cores(), most)


def gpus(plan: Plan) -> list[list[str]]:
    """This machine's GPUs, as many together as a fit of the plan uses: one, unless its trainer says how many.

    Returns:
        Their names, as ``CUDA_VISIBLE_DEVICES`` has them; none where no fit uses a GPU, and one group without names
        where a trainer names its own.
    """
    stages = [stage for stage in plan.stages.values() if stage.kind not in ("export", "command")]
    trainers = [stage.config.get("trainer") or {} for stage in stages]
    devices = [device for device in map(device_of, trainers) if device.kind == "cuda"]
    if not devices:
        return []
    if any(device.numbers != tuple(range(len(device.numbers))) for device in devices):
        return [[]]
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "").strip(",")
    each = names.split(",") if names else [str(number) for number in range(torch.cuda.device_count())]
    size = max(1, *(len(device.numbers) for device in devices))
    return [each[first : first + size] for first in range(0, max(len(each) - size, 0) + 1, size)]
