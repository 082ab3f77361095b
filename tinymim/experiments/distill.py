"""``tinymim distill``: a recipe's student and the same student from scratch, probed and fine-tuned, in one table.

RUN/ROW/STAGE/              cell.json (definition, state, figures), log.txt, and what the fit leaves, of the first seed
RUN/ROW/seedN/STAGE/        the same of another seed
RUN/table.md, table.json    written at the end
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from tinymim.config import recipe as recipes
from tinymim.config.spec import seed_mistakes
from tinymim.errors import TinymimError, several
from tinymim.experiments import bought, comparison, workers
from tinymim.experiments.cells import PRETRAIN, Stage
from tinymim.experiments.comparison import SCRATCH, STUDENT, TEACHER, Comparison
from tinymim.experiments.study_grid import Definition, resolved
from tinymim.experiments.tables import Records
from tinymim.experiments.tally import Tally
from tinymim.experiments.workers import Task
from tinymim.log import say
from tinymim.training import fit, lock

JOBS = 4
"""At once by default, at most: more would only wait for the pre-training, and take its cores."""

OPTIONS = {
    "seeds": "3 is a number of seeds, from the recipe's own up; 0,4 lists them",
    "jobs": f"fits at once, sharing the cores; by default as many as cores, and at most {JOBS}",
    "run_dir": "by default runs/distill_NAME",
    "overwrite": "start again where the folder holds runs, which are lost",
    "ckpt_path": "last: go on with what is in the folder",
}
"""Those of the command itself; others are overrides of the recipe."""


def distill(recipe: str, arguments: list[str]) -> None:
    """Fit a recipe, then what its ``compare`` names, and print the table.

    Args:
        recipe: name or path.
        arguments: overrides as for ``tinymim fit``, of the recipe; those in :data:`cells.SHARED` reach everything that
            is compared, and ``--run_dir``, ``--overwrite`` and ``--ckpt_path last`` mean the whole of it. ``--seeds 3``
            is a number of seeds, from the recipe's own up; ``--seeds 0,4`` lists them. ``--jobs``: fits at once.

    Raises:
        TinymimError: mistakes in the recipe or the command line, runs that are in the way, or failed fits.
    """
    pairs, flags = recipes.split(arguments)
    own = dict(pairs)
    overrides = [f"--{key}={value}" for key, value in pairs if key not in OPTIONS] + flags
    compared = comparison.read(recipe, overrides)
    if compared is None:
        if given := [f"--{key}" for key in ("seeds", "jobs") if key in own]:
            raise TinymimError(f"{', '.join(given)}: {recipe} has no `compare`, so it is one fit")
        where = fit.run("fit", ["--config", recipe, *arguments])
        say(f"the run is in {where}; the student is {where / 'checkpoints' / 'last.ckpt'}")
        return
    study = compared.study
    if "seeds" in own:
        study.seeds = _seeds(own["seeds"], study.seeds[0])
    jobs = _jobs(own["jobs"]) if "jobs" in own else min(workers.cores(), JOBS)
    if found := study.problems(list(study.rows)):
        raise several(f"{recipe} and what it compares with have {len(found)} mistake(s)", list(dict.fromkeys(found)))
    place = Path(own.get("run_dir") or Path("runs") / f"distill_{compared.name}")
    with lock.hold(place, "run_dir"):
        begun = sorted(path.parent for path in place.glob(f"*/**/{workers.RECORD}"))
        study.settle(found["definition"] for found in map(workers.read, begun) if found)
        tasks = _tasks(compared, place)
        overwrite = own.get("overwrite") == "true"
        _claim(tasks, place, own.get("ckpt_path") == "last", overwrite)
        _run(workers.pending(tasks, place, overwrite), jobs, place)
        text = bought.write(compared, _records(compared, tasks, place), place, jobs)
    print(f"\n{text}")
    student = place / STUDENT / PRETRAIN / "checkpoints" / "last.ckpt"
    print(f"all runs: {place}\nthe distilled student: {student}")
    if len(study.seeds) == 1:
        again = f"tinymim distill {recipe} --seeds 3 --ckpt_path last"
        print(
            f"next: `{again}` for means and spreads; `tinymim export {student} student.safetensors` to use it elsewhere"
        )


def _seeds(text: str, first: int) -> list[int]:
    """``3`` is three seeds from ``first`` up; a list, such as ``0,4`` or ``[4]``, is itself.

    Raises:
        TinymimError: neither, none, or one twice.
    """
    words = re.fullmatch(r"\s*(\[)?\s*(\d+(?:\s*,\s*\d+)*)\s*,?\s*\]?\s*", text)
    numbers = [int(word) for word in words[2].split(",")] if words else []
    if words and len(numbers) == 1 and not words[1] and "," not in text:
        numbers = list(range(first, first + numbers[0]))
    if not numbers:
        raise TinymimError(
            f"--seeds: {text!r} is neither a number of seeds, such as 3, nor a list of them, such as 0,1,2"
        )
    if found := seed_mistakes(numbers, "--seeds"):
        raise TinymimError(found[0])
    return numbers


def _jobs(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise TinymimError(f"--jobs: {text!r} is not a whole number from 1")
    return int(text)


def _tasks(compared: Comparison, place: Path) -> list[Task]:
    """Every fit, those first that others wait for."""
    study, tasks = compared.study, []
    for seed in study.seeds:
        whose = f", seed {seed}" if len(study.seeds) > 1 else ""
        fits = {row: _fits(study.stages(row, place, _cell(place, row, seed, study.seeds))) for row in study.rows}
        before: Definition = {}
        order = [(STUDENT, PRETRAIN)] + [(row, stage.name) for row in (SCRATCH, STUDENT) for stage in study.later]
        for row, name in order:
            stage = replace(fits[row][name], name="")
            definition = {**(before if row == STUDENT else {}), name: _definition(stage)}
            if name == PRETRAIN:
                before = definition
            cell = _cell(place, row, seed, study.seeds)
            needs = [cell / PRETRAIN] if row == STUDENT and name != PRETRAIN else []
            title = f"{study.rows[row].title}, {name}{whose}"
            tasks.append(Task(title, cell / name, [stage], seed, definition, needs))
    if compared.teacher:
        stage = compared.teacher
        tasks.append(Task("teacher, 10-NN", place / TEACHER, [stage], study.seeds[0], {"test": _definition(stage)}))
    return tasks


def _fits(stages: list[Stage]) -> dict[str, Stage]:
    return {stage.name: stage for stage in stages}


def _definition(stage: Stage) -> Definition:
    config = {key: value for key, value in resolved(stage).items() if key not in ("name", "compare", "run_dir")}
    definition: Definition = json.loads(json.dumps(config))
    return definition


def _cell(place: Path, row: str, seed: int, seeds: list[int]) -> Path:
    """Where a row's fits lie: in a folder of their own from the second seed on."""
    return place / row if seed == seeds[0] else place / row / f"seed{seed}"


