"""Options of the commands of many fits, whose work imports much: their help answers without it."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from pathlib import Path

from tinymim.cli import plan_options
from tinymim.cli.help_page import Page
from tinymim.cli.recipe_commands import VERBOSE

EVERY_PRETRAINING = "for every pre-training, as --KEY VALUE without --set"
"""Settings that the command of a study or a search takes, for the help."""

DEMO = "relation_digits"
"""The recipe of ``tinymim distill`` where none is named."""


def _about(module: str, first: str = "") -> Callable[[], str]:
    """The text of a module that says how files are written."""
    return lambda: f"{first}\n\n{importlib.import_module(f'tinymim.experiments.{module}').__doc__}".strip()


def distill() -> Page:
    """The options of ``tinymim distill``; others are overrides of the recipe."""
    further = "Further options are overrides of the recipe; of the data, devices and precision all rows take them."
    page = plan_options.parser(
        "distill",
        "Distil a recipe's student, and compare it with the same network from scratch.\n\n"
        "Both are probed and fine-tuned, and their table is printed. The same command goes on where it was cut off: "
        "finished fits are kept.",
        _about("compare", further),
        (
            "tinymim distill                               # the demo: digits",
            "tinymim distill relation_shapes --seeds 3",
        ),
    )
    page.add_argument("recipe", nargs="?", help=f"comes first; {DEMO} by default")
    page.add_argument("--seeds", help="3 is a number of seeds, from the recipe's own up; 0,4 lists them")
    settings, folder = "for the recipe, as --KEY VALUE without --set", "runs/distill_NAME"
    plan_options.add(page, "set", "jobs", "launch", "run_dir", "accept_changes", folder=folder, settings=settings)
    page.add_argument("--overwrite", nargs="?", const="true", default="false", help="start again, and lose its runs")
    page.further().add_argument("--ckpt-path", metavar="last", help="go on with what is there, as is always done")
    return page


def read_distill(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Options of :func:`distill`, with its demo where no recipe is named; and overrides."""
    arguments = [word for word in arguments if word not in VERBOSE]  # taken once, by a recipe that had no `compare`
    if not arguments or arguments[0].startswith("-"):
        arguments = [DEMO, *arguments]
    return plan_options.overrides(distill(), arguments, "comparison", flags=("--print_config",))


def study() -> Page:
    """The options of ``tinymim study``; others are overrides of every pre-training recipe."""
    further = "Further options are overrides of every pre-training, such as --trainer.max_epochs 5."
    page = plan_options.parser(
        "study",
        "Run every row of a study over seeds, and write a table for each question.\n\nA study is resumed by the same "
        "command: finished fits are kept, and one that was cut off goes on from its last\ncheckpoint. A fit made under "
        "another definition is never mixed in.",
        _about("study", further),
        ("tinymim study digits --quick", "tinymim study digits --rows relation,feature --seeds 0,1"),
    )
    page.add_argument("name", help="a study of recipes/studies, or a path")
    page.add_argument("--quick", action="store_true", help="the study's short form, in a folder of its own")
    page.add_argument("--rows", type=_words, default=[], help="run these rows alone, of those that are asked for")
    page.add_argument("--questions", type=_words, default=[], help="run the rows of these questions alone")
    folder = "runs/study_NAME[_quick]"
    plan_options.add(page, "seeds", "set", "jobs", "launch", "run_dir", folder=folder, settings=EVERY_PRETRAINING)
    plan_options.add(page, "report_only", "accept_changes")
    page.add_argument("--overwrite", dest="accept_changes", action="store_true", help=argparse.SUPPRESS)
    return page


def search() -> Page:
    """The options of ``tinymim search``; others are overrides."""
    further = "Further options are overrides of every pre-training, such as --trainer.precision 32-true."
    page = plan_options.parser(
        "search",
        "Find settings for each row of what a recipe, a study or a chain compares.",
        _about("search", further),
        ("tinymim search relation_fashion", "tinymim search digits relation scratch --quick"),
    )
    page.add_argument("name", help="a recipe with `compare`, a study or a chain with `search`, or a path")
    page.add_argument("rows", nargs="*", help="these rows alone; by default all")
    page.add_argument("--quick", action="store_true", help="of a study's short form, which has settings of its own")
    folder = "runs/search_NAME[_quick]"
    names = ("set", "jobs", "launch", "run_dir", "accept_changes")
    plan_options.add(page, *names, folder=folder, settings=EVERY_PRETRAINING)
    page.add_argument("--overwrite", dest="accept_changes", action="store_true", help=argparse.SUPPRESS)
    return page


