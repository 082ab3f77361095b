"""The relation loss, forward and backward: plain PyTorch as published against :func:`tinymim.ops.relation_kl`.

    python benchmarks/relation_kl.py            # a table for this machine: its GPU if there is one, else its CPU
    python benchmarks/relation_kl.py --quick    # fewer runs

Both run in turn in one process; times are medians. Peak extra memory is what a step allocates beyond its inputs: on a
CPU (of Linux) the growth of a fresh process's largest resident size, on a GPU that of ``max_memory_allocated``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the command has it

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from tinymim.ops import relation_kl

Step = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    batch: int
    heads: int
    tokens: int
    teacher_width: int
    student_width: int
    dtype: str
    device: str

    @property
    def flops(self) -> float:
        """Of the products that the definition needs: two logits, two gradients. Recomputation is not counted."""
        pairs = self.batch * self.heads * self.tokens**2
        return 2.0 * pairs * (self.teacher_width + 3 * self.student_width)

    @property
    def map_bytes(self) -> int:
        """Of one relation of all heads in float32."""
        return 4 * self.batch * self.heads * self.tokens**2

    def inputs(self) -> list[Tensor]:
        """Views as a network gives them: ``(B, N, H, D)`` turned into ``(B, H, N, D)``."""
        generator = torch.Generator(self.device).manual_seed(0)

        def tokens(width: int) -> Tensor:
            shape = (self.batch, self.tokens, self.heads, width)
            drawn = torch.randn(shape, generator=generator, device=self.device)
            return drawn.to(getattr(torch, self.dtype)).transpose(1, 2)

        teacher = [tokens(self.teacher_width) for _ in range(2)]
        return [*teacher, *(tokens(self.student_width).requires_grad_() for _ in range(2))]


def published(tq: Tensor, tk: Tensor, sq: Tensor, sk: Tensor) -> Tensor:
    """The method as it is usually written: whole maps, softmax, its logarithm, KL; under autocast unless in float32."""
    with torch.autocast(sq.device.type, dtype=torch.bfloat16, enabled=sq.dtype != torch.float32):
        teacher, student = (
            ((a @ b.transpose(-2, -1)) * a.shape[-1] ** -0.5).softmax(-1) for a, b in ((tq, tk), (sq, sk))
        )
        return F.kl_div(student.log(), teacher, reduction="none").sum(-1).mean()


LOSSES: dict[str, Callable[..., Tensor]] = {"baseline": published, "ours": relation_kl}


def step(loss: Callable[..., Tensor], tokens: list[Tensor]) -> Step:
    """Forward and backward."""
    return lambda: torch.autograd.grad(loss(*tokens), tokens[2:])


def seconds(run: Step, device: str) -> float:
    """Of one run."""
    if device == "cpu":
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000


def in_turn(runs: list[Step], device: str, times: int) -> list[float]:
    """Median seconds of each, run one after the other ``times`` times.

    Each is run once more before it is timed: else it would pay for pages that the one before gave back to the system.
    """
    taken: list[list[float]] = [[] for _ in runs]
    for _ in range(times):
        for run, times_taken in zip(runs, taken, strict=True):
            run()
            times_taken.append(seconds(run, device))
    return [statistics.median(values) for values in taken]


def extra_memory(name: str, case: Case) -> int:
    """Peak bytes of a step of ``LOSSES[name]`` beyond its inputs; a fresh process's on a CPU."""
    if case.device == "cpu":
        command = [sys.executable, __file__, "--memory-of", name, json.dumps(asdict(case))]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    run = step(LOSSES[name], case.inputs())
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    return torch.cuda.max_memory_allocated() - before


def grown(name: str, case: Case) -> int:
    """Growth in bytes of this process's largest resident size by one step."""
    small = Case(**{**asdict(case), "tokens": 16})
    step(LOSSES[name], small.inputs())()  # libraries are loaded before the count begins
    run = step(LOSSES[name], case.inputs())
    before = largest_size()
    run()
    return largest_size() - before


def largest_size() -> int:
    """Bytes resident at most so far. Not ``ru_maxrss``, which a child inherits from its parent."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def matrix_peak(dtype: str) -> float:
    """FLOP/s of a large square product on this GPU, the best of ten."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=getattr(torch, dtype)) for _ in range(2))
    a @ b
    return 2 * 8192**3 / min(seconds(lambda: a @ b, "cuda") for _ in range(10))


def gigabytes(count: float) -> str:
    """Of bytes, for people."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def cases(device: str) -> list[Case]:
    """The rows, the last one with a map so large that the baseline may not fit."""
    if device == "cpu":
        # ViT-B to ViT-T. Maps of more than 32 MB (a batch over 17) come from the system anew at every step.
        sizes = [(16, 12, 197, 64, 16), (64, 12, 197, 64, 16), (2, 12, 1025, 64, 16)]
        long = Case(1, 12, 4097, 64, 16, "float32", device)
    else:
        # ViT-B to ViT-T, and ViT-L to ViT-B.
        sizes = [(256, 12, 197, 64, 16), (256, 16, 197, 64, 48), (32, 12, 1025, 64, 16), (32, 16, 1025, 64, 48)]
        long = Case(32, 12, 4097, 64, 16, "bfloat16", device)
    return [*(Case(*size, dtype, device) for size in sizes for dtype in ("float32", "bfloat16")), long]


def row(case: Case, times: int) -> list[str]:
    """What the table says of a case."""
    names = list(LOSSES)
    memory = {}
    for name in names:
        try:
            memory[name] = gigabytes(extra_memory(name, case))
        except torch.OutOfMemoryError:
            memory[name] = f"does not fit; a map is {gigabytes(case.map_bytes)}"
    fitting = [name for name in names if not memory[name].startswith("does not fit")]
    tokens = case.inputs()
    took = dict(
        zip(fitting, in_turn([step(LOSSES[name], tokens) for name in fitting], case.device, times), strict=True)
    )
    cells = [f"{case.batch} x {case.heads} x {case.tokens}, {case.teacher_width} / {case.student_width}", case.dtype]
    cells += [f"{took[name] * 1e3:.2f} ms" if name in took else "-" for name in names]
    cells += [f"{took['baseline'] / took['ours']:.1f}x" if len(took) == 2 else "-", *memory.values()]
    if case.device == "cuda":
        cells.append(f"{case.flops / took['ours'] / matrix_peak(case.dtype):.1%}")
    return cells


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 rounds instead of 15")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch on a CPU (default: 2)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory_of:
        name, case = options.memory_of
        print(grown(name, Case(**json.loads(case))))
        return

    gpu = options.device == "cuda"
    where = torch.cuda.get_device_name() if gpu else f"{options.threads} CPU threads"
    table = Table(title=f"relation_kl, forward and backward, on {where}; PyTorch {torch.__version__}")
    headings = ["B x H x N, widths", "type", "baseline", "ours", "ratio", "extra memory: baseline", "ours"]
    for heading in headings + ["matrix peak"] * gpu:
        table.add_column(heading, justify="right")
    rows = cases(options.device)
    for case in track(rows, "measuring", console=Console(stderr=True), transient=True):
        times = 3 if options.quick else 15
        table.add_row(*row(case, times if case is not rows[-1] else min(times, 5)))
    Console(width=None if sys.stdout.isatty() else 140).print(table)


if __name__ == "__main__":
    main()
