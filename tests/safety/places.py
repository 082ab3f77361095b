"""Every place in every kind of file where a harmless marker is planted, and the commands that read it.

``python -m tests.safety.places`` writes their number into ``docs/robustness.md``; a test fails where it is another.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import save_file

from tests.conftest import TINY, tiny, write_teacher
from tinymim.seeds import snapshot
from tinymim.teachers import weights
from tinymim.vit.backbone import Backbone

MODULE = "planted_marker"
"""A module in the working folder, which touches ``MARK`` when it is imported or called."""

FILE = "marker_file"
"""Begins the names of files in the working folder that nobody may open, write or make."""

SECONDS = 60
"""Of a processor, that reading a file of others may take: what grows in powers takes hours, and a busy machine a few
times what an idle one does."""

MARKERS: dict[str, Any] = {
    "a call": {"class_path": "os.system", "init_args": {"command": "touch MARK"}},
    "a class": {"class_path": f"{MODULE}.Net", "init_args": {}},
    "a name of a class": f"{MODULE}.Net",
    "a file": f"{FILE}.pth",
    "a file elsewhere": f"../{FILE}_new.yaml",
}

DATA = "docs/robustness.md"
BEGIN, END = "<!-- counted by tests/safety/places.py: -->", "<!-- end -->"

Path_ = tuple[str | int, ...]


@dataclass
class Kind:
    """A kind of file.

    Args:
        name: of the kind.
        content: of an honest one, as plain data.
        write: writes such a content into the working folder.
        commands: by name: what reads it there.
        each: markers at each place, for the first command; those of the next place begin where these end.
        named: nodes that name data or weights, which are opened as such by the reader of such files, by design.
        run: the user names it to be run, so that modules of classes in it may be imported; nothing of them is called.
    """

    name: str
    content: Any
    write: Callable[[Any], None]
    commands: dict[str, Callable[[], Any]]
    named: tuple[str, ...] = ()
    each: int = len(MARKERS)
    run: bool = False

    def places(self) -> list[Path_]:
        """Every node, the whole included, and in every mapping and list one that was not there."""
        return list(nodes(self.content))

    def trials(self) -> Iterator[tuple[str, Path_, str]]:
        """Command, place and marker: :attr:`each` markers for the first command; for the others, which read through the
        same schema, one of them at each place, the next at the next."""
        first, *others = self.commands
        turns = list(MARKERS)
        for n, place in enumerate(self.places()):
            yield from ((first, place, turns[(n * self.each + turn) % len(turns)]) for turn in range(self.each))
        for start, command in enumerate(others):
            yield from ((command, place, turns[(start + n) % len(turns)]) for n, place in enumerate(self.places()))


def nodes(value: Any, above: Path_ = ()) -> Iterator[Path_]:
    """Ways to every node, and to a new one in each mapping and list."""
    yield above
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from nodes(inner, (*above, key))
        yield (*above, "planted")
    elif isinstance(value, list) and value:
        for number, inner in enumerate(value[:3]):
            yield from nodes(inner, (*above, number))


def planted(content: Any, place: Path_, marker: Any) -> Any:
    """The content with a marker at a place."""
    if not place:
        return copy.deepcopy(marker)
    changed = copy.deepcopy(content)
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = copy.deepcopy(marker)
    return changed


RECIPE: dict[str, Any] = {
    "name": "small",
    "seed_everything": 0,
    "run_dir": None,
    "trainer": {"precision": "32-true", "max_epochs": 2, "accelerator": "cpu", "callbacks": None, "logger": None},
    "model": {
        "class_path": "tinymim.modules.Distiller",
        "init_args": {
            "teacher": "tiny_teacher",
            "student": {"arch": "vit_tiny_patch16_224", "options": {**TINY, "embed_dim": 12, "num_heads": 3}},
            "targets": [{"class_path": "tinymim.targets.Relation", "init_args": {"pairs": ["qk"], "teacher_block": 2}}],
            "optim": {"base_lr": 0.001},
            "reconstruction": None,
        },
    },
    "data": {"class_path": "tinymim.data.DigitsData", "init_args": {"image_size": 16, "batch_size": 4}},
}

CHAIN = {
    "about": "small",
    "seeds": [0],
    "set": {"trainer.max_epochs": 1},
    "stages": [
        {"name": "first", "kind": "pretrain", "recipe": "mae_digits", "set": {"seed_everything": 1}},
        {"name": "tuned", "kind": "probe", "recipe": "probe_digits", "weights": "first"},
    ],
    "compare": {"title": "t", "rows": {"a": ["tuned"]}, "source": "s", "expects": "e", "paper": {"a": 1.0}},
}

STUDY = {
    "seeds": [0],
    "about": "small",
    "budget": {"trainer.max_epochs": 1},
    "stages": {"probe": {"recipe": "probe_digits", "set": {"trainer.max_epochs": 1}}},
    "figures": {"top-1": {"stage": "probe", "metric": "val/top1", "unit": "%", "better": "higher"}},
    "curves": {"probe": {"title": "probe", "stage": "probe", "loss": "loss"}},
    "prepare": {"base": {"title": "b", "recipe": "mae_digits", "set": {}}},
    "rows": {
        "one": {"title": "1", "recipe": "relation_digits", "set": {"seed_everything": 0}, "later": {}},
        "two": {"title": "2", "recipe": None, "weights": "digits_mae"},
    },
    "questions": {
        "q": {
            "title": "t", "source": "s", "expects": "e", "rows": ["one", "two"], "paper": {"one": 1.0},
            "figures": ["top-1"], "against": {}, "claims": [{"figure": "top-1", "better": "one", "than": "two"}],
        }
    },
    "settings": "digits",
    "search": {
        "share": 0.2, "seeds": [0], "grid": {"probe": {"model.optim.base_lr": [0.1, 0.2]}}, "by": {"probe": "top-1"}
    },
}  # fmt: skip

TEACHER = ("model.init_args.teacher",)
READ_BY_STUDY = ("settings", "stages.probe.recipe", "rows.one.recipe", "rows.two.recipe", "prepare.base.recipe")
"""Files of a study's own that it is read with, as plain text."""
OWN = {key: RECIPE[key] for key in ("name", "trainer", "model", "data")}
COMPARED = {
    "extends": ["own"],
    "compare": {
        "stages": {"probe": {"recipe": "probe_digits", "set": {"data.image_size": 16}}},
        "figures": {"top-1": {"stage": "probe", "metric": "val/top1"}},
        "teacher": "knn_digits",
    },
}
OWN_STUDY = {
    "seeds": [0],
    "stages": {"probe": {"recipe": "probe_digits", "set": {"trainer.max_epochs": 1}}},
    "figures": {"top-1": {"stage": "probe", "metric": "val/top1"}},
    "rows": {"one": {"recipe": "relation_digits", "set": {"seed_everything": 0}, "later": {}}},
    "questions": {"q": {"title": "t", "rows": ["one"]}},
    "settings": None,
}
PROGRAM = {
    "about": "small",
    "vars": {"teacher": "digits_mae"},
    "parts": {
        "first": {
            "title": "t",
            "kind": "study",
            "commands": [["study", "digits", {"--run_dir": "${place}"}], ["teachers", "show", "${vars.teacher}"]],
        },
    },
}

