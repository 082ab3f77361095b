"""One training step, ours against the published method's in plain PyTorch: medians of alternating runs, and the ratio.

    python benchmarks/step.py                               # ViT-B -> ViT-T, 224; batch 16 on a CPU, 256 on a GPU
    python benchmarks/step.py --teacher vit_large_patch16_224 --block 18 --student vit_base_patch16_224
    python benchmarks/step.py --only "ours bf16-mixed"      # one variant alone, for its peak memory on a CPU

A step is teacher and student forward, loss, backward, AdamW. The baseline computes it as the published code does:
explicit attention, whole softmax maps of both networks and the logarithm of a softmax, AdamW parameter by parameter; in
float32, or under autocast (AMP). Ours is `tinymim.modules.Distiller` itself. Both start from the same random weights,
and their first losses are shown. Data loading is not part of it.
"""

from __future__ import annotations

import argparse
import contextlib
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from tinymim.methods import Distiller
from tinymim.targets import Relation
from tinymim.teachers import weights
from tinymim.vit.architecture import Architecture, set_drop_path
from tinymim.vit.backbone import Backbone

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
SIZE = (256, 20) if CUDA else (16, 5)
"""Images of a batch, and rounds."""


@dataclass
class Variant:
    """One way to make the step: ``step`` runs it and returns the loss as a tensor."""

    name: str
    step: Callable[[], torch.Tensor]


def autocast(precision: str) -> Any:
    """The context of a precision."""
    if precision == "32-true":
        return contextlib.nullcontext()
    return torch.autocast(DEVICE.type, torch.bfloat16)


