"""``tinymim.distill``: a distillation in one call of Python, as a run that resumes like any other."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy
import yaml
from torch.utils.data import DataLoader

from tinymim.argument_types import named_arguments
from tinymim.data import opened
from tinymim.errors import TinymimError, several
from tinymim.near_names import strangers
from tinymim.safety import text
from tinymim.teachers import locate
from tinymim.training import fit, run_folder
from tinymim.training.call_mistakes import ARGUMENTS, mistakes
from tinymim.training.python_arguments import in_python
from tinymim.vit.backbone import Backbone
from tinymim.vit.description import Architecture

TARGETS = {"relation": "Relation", "feature": "Feature", "attention": "AttentionMap", "cls": "CLS", "logits": "Logits"}
"""Targets of the project by short name."""

WARMUP = 0.05
"""Share of the epochs in which the learning rate rises: 15 of 300, as in the paper."""


@named_arguments
def distill(
    teacher: str | Path,
    student: str | Architecture,
    data: Any,
    *,
    targets: str | Sequence[str | Mapping[str, Any]] = "relation",
    epochs: int = 100,
    out: str | Path = "runs/distilled",
    overwrite: bool = False,
    held_out: Any = None,
    image_size: int | None = None,
    batch_size: int = 128,
    base_lr: float = 1.5e-4,
    teacher_cache: int | None = None,
    num_workers: int | str = "auto",
    devices: int | str = 1,
    precision: str = "auto",
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> Backbone:
    """Distil a teacher into a student, and return the student (TinyMIM, arXiv 2301.01296).

    It is a run of ``tinymim fit`` in the folder ``out``: called again with the same arguments it goes on where it was
    cut off, exactly, and returns at once where it is done; with more ``epochs`` it goes on, and with other arguments,
    or other images, it is refused. Not looked at are how it is done (workers, accelerator, loggers), and of images all
    but their number and labels, the names and sizes of files, and the pixels of some of a data set: 64 of a
    ``TensorDataset``, 16 of any other that gives the same ones when it is asked again.

    Args:
        teacher: a card's name (``tinymim teachers``), ``timm:NAME``, or the path of a checkpoint.
        student: timm's name of a ViT, which takes the teacher's image size and patches, and the paper's fixed
            positions; or an :class:`Architecture`.
        data: a folder of images, in any layout; or a map-style data set of PyTorch, torchvision or Hugging Face.
            Labels are not used but for 10-NN figures.
        targets: names (``relation``, ``feature``, ``attention``, ``cls``, ``logits``), or class paths with their
            arguments as recipes have them: ``{"class_path": "mine.Gram", "init_args": {...}}``.
        epochs: passes over the images.
        out: folder of the run; a new or an empty one, or that of a run.
        overwrite: begin again in a folder that holds a run, and lose that.
        held_out: a data set of ``data``'s kind to measure on; ``None`` keeps some of ``data`` from training.
        image_size: side of the images in pixels; ``None`` is the teacher's.
        batch_size: images in a step of one device.
        base_lr: learning rate for a total batch of 256; the paper's is for 300 epochs of ImageNet, and small sets want
            up to 30 times as much.
        teacher_cache: views of each image that the teacher is run for, and read from disk from then on.
        num_workers: loading processes.
        devices: of the accelerator; more than one, over all nodes, only for a folder of images.
        precision: Lightning's, or ``auto``, the fastest here.
        seed: of everything random.
        options: of the recipe by dotted name, such as ``{"model.drop_path": 0.0, "trainer.max_steps": 100}``; none
            that is an argument here.

    Returns:
        The student in eval mode, on the CPU; see :func:`load`.

    Raises:
        TinymimError: a mistake in the arguments, with its remedy; all mistakes together, before anything runs.
    """
    if errors := mistakes(dict(locals())):
        raise several("tinymim.distill cannot run", errors)
    out = Path(out)
    with in_python(ARGUMENTS):
        run_folder.check(out, resume=False, overwrite=True)  # other files, and no run, are no place for one
    network, size = _student(str(teacher), student, image_size)
    listed = [targets] if isinstance(targets, str | Mapping) else targets
    common = {"image_size": size, "batch_size": batch_size, "num_workers": num_workers, "seed": seed}
    source = _data(data, held_out)
    recipe = {
        "name": out.name,
        "seed_everything": seed,
        "trainer": {"max_epochs": epochs, "devices": devices, "precision": precision},
        "data": {**source, "init_args": {**common, **source["init_args"]}},
        "model": {
            "class_path": "tinymim.methods.Distiller",
            "init_args": {
                "teacher": str(teacher),
                "student": network.record(),
                "targets": [_target(target) for target in listed],
                "teacher_cache": teacher_cache,
                "optim": {"base_lr": base_lr, "warmup_epochs": WARMUP * epochs},
            },
        },
    }
    words = [f"--{name}={_flow(value)}" for name, value in (options or {}).items()]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{out.name}.yaml"
        path.write_text(yaml.safe_dump(_plain(recipe)))
        begin = ["--overwrite", "true"] if overwrite else ["--ckpt_path", "last"]
        with in_python(ARGUMENTS):
            fit.run("fit", ["--config", str(path), "--run_dir", str(out), *begin, *words], same=True)
    return load(out / "checkpoints" / "last.ckpt")


@named_arguments
def load(source: str | Path) -> Backbone:
    """Load a network, as a plain ``torch.nn.Module`` in eval mode on the CPU, which can be trained.

    Its ``features(images)``, or the network called, are ``(B, D)``, the mean patch token of its output block, and
    ``read(images, taps)`` gives tokens by :class:`Tap`, of images ``(B, 3, H, W)`` in [0, 1]; ``vit`` is
    timm's network inside of it.

    Args:
        source: a card's name (``tinymim teachers``), ``timm:NAME``, or the path of a checkpoint or of an export.

    Raises:
        TinymimError: nothing there, or weights that do not say what they are.
    """
    if not isinstance(source, str | Path):
        raise TinymimError(f"source: {source!r} is neither a text nor a path")
    with in_python({"teacher": "source"}):
        located = locate.locate(str(source))
        backbone, _ = located.load(classifier=bool(located.classes))
    return backbone.requires_grad_()


def _student(teacher: str, student: str | Architecture, image_size: int | None) -> tuple[Architecture, int]:
    """The student's architecture, and the side of its images: both follow the teacher where they are left open."""
    taught = locate.locate(teacher).skeleton
    size = taught.image_size[0] if image_size is None else image_size
    if isinstance(student, Architecture):
        return student, size
    grid = {"img_size": size, "patch_size": taught.image_size[0] // taught.grid[0]}
    mean, std = taught.architecture.mean, taught.architecture.std
    return Architecture(student, grid, pos_embed="sincos", mean=mean, std=std), size


def _target(target: str | Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(target, str):
        return dict(target)
    if target not in TARGETS:
        raise TinymimError(
            f"targets: no target is called {strangers([target], TARGETS)}; or give a class path with arguments"
        )
    return {"class_path": f"tinymim.targets.{TARGETS[target]}"}


def _data(data: Any, held_out: Any) -> dict[str, Any]:
    """What a recipe says of the data, under ``data``."""
    if isinstance(data, str | Path):
        if held_out is not None:
            raise TinymimError("held_out: a folder's own val/ is held out, or a share of it; leave held_out out")
        return {"class_path": "tinymim.data.ImageFolderData", "init_args": {"root": str(data)}}
    if isinstance(data, DataLoader | pl.LightningDataModule):
        raise TinymimError(
            f"data: a {type(data).__name__}; give its data set, or fit tinymim.Distiller in a Trainer of your own, "
            "which takes any loader"
        )
    if type(data).__module__.partition(".")[0] != "datasets":
        names = {"dataset": opened.name_of(data), "val_dataset": None if held_out is None else opened.name_of(held_out)}
        return {"class_path": "tinymim.data.ObjectData", "init_args": names}
    if held_out is not None:
        data = {"train": data, "validation": held_out}
    return {"class_path": "tinymim.data.HFData", "init_args": {"dataset": opened.name_of(data)}}


def _plain(value: Any) -> Any:
    """A value as text can hold it, numbers of NumPy among them as Python's."""

    def number(other: Any) -> Any:
        if isinstance(other, Path):
            return str(other)
        if isinstance(other, numpy.generic):
            return other.item()
        raise TinymimError(f"{type(other).__name__}: a recipe holds plain values, and {text.brief(other)} is none")

    return json.loads(json.dumps(value, default=number))


def _flow(value: Any) -> str:
    """A value in one line of YAML."""
    return yaml.safe_dump(_plain(value), default_flow_style=True, width=10**6).removesuffix("...\n").strip()