TABLE = [
    ["objective", "model", "parameters", "data", "images", "iterations", "validation_loss", "error"],
    ["MAE", "tiny", "1000", "10%", "10", "100", "0.5", "none"],
    ["MAE", "small", "2000", "10%", "10", "100", "0.4", "none"],
]

CARD = {
    "name": "small",
    "architecture": {
        "arch": "vit_tiny_patch16_224",
        "options": {**TINY, "embed_dim": 12, "num_heads": 3},
        "heads": [3, 3, 3],
        "pos_embed": "learned",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
    },
    "file": "small.safetensors",
    "hub": "",
    "url": "",
    "page": "",
    "sha256": None,
    "target_block": 2,
    "labels_seen": False,
    "licence": "MIT",
    "citation": "none",
    "source": "a test",
    "note": "",
    "rebuild": "",
}

CONFIG = {
    "architecture": "vit_tiny_patch16_224",
    "num_classes": 0,
    "global_pool": "",
    "model_args": {**TINY, "embed_dim": 12, "num_heads": 3},
    "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "license": "mit", "input_size": [3, 16, 16]},
}


class Home:
    """A working folder with an honest file of every kind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "teachers").mkdir()
        write_teacher(folder / "teachers")
        torch.manual_seed(0)
        self.network = Backbone(tiny(12, 3))
        self.state = {key: value.clone() for key, value in self.network.vit.state_dict().items()}
        (folder / f"{MODULE}.py").write_text("open('MARK', 'w').close()\n\n\ndef Net(*_, **__):\n    pass\n")
        (folder / f"{FILE}.pth").write_bytes(b"cposix\nsystem\n(S'touch MARK'\ntR.")
        self.record = {
            "backbone": self.network.record(),
            "prefix": "student.vit.",
            "licence": "MIT",
            "teacher": {"name": "tiny_teacher", "sha256": "0" * 64},
            "start": {
                "name": "s",
                "sha256": "0" * 64,
                "teacher": {"name": "t", "sha256": "0" * 64},
                "init": "timm",
            },
            "init": "published",
            "conventions": FOLLOWED,
            "classes": ["a", "b"],
            "deit": {"kind": "hard", "teacher": {"name": "t", "sha256": "0" * 64}},
            "ema": 0.9,
        }
        self.record = json.loads(json.dumps(self.record))

    def checkpoint(self, record: Any, path: Path) -> None:
        """A checkpoint with that record."""
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {f"student.vit.{key}": value for key, value in self.state.items()}
        torch.save({"state_dict": state, weights.RECORD: record}, path)

    def safetensors(self, record: Any, path: Path) -> None:
        """A file of ours with that record."""
        save_file(self.state, path, metadata={weights.RECORD: json.dumps(record)})

    def run(self, recipe: Any, **files: Any) -> None:
        """A run folder with that recipe."""
        run = self.folder / "runs/small"
        if not (run / "checkpoints/last.ckpt").is_file():
            self.checkpoint(self.record, run / "checkpoints/last.ckpt")
        (run / "config.yaml").write_text(yaml.safe_dump(recipe))
        for name, content in {"results": RESULTS, "progress": RESULTS, "environment": ENVIRONMENT, **files}.items():
            (run / f"{name}.json").write_text(json.dumps(content))

    def capture(self, content: Any) -> None:
        """A captured step with that content, tensors put in their places."""
        if isinstance(content, dict):
            content = dict(content)
            if content.get("state_dict") == "tensors":
                content["state_dict"] = {f"student.vit.{key}": value for key, value in self.state.items()}
            if isinstance(content.get("rng"), dict):
                content["rng"] = {**snapshot(torch.device("cpu")), **content["rng"]}
            if content.get("batches") == "tensors":
                content["batches"] = [[0, {"image": torch.zeros(2, 3, 16, 16, dtype=torch.uint8)}]]
            if isinstance(content.get("recipe"), dict):
                content["recipe"] = yaml.safe_dump(content["recipe"])
        torch.save(content, self.folder / "step_1.pt")

    def shard(self, content: Any) -> None:
        """An index whose arrays are that; texts are pickled, as an index never is."""
        arrays = content if isinstance(content, dict) else {"shard": content}
        np.savez(
            self.folder / "index.npz", **{str(key): np.array(value, dtype=object) for key, value in arrays.items()}
        )


FOLLOWED = {"norm_eps": 1e-6, "shared_bias": "last"}
RESULTS = {
    "metrics": {"val/top1": 0.5, "val/loss": 1.0},
    "seconds": 1.0,
    "epochs": 2,
    "parameters": 100,
    "weights": "from scratch",
    "skipped_steps": [1],
}
ENVIRONMENT = {
    "date": "d",
    "command": "c",
    "git": {"revision": "0" * 40, "changed": False},
    "python": "3",
    "packages": {"torch": "2"},
    "device": "cpu",
}
CAPTURE = {
    "tinymim_capture": 1,
    "step": 1,
    "epoch": 0,
    "rank": 0,
    "world_size": 1,
    "loss": True,
    "gradients": [],
    "weights": [],
    "batches": "tensors",
    "changed": False,
    "rng": {},
    "state_dict": "tensors",
    "eval_modules": [],
    "recipe": RECIPE,
    "precision": "32-true",
    "data": {"image_size": 16, "batch_size": 4},
    "teacher": "0" * 64,
    "conventions": FOLLOWED,
}
SETTINGS = {
    "command": "tinymim search relation_digits",
    "how": "the best of two",
    "rows": {"scratch": {"probe": {"model.optim.base_lr": 0.1}}, "relation_digits": {"finetune": {}}},
}
KEY = {"key": {"teacher": "0" * 64, "seed": 0}, "about": {"teacher": "t", "data": "d"}}


STATE = {
    "form": 2,
    "written": "w",
    "launch": "",
    "stages": {
        "first": {
            "state": "waiting",
            "recipe": "0" * 64,
            "inputs": {"other": "0" * 64},
            "outputs": {"student.safetensors": "0" * 64},
            "started": "s",
            "ended": "e",
            "process": {"host": "h", "pid": 1},
            "exit_code": 0,
            "error": None,
        }
    },
    "chain": {
        "name": "small",
        "stages": {
            "first": {
                **{"name": "first", "kind": "export", "recipe": "", "config": {}, "start": "small", "parent": None},
                "sources": {},
            }
        },
        "about": "small",
        "seeds": None,
        "compare": {"title": "t", "rows": {}},
        "settings": {"source": "", "command": "c", "how": "h", "rows": {"a": {"probe": {"model.optim.base_lr": 0.1}}}},
        "kind": "chain",
        "fits": {"first": {"stage": "first", "seed": None}},
        "command": "",
    },
}
PARTS = {
    "environment": ENVIRONMENT,
    "quick": False,
    "parts": {"first": {"status": "failed", "error": "e", "seconds": 1.0, "commands": ["tinymim analyze"]}},
}
NETWORK = {"title": "a", "arch": "vit", "width": 12, "depth": 3, "heads": [3], "grid": [4, 4], "patch_px": 4}
ANALYSIS = {
    "options": {"n": 1},
    "models": [{**NETWORK, "sha256": "0" * 64, "licence": "MIT"}],
    "teacher": None,
    "notes": ["n"],
    "images": {"unreadable": ["x"]},
}


def kinds(home: Home | None = None) -> list[Kind]:
    """All kinds; with commands that work in ``home``, or for counting alone."""
    from tests.safety import commands

    here = home or Home.__new__(Home)
    record = getattr(here, "record", RECORD)
    folder = getattr(here, "folder", Path())

    def text(path: str) -> Callable[[Any], None]:
        def write(content: Any) -> None:
            place = folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(json.dumps(content) if path.endswith(".json") else yaml.safe_dump(content))

        return write

    def table(content: Any) -> None:
        rows = content if isinstance(content, list) else [content]
        cells = [row if isinstance(row, list) else [row] for row in rows]
        lines = [",".join(json.dumps(cell) if isinstance(cell, dict) else str(cell) for cell in row) for row in cells]
        (folder / "table.csv").write_text("\n".join(lines))

    def compared(content: Any) -> None:
        text("own.yaml")(OWN)
        text("compared.yaml")(content)

    def parts(content: Any, analysis: Any = ANALYSIS) -> None:
        commands_of = {"title": "t", "kind": "analysis", "commands": [["analyze", "x", "--out", "${place}"]]}
        text("parts.yaml")({"parts": {"first": commands_of}})
        text("papers/papers.json")(content)
        text("papers/first/analysis.json")(analysis)

    return [
        Kind(
            "record of a weights file",
            record,
            lambda c: here.safetensors(c, folder / "t.safetensors"),
            commands.WEIGHTS,
            each=2,
        ),
        Kind(
            "record of a checkpoint",
            record,
            lambda c: here.checkpoint(c, folder / "t.ckpt"),
            commands.CHECKPOINT,
            each=1,
        ),
        Kind("teacher card", CARD, text("teachers/small.yaml"), commands.CARD, ("file",), 1),
        Kind("config.json", CONFIG, text("theirs/config.json"), commands.CONFIG, each=1),
        Kind("captured step", CAPTURE, here.capture, commands.CAPTURE, ("recipe.model.init_args.teacher",), 1),
        Kind("saved recipe", RECIPE, here.run, commands.RUN, ("model.init_args.teacher",), 1),
        Kind("figures of a run", RESULTS, lambda c: here.run(RECIPE, results=c), commands.RESULTS),
        Kind("environment of a run", ENVIRONMENT, lambda c: here.run(RECIPE, environment=c), commands.RESULTS),
        Kind("chain", CHAIN, text("chain.yaml"), commands.CHAIN, commands.RECIPES, 1),
        Kind("study", STUDY, text("study.yaml"), commands.STUDY, READ_BY_STUDY, 3),
        Kind("settings of rows", SETTINGS, text("settings.yaml"), commands.SETTINGS, each=1),
        Kind("state of a plan", STATE, text("plan/chain.json"), commands.STATE, ("chain.stages.first.start",), 1),
        Kind("state of a program", PARTS, parts, commands.PARTS, each=1),
        Kind("analysis of a program", ANALYSIS, lambda c: parts(PARTS, c), commands.PARTS, each=1),
        Kind("key of the teacher cache", KEY, text("cache/0_1/key.json"), commands.CACHE),
        Kind(
            "index of shards",
            {"shard": ["x"], "offset": [0], "length": [1], "label": ["a"]},
            here.shard,
            commands.INDEX,
        ),
        Kind("table", TABLE, table, commands.TABLE),
        Kind("recipe of one's own", OWN, text("own.yaml"), commands.OWN_RECIPE, TEACHER, 1, run=True),
        Kind("comparison of one's own", COMPARED, compared, commands.OWN_COMPARISON, ("compare.teacher",), 1, run=True),
        Kind("study of one's own", OWN_STUDY, text("own_study.yaml"), commands.OWN_STUDY, READ_BY_STUDY, 1, run=True),
        Kind("program of one's own", PROGRAM, text("program.yaml"), commands.OWN_PROGRAM, each=1, run=True),
    ]


RECORD: dict[str, Any] = {}


def counted() -> str:
    """The table of the document."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        found = kinds(Home(Path(folder)))
    lines = ["| kind of file | read by | places | markers tried |", "|---|---|---:|---:|"]
    whole = 0
    for kind in found:
        tried = len(list(kind.trials()))
        whole += tried
        lines.append(f"| {kind.name} | {', '.join(kind.commands)} | {len(kind.places())} | {tried:,} |")
    return "\n".join([*lines, f"| all | | | {whole:,} |"])


def written(text: str) -> str:
    """The document with the table as it is now."""
    return re.sub(f"(?s){BEGIN}.*{END}", f"{BEGIN}\n{counted()}\n{END}", text)


if __name__ == "__main__":
    document = Path(DATA)
    document.write_text(written(document.read_text()))
