"""What measuring a network's heads costs: all attention maps kept and then measured, against `tinymim.analysis`.

    python benchmarks/analysis.py                  # ViT-T/16 and ViT-B/16 at 224, 64 images
    python benchmarks/analysis.py --images 256 --rounds 5
    python benchmarks/analysis.py --flat           # peak memory of ours from 100 to 1000 images, of a small ViT

Both give distance, entropy, KL and Jensen-Shannon divergence of every head without prefix; weights are random (times 4
in q and k, so that maps are not uniform); how far they lie apart is shown. The baseline is written as these measures
usually are: explicit attention in hooks, then head by head and pair by pair, vectorised over images. Images are drawn
batch by batch, none are held. Both run in turn in one process; times are medians, of the wall clock and of the CPUs,
which other work on the machine disturbs less. Peak memory (Linux) is a fresh process's largest resident size during one
pass, beyond what it held with the network loaded and one image seen.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the command has it

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from tinymim.analysis.heads import HeadMeasures
from tinymim.analysis.layers import distances, layers
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone

NAMES = ("distance_px", "entropy_nats", "diversity_kl", "diversity_js")
BATCH = 16
SMALL = {"img_size": 64, "patch_size": 8, "embed_dim": 96, "depth": 6, "num_heads": 3}

Measured = Tensor
"""Means over images, ``(blocks, heads, 4)``, in the order of :data:`NAMES`."""


def network(name: str) -> Backbone:
    """timm's of that name, or ``small``; random weights."""
    torch.manual_seed(0)
    made = Backbone(Architecture(options=SMALL) if name == "small" else Architecture(name)).eval()
    with torch.no_grad():
        for block in made.vit.blocks:
            block.attn.qkv.weight[: 2 * made.width] *= 4
    return made.requires_grad_(False)


def batches(count: int, size: tuple[int, int]) -> Iterator[Tensor]:
    """The same images for both."""
    generator = torch.Generator().manual_seed(0)
    for first in range(0, count, BATCH):
        yield torch.rand(min(BATCH, count - first), 3, *size, generator=generator)


def baseline(backbone: Backbone, count: int) -> Measured:
    """Every map of every block and image, then the measures of one block after the other."""
    kept: list[list[Tensor]] = [[] for _ in backbone.vit.blocks]
    hooks = []
    for block, maps in zip(backbone.vit.blocks, kept, strict=True):
        hooks.append(block.attn.attn_drop.register_forward_pre_hook(lambda _, given, maps=maps: maps.append(given[0])))
    for images in batches(count, backbone.image_size):
        for block in backbone.vit.blocks:
            block.attn.fused_attn = False
        backbone.vit.forward_features(backbone.normalise(images))
    for hook in hooks:
        hook.remove()
    between = distances(backbone.grid, backbone.patch)
    return torch.stack(
        [_measured(torch.cat(maps)[..., backbone.prefix :, backbone.prefix :], between) for maps in kept]
    )


def _measured(maps: Tensor, between: Tensor) -> Tensor:
    """``(heads, 4)`` of ``(B, H, N, N)`` maps."""
    maps = maps / maps.sum(-1, keepdim=True)
    logs = maps.clamp(min=torch.finfo(maps.dtype).tiny).log()
    H = maps.shape[1]
    distance = (maps * between).sum(-1).mean((0, 2))
    entropy = -(maps * logs).sum(-1).mean((0, 2))
    kl, js = torch.zeros(2, H, H)
    for h, g in itertools.combinations(range(H), 2):
        kl[h, g] = (maps[:, h] * (logs[:, h] - logs[:, g])).sum(-1).mean()
        kl[g, h] = (maps[:, g] * (logs[:, g] - logs[:, h])).sum(-1).mean()
        mixed = (maps[:, h] + maps[:, g]) / 2
        middle = -torch.xlogy(mixed, mixed).sum(-1).mean()
        js[h, g] = js[g, h] = middle - (entropy[h] + entropy[g]) / 2
    return torch.stack([distance, entropy, (kl + kl.T).sum(1) / (2 * (H - 1)), js.sum(1) / (H - 1)], dim=1)


