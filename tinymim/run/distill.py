"""``tinymim distill``: a recipe's student and the same student from scratch, probed and fine-tuned, in one table."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tinymim import precision, recipes
from tinymim.errors import TinymimError
from tinymim.files import write_json, write_text
from tinymim.run import cells, fit, folder, record
from tinymim.run.cells import FIGURES, PRETRAIN, SHARED, Cell, Stage
from tinymim.say import say

STAGES = (PRETRAIN, "probe", "finetune")


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
    if precision.is_auto(config):  # one for all rows, also where they are finished on another machine
        before = record.precision_in(sorted(path.parent for path in place.glob("*/*/config.yaml")))
        settled = precision.of(precision.settle(config, before))
        pairs = [*pairs, ("trainer.precision", str(settled))]
    own = [f"--{key}={value}" for key, value in pairs if key not in ("run_dir", "overwrite", "ckpt_path", "compare")]
    shared = [f"--{key}={value}" for key, value in pairs if key.startswith(SHARED)]
    student = config["model"]["init_args"].get("student") or config["model"]["init_args"].get("architecture")
    scratch = [f"--model.init_args.architecture={json.dumps(student)}"] if student else []
    seed = int(config.get("seed_everything", 0))
    measured: dict[str, Cell] = {}
    for title, name, start, later in (
        (config["name"], "student", recipe, shared),
        ("from scratch", "scratch", None, shared + scratch),
    ):
        after = [Stage(stage, compare[stage], tuple(later)) for stage in STAGES[1:]]
        measured[title] = cells.run(cells.chain(start, own + flags, after, place / name), seed, place / name)
    _show(measured, f"{config['name']}, seed {seed}, held-out images")
    _write(measured, place)
    print(f"all runs: {place}")
    print(f"the distilled student: {place / 'student' / 'pretrain' / 'checkpoints' / 'last.ckpt'}")


def _claim(place: Path, resume: bool, overwrite: bool) -> None:
    """As :func:`folder.check`, for the folder that holds a demo's several runs."""
    inside = [path for path in place.glob("*/*") if path.name in STAGES]
    if resume:
        return
    if inside and not overwrite:
        raise TinymimError(
            f"run_dir: {place} holds runs already. Go on with them (finished ones are kept): --ckpt_path last. "
            "Start again and lose them: --overwrite true. Keep them: --run_dir ANOTHER_FOLDER"
        )
    for path in inside:
        folder.clear(path, resume=False)


def _show(measured: dict[str, Cell], title: str) -> None:
    table = Table(title=title)
    table.add_column("student")
    for column in (*FIGURES, "parameters", "seconds"):
        table.add_column(column, justify="right")
    for name, cell in measured.items():
        table.add_row(name, *_figures(cell), f"{cell.parameters:,}", f"{cell.seconds:.0f}")
    Console().print(table)


def _write(measured: dict[str, Cell], place: Path) -> None:
    """The figures as JSON, and the table as Markdown."""
    write_json(place / "table.json", {name: [vars(cell)] for name, cell in measured.items()})
    lines = [f"| student | {' | '.join(FIGURES)} | parameters |", "|---|" + "---:|" * (len(FIGURES) + 1)]
    for name, cell in measured.items():
        lines.append(f"| {name} | {' | '.join(_figures(cell))} | {cell.parameters:,} |")
    text = "\n".join(lines) + "\n"
    write_text(place / "table.md", text)


def _figures(cell: Cell) -> list[str]:
    return [figure.shown([cell.figures[title]]) for title, figure in FIGURES.items()]
