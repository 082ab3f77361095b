"""One distillation step, ours beside lightly-train's, torchdistill's, timm's and TinyMIM's as published.

    uv venv PEERS && uv pip install --python PEERS -c constraints.txt -e . lightly-train==0.18.0 torchdistill==1.1.5
    PEERS/bin/python benchmarks/peers.py                                      # float32, batch 8
    PEERS/bin/python benchmarks/peers.py --precision bf16-mixed --batch 16
    PEERS/bin/python benchmarks/peers.py --only tinymim torchdistill --cache  # ours once more, from the teacher cache

An environment of its own, as the project needs neither package; the pinned versions go together. Without one of them
the rest is run, and a line says so. Same teacher and student (random weights, written to files here, nothing is
fetched), batch, images and precision; data loading is left out of all. Each row has a process of its own, so that
nobody's allocator or imports are another's, and only one computes at a time: a round is one untimed and one timed step
of each in turn. A ratio is the median of the rounds' ratios, so that other work on the machine falls on both sides.
Memory on a CPU is the process's highest while it steps, beside what the imports alone took; on a GPU what it allocates.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import logging
import math
import multiprocessing
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path

import peer_steps
import step
import torch
from rich.console import Console
from rich.table import Table

from tinymim.methods import Distiller
from tinymim.teachers import weights
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone

CACHED = "tinymim cached"


def tinymim(options: argparse.Namespace) -> step.Variant:
    """Ours."""
    student, *_ = weights.load(options.folder / "student.safetensors")
    return step.ours(options, options.folder / "teacher.safetensors", student, options.precision, False)


def cached(options: argparse.Namespace) -> step.Variant:
    """Ours from the second pass on, set up by ``teacher_cache.py``, which draws its own images and keeps its loss."""
    import teacher_cache

    options.dir = str(options.folder)
    take = teacher_cache.variants(options, options.folder / "teacher.safetensors", ["from the cache"])["from the cache"]

    def stepped() -> torch.Tensor:
        take()
        return torch.tensor(float("nan"))

    return step.Variant(CACHED, stepped)


def published(options: argparse.Namespace) -> step.Variant:
    """TinyMIM's own."""
    teacher, student = (weights.load(options.folder / f"{role}.safetensors")[0] for role in ("teacher", "student"))
    return step.published(options, step.copied(teacher), step.copied(student), options.precision)


@dataclass(frozen=True)
class Peer:
    """One row.

    Args:
        build: makes the step, in the row's own process.
        computes: what a step of it is, for people.
        imports: the module of the package that it starts from.
        pinned: the package's version, or the start of it.
    """

    build: Callable[[argparse.Namespace], step.Variant]
    computes: str
    imports: str = "tinymim.modules"
    pinned: str = ""

    def problem(self) -> str | None:
        """Why it cannot be run here, in one line."""
        options = {name for base in Distiller.__mro__ for name in inspect.signature(base.__init__).parameters}
        if self.build is cached and "teacher_cache" not in options:
            return "the teacher cache: this version's Distiller has no teacher_cache"
        if not self.pinned:
            return None
        package = self.imports.split(".")[0].replace("_", "-")
        try:
            found = metadata.version(package)
        except metadata.PackageNotFoundError:
            return f"{package} {self.pinned} is not installed (how: first lines of this script)"
        if f"{found}.".startswith(f"{self.pinned}."):
            return None
        return f"{package} {found} is installed, and {self.pinned} is what it is compared with"


PEERS = {
    "tinymim": Peer(
        tinymim,
        "teacher up to the target block, student up to its last q, k, v; KL between the softmax of QK and VV relations "
        "of all heads, as one operator; AdamW, fused",
    ),
    CACHED: Peer(
        cached,
        "the student's part and its loss, with what the teacher's target block takes read from the disk in int8, "
        "checked and projected",
    ),
    "TinyMIM published": Peer(
        published,
        "the same, with explicit attention and whole softmax maps of both networks, as the paper's code computes it; "
        "AdamW",
    ),
    "lightly-train": Peer(
        peer_steps.lightly_train,
        "DistillationV3: both networks whole; mixup; KL between patch-to-patch similarities within an image, and "
        "between similarities of the patches' mean to a queue of 8192 of the teacher's; two projections; AdamW, "
        "clipped. Of a timm ViT it reads the mean of the patch tokens, whatever its global_pool (of its own DINOv2 "
        "networks the class token), and trains no class token: say which token is read when features are compared",
        "lightly_train._commands.train_helpers",
        "0.18",
    ),
    "torchdistill": Peer(
        peer_steps.torchdistill,
        "DistillationBox, forward hooks on the qkv projections of both target blocks: both networks whole; the same "
        "relation loss, written in plain PyTorch; AdamW",
        "torchdistill.core.distillation",
        "1.1.5",
    ),
    "timm": Peer(
        peer_steps.timm_task,
        "FeatureDistillationTask: both networks whole; MSE of the class token after a projection, and cross-entropy "
        "with labels; AdamW",
        "timm.task",
        "1.0",
    ),
}


