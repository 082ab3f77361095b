"""Rows of a study: pre-train a student in some way, probe it, fine-tune it, over seeds, and put the figures in a table.

``tinymim distill`` is a study of two rows and one seed: the recipe's student, and the same student from scratch.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from tinymim import recipes
from tinymim.errors import TinymimError
from tinymim.run import fit, folder
from tinymim.say import say
from tinymim.weights import write_atomically

FIGURES = {
    "10-NN": ("probe", "val/knn_top1"),
    "linear probe": ("probe", "val/top1"),
    "fine-tuned": ("finetune", "val/top1"),
}
SHARED = ("data", "trainer.accelerator", "trainer.devices", "trainer.strategy", "trainer.precision")
STAGES = ("pretrain", "probe", "finetune")


@dataclass
class Row:
    """One way to start.

    Args:
        title: in the table.
        recipe: pre-trains the student; ``None`` leaves it random.
        overrides: of that recipe.
        later: overrides of the probe and the fine-tuning.
    """

    title: str
    recipe: str | None
    overrides: list[str]
    later: list[str]


@dataclass
class Cell:
    """The figures of one row and seed."""

    figures: dict[str, float]
    parameters: int
    seconds: float


def distill(recipe: str, overrides: list[str]) -> None:
    """Fit a recipe, then what its ``compare`` names, and print the table.

    Args:
        recipe: name or path.
        overrides: as for ``tinymim fit``, of the recipe; those in :data:`SHARED` reach probe and fine-tuning too, and
            ``--run_dir``, ``--overwrite`` and ``--ckpt_path last`` mean the whole of it.
    """
    config, _ = recipes.resolve(["--config", recipe, *overrides])
    compare = config.get("compare")
    if not compare:
        where = fit.run("fit", ["--config", recipe, *overrides])
        say(f"the run is in {where}; the student is {where / 'checkpoints' / 'last.ckpt'}")
        return
    place = Path(config.get("run_dir") or Path("runs") / f"distill_{config['name']}")
    _claim(place, config.get("ckpt_path") == "last", bool(config.get("overwrite")))
    pairs, flags = recipes.split(overrides)
    own = [f"--{key}={value}" for key, value in pairs if key not in ("run_dir", "overwrite", "ckpt_path", "compare")]
    shared = [f"--{key}={value}" for key, value in pairs if key.startswith(SHARED)]
    student = config["model"]["init_args"].get("student") or config["model"]["init_args"].get("architecture")
    scratch = [f"--model.init_args.architecture={json.dumps(student)}"] if student else []
    seed = int(config.get("seed_everything", 0))
    rows = {
        "student": Row(config["name"], recipe, own + flags, shared),
        "scratch": Row("from scratch", None, [], shared + scratch),
    }
    cells = {row.title: [_cell(row, seed, place / name, compare)] for name, row in rows.items()}
    _show(cells, f"{config['name']}, seed {seed}, held-out images")
    _write(cells, place)
    print(f"all runs: {place}")
    print(f"the distilled student: {place / 'student' / 'pretrain' / 'checkpoints' / 'last.ckpt'}")


def run(name: str, overrides: list[str]) -> None:
    """Run a study of ``recipes/studies``, or go on with it where it was left.

    Args:
        name: of the study, or a path.
        overrides: for every pre-training recipe; ``--run_dir`` is the study's folder, ``--seeds`` a list.
    """
    study = yaml.safe_load(_find_study(name).read_text())
    pairs, flags = recipes.split(overrides)
    options = dict(pairs)
    rest = [f"--{key}={value}" for key, value in pairs if key not in ("run_dir", "seeds")] + flags
    seeds = yaml.safe_load(options["seeds"]) if "seeds" in options else study["seeds"]
    place = Path(options.get("run_dir", f"runs/study_{Path(name).stem}"))
    rows = [Row(title, recipe, rest if recipe else [], []) for title, recipe in study["rows"].items()]
    cells: dict[str, list[Cell]] = {row.title: [] for row in rows}
    for seed in seeds:
        for row in rows:
            say(f"== {row.title}, seed {seed}")
            cells[row.title].append(_cell(row, seed, place / _slug(row.title) / f"seed{seed}", study))
    _show(cells, f"study {Path(name).stem}, seeds {', '.join(map(str, seeds))}, held-out images")
    _write(cells, place)
    print(f"the table and all runs: {place}")


def _cell(row: Row, seed: int, place: Path, stages: dict[str, str]) -> Cell:
    """Run what is not yet done of one row and seed."""
    start = list(row.later)
    done = []
    if row.recipe:
        done.append(_stage(row.recipe, seed, place / "pretrain", row.overrides))
        checkpoint = place / "pretrain" / "checkpoints" / "last.ckpt"
        start += [f"--model.init_args.weights={checkpoint}", "--model.init_args.architecture=null"]
    results = {stage: _stage(stages[stage], seed, place / stage, start) for stage in ("probe", "finetune")}
    done += results.values()
    figures = {title: results[stage]["metrics"][metric] for title, (stage, metric) in FIGURES.items()}
    return Cell(figures, results["finetune"]["parameters"], sum(result["seconds"] for result in done))


def _stage(recipe: str, seed: int, place: Path, overrides: list[str]) -> dict[str, Any]:
    if not (place / "results.json").is_file():
        say(f"-- {recipe}, seed {seed}: {place}")
        begun = ["--ckpt_path", "last"] if place.exists() else []
        fit.run("fit", ["--config", recipe, *overrides, f"--seed_everything={seed}", f"--run_dir={place}", *begun])
    return json.loads((place / "results.json").read_text())


def _claim(place: Path, resume: bool, overwrite: bool) -> None:
    """As :func:`folder.claim`, for the folder that holds a demo's several runs."""
    inside = [path for path in place.glob("*/*") if path.name in STAGES]
    if resume:
        return
    if inside and not overwrite:
        raise TinymimError(
            f"run_dir: {place} holds runs already. Go on with them (finished ones are kept): --ckpt_path last. "
            "Start again and lose them: --overwrite true. Keep them: --run_dir ANOTHER_FOLDER"
        )
    for path in inside:
        folder.claim(path, resume=False, overwrite=True)