def ours(backbone: Backbone, count: int) -> Measured:
    """Block by block, a few images' maps at a time."""
    measures = HeadMeasures()
    for images in batches(count, backbone.image_size):
        for layer in layers(backbone, images):
            measures.add(layer)
    values = torch.tensor([[record[name] for name in NAMES] for record in measures.records()])
    return values.view(backbone.depth, -1, len(NAMES))


WAYS: dict[str, Callable[[Backbone, int], Measured]] = {"baseline": baseline, "ours": ours}


@torch.inference_mode()
def timed(way: str, backbone: Backbone, count: int) -> tuple[float, float, Measured]:
    """Seconds of the clock, seconds of the CPUs, and what came out."""
    clock, cpu = time.perf_counter(), time.process_time()
    measured = WAYS[way](backbone, count)
    return time.perf_counter() - clock, time.process_time() - cpu, measured


def peak(way: str, name: str, count: int, threads: int) -> int:
    """Bytes, of a fresh process."""
    command = [sys.executable, __file__, "--threads", str(threads), "--memory-of", json.dumps([way, name, count])]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@torch.inference_mode()
def grown(way: str, name: str, count: int) -> int:
    """Largest resident bytes of this process in one pass beyond those before it."""
    backbone = network(name)
    WAYS[way](backbone, 1)
    Path("/proc/self/clear_refs").write_text("5")  # forget the largest size so far
    before = resident("VmRSS")
    WAYS[way](backbone, count)
    return resident("VmHWM") - before


def resident(what: str) -> int:
    """Bytes of this process that Linux calls ``what``."""
    return 1024 * int(Path("/proc/self/status").read_text().split(f"{what}:")[1].split()[0])


def compare(name: str, options: argparse.Namespace) -> list[str]:
    """A row of the table."""
    backbone = network(name)
    taken: dict[str, list[tuple[float, float, Measured]]] = {way: [] for way in WAYS}
    for way in WAYS:
        timed(way, backbone, BATCH)
    for _ in range(options.rounds):
        for way in WAYS:
            taken[way].append(timed(way, backbone, options.images))
    clock, cpu = ([statistics.median(run[i] for run in taken[way]) for way in WAYS] for i in (0, 1))
    apart = (taken["baseline"][0][2] - taken["ours"][0][2]).abs().amax().item()
    memory = [peak(way, name, options.images, options.threads) for way in WAYS]
    cells = [name]
    for before, after, unit in ((*clock, "s"), (*cpu, "s"), (memory[0] / 2**20, memory[1] / 2**20, "MiB")):
        cells += [f"{before:.4g} {unit}", f"{after:.4g} {unit}", f"{before / after:.2f}"]
    return [*cells, f"{apart:.0e}"]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["vit_tiny_patch16_224", "vit_base_patch16_224"])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch (default: 2)")
    parser.add_argument("--flat", action="store_true", help="peak memory from 100 to 1000 images of a small ViT")
    parser.add_argument("--memory-of", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory_of:
        print(grown(*options.memory_of))
        return
    if options.flat:
        table = Table("images", *WAYS, title=f"peak memory, {SMALL}")
        for count in (100, 300, 1000):
            table.add_row(
                str(count), *(f"{peak(way, 'small', count, options.threads) / 2**20:.0f} MiB" for way in WAYS)
            )
    else:
        title = (
            f"{options.images} images in batches of {BATCH}, {options.threads} CPU threads, PyTorch {torch.__version__}"
        )
        pairs = [f"{what}: {way}" for what in ("clock", "CPUs", "memory") for way in ("baseline", "ours", "ratio")]
        table = Table("network", *pairs, "apart", title=title)
        for name in options.networks:
            table.add_row(*compare(name, options))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


if __name__ == "__main__":
    main()