def _claim(tasks: list[Task], place: Path, resume: bool, overwrite: bool) -> None:
    """As :func:`folder.check`, for the folder that holds a demo's several runs."""
    inside = [task.place for task in tasks if task.place.exists()]
    if resume or not inside:
        return
    if not overwrite:
        raise TinymimError(
            f"run_dir: {place} holds runs already. Go on with them (finished ones are kept): --ckpt_path last. "
            "Start again and lose them: --overwrite true. Keep them: --run_dir ANOTHER_FOLDER"
        )
    for path in inside:
        shutil.rmtree(path)


def _run(tasks: list[Task], jobs: int, place: Path) -> None:
    """Run what is not done.

    Raises:
        TinymimError: an interruption, or failed fits.
    """
    tally = Tally(tasks, _figures)
    if tasks:
        names = ", then ".join(dict.fromkeys(task.name.partition(", seed")[0] for task in tasks[:3]))
        say(f"{len(tasks)} fits, {jobs} at once, in {place}: {names}, ...")
    try:
        workers.run(tasks, jobs, max(workers.cores() // jobs, 1), tally.finished, tally.watch)
    except KeyboardInterrupt:
        done = f"{tally.done} of {len(tasks)} fits are done"
        raise TinymimError(f"interrupted; {done}, and --ckpt_path last goes on") from None
    if tally.failures:
        heading = f"{len(tally.failures)} of {len(tasks)} fits failed; --ckpt_path last tries them again"
        raise several(heading, tally.failures)


def _figures(task: Task, record: dict[str, Any]) -> str:
    """The figures of a task that has ended."""
    if record["status"] != "done":
        return ""
    metrics = _metrics(task)
    shown = {"val/knn_top1": "10-NN", "val/top1": "top-1"}
    return ", ".join(f"{title} {metrics[name]:.1%}" for name, title in shown.items() if name in metrics)


def _metrics(task: Task) -> dict[str, float]:
    """What the fit or test of a finished task measured."""
    metrics = json.loads((task.place / task.stages[0].results).read_text())["metrics"]
    return {name.replace("test/", "val/", 1): value for name, value in metrics.items()}


def _records(compared: Comparison, tasks: list[Task], place: Path) -> Records:
    """The figures by row and seed."""
    study = compared.study
    found: Records = {row: {} for row in [*study.rows, TEACHER]}
    for task in tasks:
        row, stage = task.place.relative_to(place).parts[0], task.place.name
        metrics = _metrics(task)
        own = found[row].setdefault(task.seed, {"status": "done", "figures": {}, "parameters": 0, "seconds": 0.0})
        record = workers.read(task.place) or {}
        own["parameters"] = max(own["parameters"], record["parameters"])
        own["seconds"] += record["seconds"]
        for title, figure in study.figures.items():
            if (figure.stage == stage or (row == TEACHER and "knn" in figure.metric)) and figure.metric in metrics:
                own["figures"][title] = metrics[figure.metric]
    return found