def _show(cells: dict[str, list[Cell]], title: str) -> None:
    table = Table(title=title)
    table.add_column("student")
    for column in (*FIGURES, "parameters", "seconds"):
        table.add_column(column, justify="right")
    for name, row in cells.items():
        shown = [_percent([cell.figures[figure] for cell in row]) for figure in FIGURES]
        table.add_row(name, *shown, f"{row[0].parameters:,}", f"{statistics.mean(cell.seconds for cell in row):.0f}")
    Console().print(table)


def _percent(values: list[float]) -> str:
    """Mean, and the spread (standard deviation over seeds) where there are several."""
    mean = f"{100 * statistics.mean(values):.1f}"
    return f"{mean} ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else f"{mean} %"


def _write(cells: dict[str, list[Cell]], place: Path) -> None:
    """The figures of every cell as JSON, and the table as Markdown."""
    content = {name: [vars(cell) for cell in row] for name, row in cells.items()}
    folder.write_json(place / "table.json", content)
    lines = [f"| student | {' | '.join(FIGURES)} | parameters |", "|---|" + "---:|" * (len(FIGURES) + 1)]
    for name, row in cells.items():
        shown = " | ".join(_percent([cell.figures[figure] for cell in row]) for figure in FIGURES)
        lines.append(f"| {name} | {shown} | {row[0].parameters:,} |")
    text = "\n".join(lines) + "\n"
    write_atomically(place / "table.md", lambda temporary: temporary.write_text(text))


def _find_study(name: str) -> Path:
    for path in [Path(name), *(base / "studies" / f"{name}.yaml" for base in recipes.folders())]:
        if path.is_file():
            return path
    known = sorted(path.stem for base in recipes.folders() for path in (base / "studies").glob("*.yaml"))
    raise TinymimError(f"unknown study {name!r}; there are: {', '.join(dict.fromkeys(known))}")


def _slug(title: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in title).strip("_").lower()
