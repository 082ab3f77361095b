"""``tinymim resume FOLDER``: go on with whatever a folder holds: a run, or a plan of any kind."""

from __future__ import annotations

from pathlib import Path

from tinymim.cli import chain_command, plan_options
from tinymim.cli.main import COMMANDS
from tinymim.errors import TinymimError
from tinymim.experiments import state
from tinymim.log import say
from tinymim.training.run_folder import RECIPE

BEGUN_BY = {
    "scaling study": "scaling",
    "study": "study",
    "comparison": "distill",
    "search": "search",
    "program": "papers",
}
"""The command by the kind of plan that it begins."""


def main(arguments: list[str]) -> int:
    """Go on with a plan, by the command that its state says it was begun with, or with a fit from its saved recipe;
    further arguments are those of either.

    Raises:
        TinymimError: the folder holds neither, or a command that does not begin such a plan.
    """
    if not arguments or arguments[0].startswith("-"):
        raise TinymimError("name the folder of a run or of a plan first: tinymim resume runs/relation_digits")
    place, further = Path(arguments[0]), arguments[1:]
    if state.holds(place):
        plan = state.load(place).plan
        if plan.kind == "chain":
            return chain_command.main(["resume", *arguments])
        name = BEGUN_BY[plan.kind]
        module = COMMANDS[name].module()
        options = module.parser()
        words = [*plan_options.begun(options, plan.command, str(place)), *further]
        parsed = module.parse(words)  # a slip of the keys is told before anything is said to go on
        args, overrides = parsed if isinstance(parsed, tuple) else (parsed, None)
        say(f"going on with: {plan_options.again(options, args, overrides)}")
        return module.main(words)
    state.check_held(place)
    from tinymim.cli.recipe_commands import fit

    fit(["--config", str(place / RECIPE), "--run_dir", str(place), "--ckpt_path", "last", *further])
    return 0
