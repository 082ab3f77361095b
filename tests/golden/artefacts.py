"""Make the folder ``artefacts`` anew with the build at hand: ``python -m tests.golden.artefacts``.

It holds what a user of that build has: recipes and teachers, and one of everything that commands write. Made once and
kept: made anew by a later build, it would no longer show that old folders go on.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import yaml
from PIL import Image

from tests.commands import tinymim
from tests.golden.pinned import ARTEFACTS
from tinymim.experiments import runner
from tinymim.files import checksum_beside, sha256
from tinymim.modules import Distiller

USER = "/home/user/project"
"""Stands for the folder of whoever made them, where a file holds it."""

STEPS = 3
"""After so many, the run that is to be resumed is asked to end."""


def network(width: int, depth: int) -> dict[str, Any]:
    """A ViT of a few hundred weights for 8x8 images in 2x2 patches."""
    sizes = {"img_size": 8, "patch_size": 2, "embed_dim": width, "depth": depth, "num_heads": 2}
    return {
        "arch": "vit_tiny_patch16_224",
        "options": sizes,
        "pos_embed": "sincos",
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
    }


def part(name: str, **options: Any) -> dict[str, Any]:
    """A class by its full path, as users write it and runs save it."""
    return {"class_path": f"tinymim.{name}", "init_args": options}


TEACHER, STUDENT = network(16, 2), network(8, 2)
QUICK = {"trainer.max_epochs": 1, "trainer.enable_checkpointing": False}
GROUND: dict[str, Any] = {
    "seed_everything": 0,
    "trainer": {"accelerator": "cpu", "precision": "32-true", "max_epochs": 2, "log_every_n_steps": 1,
                "check_val_every_n_epoch": 2, "num_sanity_val_steps": 0},
    "data": part("data.DigitsData", image_size=8, batch_size=16, fraction=0.05, seed="${seed_everything}"),
    "checkpoint": {"keep": 1},
}  # fmt: skip
RELATION = part("targets.Relation", pairs=["qk", "vv"], heads=2)
RECIPES: dict[str, dict[str, Any]] = {
    "mae": {"model": part("modules.MAEPretrainer", architecture=TEACHER, mask_ratio=0.5, decoder_width=8,
                          decoder_depth=1, decoder_heads=2, optim={"base_lr": 0.02, "warmup_epochs": 1})},
    "relation": {"model": part("modules.Distiller", teacher="saved", student=STUDENT, targets=[RELATION],
                               optim={"base_lr": 0.05, "warmup_epochs": 1}),
                 "checkpoint": {"every_steps": 1, "keep": 1}},
    "finetune": {"model": part("modules.Classifier", weights="runs/mae/checkpoints/last.ckpt", ema=0.9,
                               optim={"base_lr": 0.05, "warmup_epochs": 1, "layer_decay": 0.9})},
    "scratch": {"model": part("modules.Classifier", architecture=STUDENT,
                              optim={"base_lr": 0.05, "warmup_epochs": 1, "layer_decay": 0.9})},
    "probe": {"model": part("modules.Classifier", architecture=STUDENT, linear_probe=True,
                            optim={"base_lr": 0.05, "warmup_epochs": 0})},
    "folder": {"model": part("modules.Distiller", teacher="saved", student=STUDENT,
                             targets=[part("targets.Relation", pairs=["qk"]), part("targets.Feature"),
                                      part("targets.CLS"), part("targets.AttentionMap")]),
               "data": part("data.ImageFolderData", root="images", image_size=8, batch_size=4, num_workers=0)},
    "logits": {"model": part("modules.Distiller", teacher="runs/finetune/checkpoints/last.ckpt", student=STUDENT,
                             targets=[part("targets.Logits")])},
    "simmim": {"model": part("modules.SimMIMPretrainer", architecture=TEACHER, mask_unit=4)},
    "detect": {"model": part("modules.Detector", architecture=STUDENT),
               "data": part("data.ShapesData", image_size=8, scene=True)},
    "segment": {"model": part("modules.Segmenter", architecture=STUDENT),
                "data": part("data.SegmentationFolderData", root="images", image_size=8)},
    "scenes": {"model": part("modules.SceneTasks", tasks=["position"], architecture=STUDENT),
               "data": part("data.ShapesData", image_size=8)},
    "knn": {"model": part("modules.Knn", weights="saved"), "data": part("data.HFData", dataset="somebody/images")},
    "robust": {"extends": [], "model": part("modules.Classifier", architecture=STUDENT),
               "data": part("data.RobustnessData", image_size=8, batch_size=16)},
    "shards": {"model": part("modules.Distiller", teacher="saved", student=STUDENT, targets=[RELATION]),
               "data": part("data.ShardsData", train="images/{0..1}.tar")},
}  # fmt: skip
"""By name, each over :data:`GROUND`; every public class path of today is in one of them."""

SEARCH = {"share": 0.25, "seeds": [0], "grid": {"probe": {"model.optim.base_lr": [0.02, 0.05]}}}
COMPARE = {
    "set": {"trainer.max_epochs": 1},
    "stages": {"probe": {"recipe": "probe", "set": QUICK}},
    "figures": {"linear probe": {"stage": "probe", "metric": "val/top1"}},
    "settings": "compared",
    "search": SEARCH,
}
CHAIN = {
    "seeds": [0],
    "stages": [
        {"name": "student", "kind": "distill", "recipe": "relation", "set": {"trainer.max_epochs": 1}},
        {"name": "measured", "kind": "probe", "recipe": "probe", "weights": "student", "set": QUICK},
    ],
}
STUDY = {
    "seeds": [0, 1],
    "budget": {"trainer.max_epochs": 1},
    "stages": {"probe": {"recipe": "probe", "set": QUICK}, "finetune": {"recipe": "scratch", "set": QUICK}},
    "rows": {"scratch": {"title": "from scratch", "recipe": None}, "student": {"recipe": "relation"}},
    "questions": {
        "start": {
            "title": "Does a student start better?",
            "rows": ["scratch", "student"],
            "paper": {"scratch": 72.2, "student": 75.8},
            "expects": "it does.",
            "claims": [{"figure": "linear probe", "better": "student", "than": "scratch"}],
        }
    },
}


def write_sources(place: Path) -> None:
    """What the user wrote: recipes, a chain, a study, a card, and a folder of pictures."""
    texts: dict[str, Any] = {
        f"recipes/{name}.yaml": {"extends": ["parts/ground"], **own} for name, own in RECIPES.items()
    }
    texts["recipes/parts/ground.yaml"] = GROUND
    texts["recipes/compared.yaml"] = {"extends": ["relation"], "compare": COMPARE}
    texts["recipes/chains/short.yaml"] = CHAIN
    texts["recipes/studies/start.yaml"] = STUDY
    texts["teachers/saved.yaml"] = {
        "name": "saved", "architecture": {**TEACHER, "options": TEACHER["options"]}, "file": "saved.safetensors",
        "sha256": None, "licence": "Apache-2.0", "citation": "none", "source": "a test",
    }  # fmt: skip
    for name, content in texts.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(yaml.safe_dump(content, sort_keys=False, width=120))
    random = np.random.default_rng(0)
    for split, each in (("train", 4), ("val", 2)):
        for label in ("cat", "dog"):
            (place / "images" / split / label).mkdir(parents=True)
            for number in range(each):
                picture = Image.fromarray(random.integers(0, 256, (12, 12, 3), dtype=np.uint8))
                picture.save(place / "images" / split / label / f"{number}.png")


def make(place: Path) -> None:
    """Run the commands of a user in ``place``."""

    def run(*arguments: str, code: int = 0) -> None:
        done = tinymim(*arguments, cwd=place)
        print(f"tinymim {' '.join(arguments)}: {done.returncode}", flush=True)
        assert done.returncode == code, done.stdout + done.stderr

    write_sources(place)
    run("fit", "--config", "mae")
    run("teachers", "save", "runs/mae/checkpoints/last.ckpt", "saved")
    run("fit", "--config", "relation", "--run_dir", "runs/whole")
    with mock.patch.object(Distiller, "training_step", stopping(Distiller.training_step)):
        run("fit", "--config", "relation", code=75)
    run("fit", "--config", "finetune")
    run("fit", "--config", "relation", "--run_dir", "runs/broken", "--model.optim.base_lr", "1.0e+20", code=1)
    run("export", "runs/finetune/checkpoints/last.ckpt", "--to", "timm", "--out", "exports/timm")
    run("export", "runs/mae/checkpoints/last.ckpt", "exports/mae.safetensors")
    command = [sys.executable, "-c", "import os, signal, sys; from tinymim.cli import main; code = main(sys.argv[1:]); "
               "signal.signal(15, signal.SIG_IGN); os.kill(os.getppid(), 15); sys.exit(code)"]  # fmt: skip
    with mock.patch.object(runner, "COMMAND", command):
        run("chain", "run", "short", "--run_dir", "runs/chain", code=75)
    run("study", "start", "--run_dir", "runs/study", "--jobs", "1")
    run("search", "compared", "--run_dir", "runs/search", "--jobs", "1")
    run("distill", "compared", "--run_dir", "runs/compared", "--jobs", "1")
    same_end(place / "runs/whole", place / "runs/relation", place)


def stopping(step: Any) -> Any:
    """A training step that asks the process to end in the last of :data:`STEPS`, as a cluster does."""
    count = 0

    def stopped(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count == STEPS:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*arguments, **options)

    return stopped


def same_end(whole: Path, part: Path, place: Path) -> None:
    """See that the run that was stopped ends as the whole one does when it goes on, and forget both ends."""
    copy = place / "runs/again"
    shutil.copytree(part, copy, symlinks=True)
    assert tinymim("resume", copy, cwd=place).returncode == 0
    metrics = [json.loads((folder / "results.json").read_text())["metrics"] for folder in (whole, copy)]
    assert metrics[0] == metrics[1]
    for folder in (whole, copy):
        shutil.rmtree(folder)


def tidy(place: Path) -> None:
    """Leave out what no command reads again, and whatever tells of this machine."""
    unread = ["events.out.*", ".lock", "best.ckpt*", "hparams.yaml", "log.txt", "index.html", "curves", ".cache"]
    for path in [path for pattern in unread for path in place.rglob(pattern)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for folder in [path for run in ("study", "search") for path in (place / "runs" / run).rglob("checkpoints")]:
        shutil.rmtree(folder)  # of finished cells
    digests: dict[str, str] = {}
    for path in place.rglob("step-*.ckpt"):
        before = sha256(path)
        content = torch.load(path, weights_only=True)
        torch.save(_told(content, str(place)), path)
        digests[before] = sha256(path)
        assert checksum_beside(path).is_file()
    for path in place.rglob("*"):
        if path.is_file() and path.suffix in (".json", ".yaml", ".sha256", ".md", ".csv"):
            text = (
                path.read_text()
                .replace(str(place), USER)
                .replace(f'"host": "{socket.gethostname()}"', '"host": "elsewhere"')
            )
            for before, now in digests.items():
                text = text.replace(before, now)
            path.write_text(text)


def _told(node: Any, place: str) -> Any:
    """A checkpoint's content with :data:`USER` in place of the folder it was made in."""
    if isinstance(node, str):
        return node.replace(place, USER)
    if isinstance(node, dict):  # in place, as a state dict carries more than its items
        for key in list(node):
            node[_told(key, place)] = _told(node.pop(key), place)
        return node
    if isinstance(node, list | tuple):
        return type(node)(_told(value, place) for value in node)
    return node


def main() -> None:
    """Make all of it in a temporary folder, and put it in place."""
    torch.set_num_threads(1)
    sys.argv = ["tinymim"]  # which environment.json says
    with tempfile.TemporaryDirectory() as folder:
        place = (Path(folder) / "project").resolve()
        place.mkdir()
        make(place)
        tidy(place)
        shutil.rmtree(ARTEFACTS, ignore_errors=True)
        shutil.copytree(place, ARTEFACTS, symlinks=True)
    sizes = [path.stat().st_size for path in ARTEFACTS.rglob("*") if path.is_file() and not path.is_symlink()]
    print(f"{len(sizes)} files, {sum(sizes) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
