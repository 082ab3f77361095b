"""A distillation step with the teacher in it, with what it gave read from the cache, and without any: medians of steps
taken in turn in one process.

    python benchmarks/teacher_cache.py                                    # ViT-B -> ViT-T, 224, float32, batch 16
    python benchmarks/teacher_cache.py --teacher vit_large_patch16_224 --block 24 --batch 8
    python benchmarks/teacher_cache.py --peaks                            # peak memory, each variant in its own process
    python benchmarks/teacher_cache.py --digits 30                        # the demo's pre-training, with and without

A step is forward, loss, backward and AdamW; a cached one fetches, checks and decodes its records too, and a filling one
quantises and writes them. Images are drawn beforehand. "targets at hand" has the teacher's readings in memory, "student
alone" has no loss either, but the mean square of what it would compare.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
import torch
from rich.console import Console
from rich.table import Table
from step import CUDA, DEVICE, SIZE, add_arguments, timed

from tinymim.data import ShapesData
from tinymim.data.sampler import Draw
from tinymim.methods import Distiller
from tinymim.methods.cached_teacher import CachedTeacher
from tinymim.targets import Relation
from tinymim.teachers import weights
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone

VARIANTS = ("teacher in every step", "filling", "from the cache", "targets at hand", "student alone")


def distiller(options: argparse.Namespace, teacher: Path, data: ShapesData, views: int) -> Distiller:
    """Ready to step, on the device."""
    torch.manual_seed(0)
    module = Distiller(
        str(teacher),
        Architecture(options.student),
        [Relation(teacher_block=options.block)],
        drop_path=0.1,
        teacher_cache=views,
        teacher_cache_dir=options.dir,
    )
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(accelerator="gpu" if CUDA else "cpu", devices=1, precision=options.precision, **quiet)
    trainer.datamodule = data  # type: ignore[attr-defined]
    module.trainer = trainer
    module.configure_model()
    return module.to(DEVICE).train()


def variants(options: argparse.Namespace, teacher: Path, names: list[str]) -> dict[str, Callable[[], None]]:
    """The steps by name."""
    data = ShapesData(image_size=224, batch_size=options.batch, train_images=options.batch, held_out_images=1)
    data.setup("fit")
    data.repeat(1)
    batch = torch.utils.data.default_collate([data.train[Draw(0, index)] for index in range(options.batch)])
    images, view = batch["image"].to(DEVICE), batch["view"]
    autocast = torch.autocast(DEVICE.type, torch.bfloat16, enabled=options.precision == "bf16-mixed")

    def step(module: Distiller, loss: Callable[[], torch.Tensor]) -> Callable[[], None]:
        trained = [p for p in module.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05, fused=True)

        def take() -> None:
            with autocast:
                value = loss()
            optimizer.zero_grad()
            value.backward()
            optimizer.step()

        return take

    def made(name: str) -> Callable[[], None]:
        module = distiller(options, teacher, data, int(name in ("filling", "from the cache")))
        frozen, target = module.frozen, module.targets[0]
        if name in ("teacher in every step",):
            return step(module, lambda: module.losses({"image": images})["loss"])
        if isinstance(frozen, CachedTeacher):
            again = list(range(options.batch))

            def cached() -> torch.Tensor:
                stored = frozen.fetch(view, DEVICE)
                stored["records"] = {k: v.to(DEVICE, non_blocking=True) for k, v in stored["records"].items()}
                if name == "filling":
                    stored["missing"] = again
                return module.losses({"image": images, "stored": stored})["loss"]

            take = step(module, cached)
            if name == "from the cache":
                take()
                frozen.rest(0)  # of the first step, which may have filled
                frozen.rest(0)
            return take
        if name == "targets at hand":
            with torch.no_grad(), autocast:
                given = frozen.read(images)
            module._frozen = None
            taps = target.student_taps()
            return step(module, lambda: sum(target(given, module.backbone.read(images, taps)).values()))  # type: ignore[arg-type]
        module._frozen = None
        taps = target.student_taps()
        return step(module, lambda: sum(x.float().square().mean() for x in module.backbone.read(images, taps).values()))  # type: ignore[arg-type]

    return {name: made(name) for name in names}


def peak() -> str:
    """Peak memory so far."""
    if CUDA:
        return f"{torch.cuda.max_memory_allocated() / 2**30:.2f} GiB"
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB"


def machine() -> str:
    """What it runs on."""
    if CUDA:
        return torch.cuda.get_device_name()
    return f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"


def read_alone(options: argparse.Namespace, teacher: Path) -> list[float]:
    """Seconds of fetching, checking, decoding and projecting a batch."""
    data = ShapesData(image_size=224, batch_size=options.batch, train_images=options.batch, held_out_images=1)
    data.setup("fit")
    data.repeat(1)
    view = torch.tensor([[0, 0, index] for index in range(options.batch)])
    frozen = distiller(options, teacher, data, 1).frozen
    assert isinstance(frozen, CachedTeacher)
    images = torch.zeros(options.batch, 3, 224, 224, device=DEVICE)

    def read() -> None:
        stored = frozen.fetch(view, DEVICE)
        stored["records"] = {k: v.to(DEVICE, non_blocking=True) for k, v in stored["records"].items()}
        assert not stored["missing"]
        frozen.read(images, stored=stored)

    read()
    return [timed(read) for _ in range(options.rounds)]


def steps(options: argparse.Namespace, teacher: Path) -> None:
    """Run the variants in turn and print the table."""
    names = [name for name in VARIANTS if options.only in ("", name)]
    made = variants(options, teacher, names)
    seconds: dict[str, list[float]] = {name: [] for name in made}
    for take in made.values():
        take()
    for _ in range(options.rounds):
        for name, take in made.items():
            seconds[name].append(timed(take))
    if options.only:
        print(f"{options.only}: peak {peak()}")
        return
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    title = f"{options.teacher} block {options.block} -> {options.student}, batch {options.batch}, {options.precision}"
    table = Table(title=f"{title}, {machine()}")
    for column in ("step", "median", "x the teacher's", "x from the cache"):
        table.add_column(column, justify="left" if column == "step" else "right")
    for name, median in medians.items():
        ratios = (medians["teacher in every step"] / median, medians["from the cache"] / median)
        table.add_row(name, f"{1000 * median:.0f} ms", *(f"{ratio:.2f}" for ratio in ratios))
    Console(width=110).print(table)
    teachers = medians["teacher in every step"] - medians["targets at hand"]
    read = statistics.median(read_alone(options, teacher))
    print(f"reading: {1000 * read:.0f} ms, {read / medians['targets at hand']:.1%} of the student's step with its loss")
    extra = medians["filling"] - medians["teacher in every step"]
    print(f"filling: {1000 * extra:.0f} ms beside the teacher's {1000 * teachers:.0f}, {extra / teachers:.1%}")


def digits(options: argparse.Namespace) -> None:
    """The demo's pre-training in turn without a cache, with an empty one, and with what that left."""
    folder = Path(options.dir)
    common = ["fit", "--config", "relation_digits", f"--trainer.max_epochs={options.digits}", "--overwrite=true"]
    common += [f"--trainer.precision={options.precision}", "--trainer.enable_progress_bar=false"]
    kinds = {"without": "null", "filling": "4", "filled": "4"}
    for name, views in kinds.items():
        command = [*common, f"--run_dir={folder / name}", f"--model.teacher_cache={views}"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        variables = {**os.environ, "TINYMIM_TEACHER_CACHE": str(folder / "cache")}
        subprocess.run([sys.executable, "-m", "tinymim", *command], env=variables, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        results = json.loads((folder / name / "results.json").read_text())
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        knn = results["metrics"]["val/knn_top1"]
        print(f"{name}: {results['seconds']:.0f} s of training, {used:.0f} s of CPU with set-up; 10-NN {knn:.1%}")
    print(machine())


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, *SIZE)
    parser.add_argument("--precision", default="32-true", choices=("32-true", "bf16-mixed"))
    parser.add_argument("--only", default="", choices=("", *VARIANTS), help="one variant alone, for its peak memory")
    parser.add_argument("--peaks", action="store_true", help="each variant in a process of its own")
    parser.add_argument("--digits", type=int, default=0, metavar="EPOCHS", help="the demo in place of a step")
    parser.add_argument("--dir", default="", help="where the cache lies; a temporary folder by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        options.dir = options.dir or folder
        if options.digits:
            return digits(options)
        if options.peaks:
            rest = [a for a in sys.argv[1:] if a != "--peaks"]
            for name in VARIANTS:
                subprocess.run([sys.executable, __file__, *rest, "--dir", options.dir, "--only", name], check=True)
            return None
        teacher = Path(options.dir) / "teacher.safetensors"
        if not teacher.exists():
            torch.manual_seed(0)
            weights.export(Backbone(Architecture(options.teacher)), teacher, {})
        return steps(options, teacher)


if __name__ == "__main__":
    main()