def worker(pipe: Connection, peer: Peer, options: argparse.Namespace) -> None:
    """A row's process: send the first loss, then the seconds of a step whenever asked, and at the end its memory."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    importlib.import_module(peer.imports)
    imported = 0.0 if step.CUDA else resident("VmRSS")
    variant = peer.build(options)
    pipe.send(float(variant.step()))
    forget_peak()
    while pipe.recv():
        variant.step()  # each is timed in its own steady state
        pipe.send(step.timed(variant.step))
    pipe.send((peak(), imported))


def forget_peak() -> None:
    """Count the highest memory from now on."""
    if step.CUDA:
        torch.cuda.reset_peak_memory_stats()
    elif (file := Path("/proc/self/clear_refs")).exists():
        file.write_text("5")


def peak() -> float:
    """Bytes at most since :func:`forget_peak`; 0 on a CPU outside Linux."""
    return torch.cuda.max_memory_allocated() if step.CUDA else resident("VmHWM")


def resident(field: str) -> float:
    """``VmRSS`` or ``VmHWM`` of this process in bytes; 0 outside Linux."""
    file = Path("/proc/self/status")
    lines = file.read_text().splitlines() if file.exists() else []
    return next((1024.0 * int(line.split()[1]) for line in lines if line.startswith(field)), 0.0)


@dataclass
class Measured:
    """What a row's process said: its first loss, seconds of each round, bytes at most and after the imports."""

    loss: float
    seconds: list[float]
    peak: float = 0.0
    imported: float = 0.0


def measure(chosen: dict[str, Peer], options: argparse.Namespace) -> dict[str, Measured]:
    """Start a process a row and let them step in turn."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for name, peer in chosen.items():
        pipes[name], theirs = context.Pipe()
        processes.append(context.Process(target=worker, args=(theirs, peer, options), daemon=True))
        processes[-1].start()
        theirs.close()  # so that a row that dies ends the waiting for it
    try:
        measured = {name: Measured(pipe.recv(), []) for name, pipe in pipes.items()}
        for _ in range(options.rounds):
            for name, pipe in pipes.items():
                pipe.send(True)
                measured[name].seconds.append(pipe.recv())
        for name, pipe in pipes.items():
            pipe.send(False)
            measured[name].peak, measured[name].imported = pipe.recv()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        sys.exit("a row's process ended; what it said is above")
    finally:
        for process in processes:
            process.terminate()
    return measured


def table(measured: dict[str, Measured], options: argparse.Namespace) -> Table:
    """Medians, and ratios to the first row round by round."""
    cpu = f"{platform.machine()} CPU, {torch.backends.cpu.get_cpu_capability()}, {options.threads} threads"
    where = torch.cuda.get_device_name() if step.CUDA else cpu
    shape = f"{options.teacher} block {options.block} -> {options.student}, 224, batch {options.batch}"
    made = Table(title=f"{shape}, {options.precision}, {options.rounds} rounds; {where}")
    first = next(iter(measured))
    for column in (
        "step",
        "first loss",
        "median",
        "images/s",
        f"time / {first}",
        "range",
        "peak memory",
        "of it imports",
    ):
        made.add_column(column, justify="left" if column == "step" else "right", no_wrap=True)
    for name, row in measured.items():
        ratios = [mine / base for mine, base in zip(row.seconds, measured[first].seconds, strict=True)]
        middle = statistics.median(row.seconds)
        made.add_row(
            name,
            "-" if math.isnan(row.loss) else f"{row.loss:.4f}",
            f"{1000 * middle:.0f} ms",
            f"{options.batch / middle:.1f}",
            f"{statistics.median(ratios):.2f}",
            f"{min(ratios):.2f} to {max(ratios):.2f}",
            *(f"{size / 2**30:.2f} GiB" if size else "-" for size in (row.peak, row.imported)),
        )
    return made


def write_networks(options: argparse.Namespace) -> None:
    """The two networks that all rows load, with random weights."""
    torch.manual_seed(0)
    for role in ("teacher", "student"):
        network = Backbone(Architecture(getattr(options, role)))
        weights.export(network, options.folder / f"{role}.safetensors", {})


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    step.add_arguments(parser, 8, 5)
    parser.add_argument("--precision", choices=["32-true", "bf16-mixed"], default="32-true")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of PyTorch, on a CPU")
    rows = [name for name in PEERS if name != CACHED]
    parser.add_argument("--only", nargs="+", choices=rows, default=rows, metavar="ROW", help=", ".join(rows))
    parser.add_argument("--cache", action="store_true", help="ours once more, with the teacher cache filled")
    parser.set_defaults(checkpointing=False)  # which step.py looks at
    options = parser.parse_args(given)
    options.only = [*options.only, CACHED] if options.cache else options.only
    return options


def main() -> None:
    """Measure the rows that can be run here and print the table, and what each row computes."""
    options, console = arguments(), Console(width=140, highlight=False)
    chosen = {name: PEERS[name] for name in options.only}
    for name, peer in list(chosen.items()):
        if problem := peer.problem():
            console.print(f"left out: {problem}")
            del chosen[name]
    if not chosen:
        sys.exit("nothing is left to measure")
    with tempfile.TemporaryDirectory() as folder:
        options.folder = Path(folder)
        write_networks(options)
        measured = measure(chosen, options)
    console.print(table(measured, options))
    for name, peer in chosen.items():
        console.print(f"{name}: {peer.computes}")


if __name__ == "__main__":
    main()