def scaling() -> Page:
    """The options of ``tinymim scaling``."""
    from tinymim.scaling.table import NEEDED

    page = plan_options.parser(
        "scaling",
        "Run the cells of a scaling study, or go on with them, and say what they show.\n\n"
        "RUN/chain.json, recipes/, seedN/, logs/   the cells, as a chain (see `tinymim/experiments/state.py`)\n"
        "RUN/runs.csv                              a row for each run, written anew after each\n"
        "RUN/report/                               figures, tables and the page",
        _about("grid"),
        ("tinymim scaling digits --quick", "tinymim scaling --table runs.csv"),
    )
    page.add_argument("study", nargs="?", help="a study of recipes/scaling, or a path")
    columns = f"objective, {', '.join(NEEDED)} and, for more, accuracy (a share)"
    page.add_argument("--table", type=Path, metavar="FILE.csv", help="finished runs, in a study's place")
    page.add_argument("--quick", action="store_true", help="the study's short form, in a folder of its own")
    page.add_argument("--out", type=Path, help="folder of the report; RUN/report by default")
    plan_options.add(page, "set", "seeds", "jobs", "launch", "run_dir", folder="runs/scaling_NAME[_quick]")
    plan_options.add(page, "report_only", "accept_changes")
    plan_options.add_trust(page, "the recipe of a run whose images are restored")
    page.further().description = f"FILE.csv is such a runs.csv, or has the columns {columns}"
    return page


def papers() -> Page:
    """The options of ``tinymim papers``; others are values of the program's ``vars``."""
    from tinymim.experiments.program import SHIPPED

    further = "Further options are values of the program's vars, such as --teacher runs/mine/checkpoints/last.ckpt."
    page = plan_options.parser(
        "papers",
        "Run every part of a program, or go on with it, and write one report of all of them.\n\n"
        "RUN/PART/                    what the part's commands write\n"
        "RUN/plan.json                how each command went\n"
        "RUN/report.html, report.md   written anew after each part\n\n"
        "A part that failed does not keep the others from running. The same command goes on: each part is run again, "
        "and keeps\nwhat it finds done.",
        _about("program", further),
        ("tinymim papers --quick", "tinymim papers --parts study,analysis"),
    )
    page.add_argument("name", nargs="?", default=SHIPPED, help="a program of recipes/papers, or a path")
    page.add_argument("--quick", action="store_true", help="the program's short form, in a folder of its own")
    page.add_argument("--parts", type=lambda names: names.split(","), help="run these parts alone")
    folder = "runs/papers, of another program runs/papers_NAME; runs/..._quick"
    plan_options.add(page, "run_dir", "report_only", folder=folder)
    return page


def plan() -> Page:
    """The options of ``tinymim plan``."""
    about = "Show what a chain, study, scaling study, program or comparison would do, checked; nothing is written."
    page = plan_options.parser("plan", about, examples=("tinymim plan relation_digits", "tinymim plan digits --quick"))
    page.add_argument("name", help="of any of those, a recipe with `compare`, or a path")
    page.add_argument("--quick", action="store_true", help="its short form")
    page.add_argument("--rows", type=_words, default=[], help="of a study, these rows alone")
    page.add_argument("--questions", type=_words, default=[], help="of a study, the rows of these questions alone")
    page.add_argument("--config", action="append", default=[], help="a recipe laid over every fit of a chain")
    plan_options.add(page, "set", "seeds", settings="what the command that runs it takes")
    plan_options.add_trust(page, "a recipe of the plan")
    return page


def status() -> Page:
    """The options of ``tinymim status``."""
    page = plan_options.parser("status", "Tell how far a run is, or a plan of several: a chain, a study or another.")
    page.add_argument("folder", type=Path, help="of the run or the plan")
    return page


def chain() -> Page:
    """The options of ``tinymim chain``."""
    page = Page(prog="tinymim chain", description="Run stages that build on each other.", allow_abbrev=False)
    actions = page.add_subparsers(dest="action", required=True, metavar="run | resume | status | plan")
    run = actions.add_parser("run", help="run a chain", allow_abbrev=False)
    going_on = actions.add_parser("resume", help="go on with the chain in a folder", allow_abbrev=False)
    state = actions.add_parser("status", help="how far the chain in a folder is")
    planned = actions.add_parser("plan", help="what a chain would do, checked; nothing is written", allow_abbrev=False)
    for action in (run, planned):
        action.add_argument("chain", help="a chain of recipes/chains, or a path")
        plan_options.add(action, "set", "seeds")
        action.add_argument("--config", action="append", default=[], help="a recipe laid over every fit's")
    for action in (going_on, state):
        action.add_argument("folder", type=Path, help="of the chain")
    plan_options.add_trust(planned, "a recipe of the chain")
    plan_options.add(run, "run_dir", folder="runs/chain_NAME")
    run.add_argument("--resume", action="store_true", help="go on with what is in the folder, or begin")
    for action in (run, going_on):
        plan_options.add(action, "launch", "jobs", "accept_changes")
    return page


def read_chain(arguments: list[str]) -> argparse.Namespace:
    """Options of :func:`chain`, with underscores or hyphens."""
    spelt = Page()
    plan_options.add(spelt, "run_dir", "accept_changes")
    return chain().parse_args(plan_options.hyphened(spelt, arguments))


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]
