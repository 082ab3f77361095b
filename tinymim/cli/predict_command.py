"""``tinymim predict CHECKPOINT --images FOLDER``: features or classes of any images, without the training's recipe."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.data import DataLoader

from tinymim import files
from tinymim.cli.network_command_options import PRECISIONS
from tinymim.cli.network_command_options import predict as parser
from tinymim.data.data_module import MOST_WORKERS, PER_CORE
from tinymim.data.device_augment import unit
from tinymim.data.image_files import EXTENSIONS, image_files
from tinymim.data.listed_images import ListedImages
from tinymim.data.passed_over import PassedOver
from tinymim.data.transforms import crop_problems
from tinymim.device import usable_device
from tinymim.errors import TinymimError, counted, field_called
from tinymim.export import source
from tinymim.log import say
from tinymim.precision import AUTO, autocast, one_off
from tinymim.safety.console import PlainConsole
from tinymim.system import cores
from tinymim.training import data_source
from tinymim.training.predictions import Columns, check_ending, write_table
from tinymim.training.progress import clock
from tinymim.vit.taps import LOGITS, Tap

EVERY = 10.0
"""Seconds between two lines on how far it is, where there is no terminal."""


def main(arguments: list[str]) -> int:
    """Run ``tinymim predict CHECKPOINT --images FOLDER``."""
    options = parser().parse_args(arguments)
    if options.classes and (options.block or options.pool != "mean"):
        raise TinymimError("--block, --pool: of features, and --classes writes none; leave them out")
    with field_called("checkpoint"):
        predict(**vars(options))
    return 0


def predict(
    checkpoint: str,
    images: Path,
    out: Path,
    overwrite: bool = False,
    batch_size: int = 64,
    num_workers: int | str = 0,
    device: str = "auto",
    precision: str = AUTO,
    block: int | None = None,
    pool: str = "mean",
    classes: bool = False,
    crop_pct: float | None = None,
) -> None:
    """Write one row an image, ordered by path: ``path`` relative to the folder; and ``features``; or ``label``,
    ``class`` where names are known, ``probability`` of that label and ``probabilities`` of all. The arguments are the
    command's.

    Raises:
        TinymimError: nothing to read, no readable image, or nowhere to write.
    """
    check_ending(out)
    if errors := crop_problems(crop_pct):
        raise TinymimError(errors[0].removeprefix("data."))
    if out.exists() and not overwrite:
        raise TinymimError(f"out: {out} is there already; give another, or --overwrite")
    files.check_file("out", out)
    data_source.check_folder(images)
    passed = PassedOver()
    names = sorted(image_files(str(images), passed))
    if not names:
        raise TinymimError(f"images: no images in {images}: looked for {', '.join(EXTENSIONS)}, also in its folders")
    most = PER_CORE * cores()
    num_workers = min(cores(), MOST_WORKERS) if num_workers == "auto" else int(num_workers)
    if not 0 <= num_workers <= most:
        raise TinymimError(f"num_workers: {num_workers} is not from 0 to {most}, {PER_CORE} for each core here")
    for note in passed.notes(str(images)):
        say(f"images: {note}")
    loaded = source.load(checkpoint, classes)
    place = usable_device(device)
    reader = Reader(loaded, block, pool, classes, one_off(PRECISIONS[precision], place), place)
    dataset = ListedImages(str(images), names, reader.size, crop_pct)
    loader = DataLoader(dataset, batch_size, num_workers=num_workers, collate_fn=list)
    broken: list[str] = []
    start = time.perf_counter()
    with files.writing("out", out):
        write_table(out, _batches(loader, reader, names, broken))
    read = len(names) - len(broken)
    rate = read / (time.perf_counter() - start)
    left = f"; {len(broken)} unreadable, left out" if broken else ""
    say(f"wrote {out}: {reader.describe()} of {counted(read, 'image')}, {rate:.0f} images/s{left}")


class Reader:
    """Features or labels of a batch of images.

    Args:
        loaded: the network, with its classifier for ``classes``.
        precision: a trainer's, ``32-true`` or a mixed one.

    Raises:
        TinymimError: a block or a token that the network lacks, or images that are not square.
    """

    def __init__(
        self, loaded: source.Source, block: int | None, pool: str, classes: bool, precision: str, device: torch.device
    ):
        network = self.backbone = loaded.backbone.to(device)
        self.names, self.pool, self.classes, self.device = loaded.classes, pool, classes, device
        self.precision = precision
        self.tap = Tap(network.depth, LOGITS) if classes else Tap(block or network.output_block, "ffn_post")
        network.check([self.tap])
        self.size, width = network.image_size
        if self.size != width:
            raise TinymimError(
                f"checkpoint: it takes images of {self.size}x{width} px, and images are cropped to squares"
            )
        if pool == "cls" and not network.has_cls:
            raise TinymimError(f"pool: cls, but {network.architecture.arch} has no CLS token; use mean")
        if not classes and not network.trained(self.tap):
            say(f"block {self.tap.block} was not trained whole; the output block is {network.output_block}")

    def describe(self) -> str:
        """One line for people."""
        if self.classes:
            return f"labels among {self.backbone.classes} classes"
        pooled = "CLS token" if self.pool == "cls" else "mean patch token"
        return f"{self.backbone.width} features (block {self.tap.block}, {pooled})"

    def __call__(self, images: Tensor) -> Columns:
        """Columns of ``(B, 3, H, W)`` images, uint8 or in [0, 1]."""
        with torch.inference_mode(), autocast(self.precision, self.device):
            read = self.backbone.read(unit(images.to(self.device)), [self.tap])[self.tap].float()
        if not self.classes:
            pooled = read[:, 0] if self.pool == "cls" else read[:, self.backbone.prefix :].mean(dim=1)
            return {"features": pooled.cpu().numpy()}
        probabilities = read.softmax(dim=-1).cpu().numpy()
        labels = probabilities.argmax(axis=1)
        named = {"class": np.array([self.names[label] for label in labels])} if self.names else {}
        best = probabilities[np.arange(len(labels)), labels]
        return {"label": labels, **named, "probability": best, "probabilities": probabilities}


def _batches(loader: DataLoader[Any], reader: Reader, names: list[str], broken: list[str]) -> Iterator[Columns]:
    """Columns of each batch; unreadable images are left out, and added to ``broken``."""
    columns = (TextColumn("images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = PlainConsole(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task, done, began, told = bar.add_task("", total=len(names)), 0, time.monotonic(), time.monotonic()
        for items in loader:
            for index, why in items:
                if isinstance(why, str):
                    broken.append(names[index])
                    console.print(f"unreadable, left out: {names[index]}: {why}", soft_wrap=True)
            good = [(index, image) for index, image in items if not isinstance(image, str)]
            if good:
                # odd bytes of names that are no UTF-8 are written out
                shown = [os.fsencode(names[index]).decode(errors="backslashreplace") for index, _ in good]
                yield {"path": np.array(shown), **reader(torch.stack([image for _, image in good]))}
            bar.advance(task, len(items))
            done, now = done + len(items), time.monotonic()
            if not console.is_terminal and now - told > EVERY:
                told = now
                left = clock((now - began) / done * (len(names) - done))
                say(f"{done} of {counted(len(names), 'image')}, {left} left")
    if len(broken) == len(names):
        raise TinymimError(f"images: none of the {len(names)} can be read, from {names[0]} on")
