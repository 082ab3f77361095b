"""A teacher too large for one device: FSDP2 shares its blocks among the processes."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from tinymim.vit.backbone import Backbone


def shard(backbone: Backbone, whole: set[int], device: torch.device) -> int:
    """Share the weights of a frozen backbone's blocks evenly among all processes; a read gathers them block by block.

    Processes must then read together. ``device`` never holds more than one whole block, or two while the next is being
    gathered, beside its share, the stem and the ``whole`` blocks. Each process's host memory holds all of the weights
    before that, twice while they are loaded.

    Args:
        backbone: changed in place, its blocks one after another; in the memory of the host until then.
        whole: blocks (from 1) that are run part by part, out of sight of FSDP2's hooks, and so stay whole.
        device: where the shares go.

    Returns:
        The processes that share it. One alone has nobody to share with, and leaves the backbone as it is.
    """
    world = dist.get_world_size() if dist.is_initialized() else 1
    if world == 1:
        return 1
    mesh = init_device_mesh(device.type, (world,))
    shared = [block for number, block in enumerate(backbone.vit.blocks, start=1) if number not in whole]
    for block in shared:
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    inner = {parameter for block in shared for parameter in block.parameters()}
    # one root for all blocks: the next one is gathered while this one computes
    fully_shard(backbone, mesh=mesh, ignored_params=set(backbone.parameters()) - inner)
    register_fsdp_forward_method(backbone, "read")
    return world


def held(module: nn.Module) -> int:
    """Weights of ``module`` that this process holds."""
    parts = (p.to_local() if isinstance(p, DTensor) else p for p in module.parameters())
    return sum(part.numel() for part in parts)