def published(options: argparse.Namespace, teacher: Backbone, student: Backbone, precision: str) -> Variant:
    """The baseline: TinyMIM's step as its paper's section 3 writes it down, and its published code computes it."""
    teacher, student = teacher.to(DEVICE).eval().requires_grad_(False), student.to(DEVICE).train()
    heads = teacher.vit.blocks[options.block - 1].attn.num_heads
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05)
    images = pictures(options.batch)

    def maps(network: Backbone, block: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Softmax maps of QK and VV, all heads, ``(B, H, N, N)`` each."""
        vit = network.vit
        for layer in vit.blocks:
            layer.attn.fused_attn = False
        x = vit._pos_embed(vit.patch_embed(network.normalise(images)))
        for layer in vit.blocks[: block - 1]:
            x = layer(x)
        last = vit.blocks[block - 1]
        qk, vv = relations(last.attn.qkv(last.norm1(x)), heads)
        return qk.softmax(-1), vv.softmax(-1)

    def step() -> torch.Tensor:
        with autocast(precision):
            with torch.no_grad():
                targets = maps(teacher, options.block)
            made = maps(student, len(student.vit.blocks))
            losses = [
                torch.nn.functional.kl_div(s.float().log(), t.float(), reduction="none").sum(-1).mean()
                for t, s in zip(targets, made, strict=True)
            ]
        loss = losses[0] + losses[1]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return Variant(f"baseline {precision}", step)


def relations(qkv: torch.Tensor, heads: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Scaled products QK and VV of ``(B, N, 3D)`` before their softmax, ``(B, H, N, N)`` each (section 3.1)."""
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    scale = q.shape[-1] ** -0.5
    return (q @ k.transpose(-2, -1)) * scale, (v @ v.transpose(-2, -1)) * scale


def ours(options: argparse.Namespace, teacher: Path, student: Backbone, precision: str, compiled: bool) -> Variant:
    """The distiller, with the optimiser that a fit gives it."""
    module = Distiller(
        str(teacher),
        student.architecture,
        [Relation(teacher_block=options.block)],
        drop_path=0.1,
        compile=compiled,
        gradient_checkpointing=options.checkpointing,
    )
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    module.trainer = pl.Trainer(accelerator="gpu" if CUDA else "cpu", devices=1, precision=precision, **quiet)
    module.configure_model()
    module.backbone.vit.load_state_dict(student.vit.state_dict())
    module.to(DEVICE).train()
    trained = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05, fused=True)
    batch = {"image": pictures(options.batch)}

    def step() -> torch.Tensor:
        with autocast(precision):
            loss = module.losses(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return Variant(f"ours {precision}{' compiled' if compiled else ''}", step)


def pictures(batch: int) -> torch.Tensor:
    """The same images for all variants."""
    return torch.rand(batch, 3, 224, 224, generator=torch.Generator().manual_seed(0)).to(DEVICE)


def timed(take: Callable[[], object]) -> float:
    """Seconds of one step."""
    if CUDA:
        torch.cuda.synchronize()
    start = time.perf_counter()
    take()
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak(variant: Variant) -> str:
    """Peak memory of one step on a GPU; on a CPU the process's so far, to be read with ``--only``."""
    if not CUDA:
        return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB"
    torch.cuda.reset_peak_memory_stats()
    variant.step()
    return f"{torch.cuda.max_memory_allocated() / 2**30:.2f} GiB"


def matmul_peak() -> float:
    """FLOP/s of a large bfloat16 product, measured here."""
    size = 8192 if CUDA else 2048
    a = torch.randn(size, size, device=DEVICE, dtype=torch.bfloat16)
    return 2 * size**3 / min(timed(lambda: a @ a) for _ in range(10))


def flops(variant: Variant) -> int:
    """Matrix-product operations of a step, as PyTorch counts them; the relation operator's own are not among them."""
    with FlopCounterMode(display=False) as counter:
        variant.step()
    return counter.get_total_flops()


def add_arguments(parser: argparse.ArgumentParser, batch: int, rounds: int) -> None:
    """Options of every benchmark of a distillation step: the pair of networks, the batch, how often it is taken."""
    parser.add_argument("--teacher", default="vit_base_patch16_224", help="timm's name; random weights")
    parser.add_argument("--student", default="vit_tiny_patch16_224")
    parser.add_argument("--block", type=int, default=12, help="the teacher's target block")
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--rounds", type=int, default=rounds)


def main() -> None:
    """Run the variants in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, *SIZE)
    parser.add_argument("--compile", action="store_true", help="add ours with compiled blocks")
    parser.add_argument("--checkpointing", action="store_true", help="ours with gradient checkpointing")
    parser.add_argument("--only", default="", help="run one variant, such as 'ours bf16-mixed'")
    options = parser.parse_args()

    torch.manual_seed(0)
    teacher, student = Backbone(Architecture(options.teacher)), Backbone(Architecture(options.student))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "teacher.safetensors"
        weights.export(teacher, file, {})
        variants = []
        for precision in ("32-true", "bf16-mixed"):
            makers: dict[str, Callable[[], Variant]] = {
                f"baseline {precision}": lambda p=precision: published(options, copied(teacher), copied(student), p),
                f"ours {precision}": lambda p=precision: ours(options, file, student, p, False),
            }
            if options.compile:
                makers[f"ours {precision} compiled"] = lambda p=precision: ours(options, file, student, p, True)
            variants += [make() for name, make in makers.items() if options.only in ("", name)]

        first = {variant.name: float(variant.step()) for variant in variants}
        seconds: dict[str, list[float]] = {variant.name: [] for variant in variants}
        for _ in range(options.rounds):
            for variant in variants:
                variant.step()  # each is timed in its own steady state, not in the allocator's of the one before
                seconds[variant.name].append(timed(variant.step))
        show(options, variants, seconds, first)


def copied(network: Backbone) -> Backbone:
    """The same weights in another object."""
    twin = Backbone(network.architecture)
    twin.vit.load_state_dict(network.vit.state_dict())
    set_drop_path(twin.vit, 0.1, "constant")  # acts in the student alone: the teacher is in eval mode
    return twin


def show(options: argparse.Namespace, variants: list[Variant], seconds: dict[str, list[float]], first: Any) -> None:
    """Print medians, ratios and memory."""
    card = torch.cuda.get_device_name() if CUDA else f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    table = Table(title=f"{options.teacher} block {options.block} -> {options.student}, batch {options.batch}, {card}")
    for column in ("step", "first loss", "median", "images/s", "x float32 baseline", "x same precision", "peak memory"):
        table.add_column(column, justify="left" if column == "step" else "right")
    if CUDA:
        table.add_column("of matmul peak", justify="right")
        ceiling = matmul_peak()
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for variant in variants:
        name, time_taken = variant.name, medians[variant.name]
        same = medians.get(name.replace("ours", "baseline").replace(" compiled", ""))
        row = [name, f"{first[name]:.4f}", f"{1000 * time_taken:.0f} ms", f"{options.batch / time_taken:.1f}"]
        row += [f"{base / time_taken:.2f}" if base else "-" for base in (medians.get("baseline 32-true"), same)]
        row.append(peak(variant))
        if CUDA:
            row.append(f"{flops(variant) / time_taken / ceiling:.0%}")
        table.add_row(*row)
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
