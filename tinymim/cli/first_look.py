"""First look at the words of a command: what they and the names of files show to be wrong is told before PyTorch and
Lightning are imported, which takes seconds.

Each function takes a command's arguments. What it lets pass is checked again, and whole, by the command itself.
"""

from __future__ import annotations

import os
from pathlib import Path

from tinymim import log
from tinymim.analysis.captions import RANDOM
from tinymim.cli import network_command_options, plan_command_options, plan_options
from tinymim.cli.recipe_commands import VERBOSE, named, names_recipe
from tinymim.config import recipe, references, spec, trainer_parts
from tinymim.config.options import COMMAND_KEYS, KEYS
from tinymim.errors import TinymimError, field_called, mistaken, several
from tinymim.experiments import compare, state
from tinymim.safety import text
from tinymim.scaling import table
from tinymim.teachers import weights_file
from tinymim.training import data_source, run_folder


def fit(arguments: list[str]) -> None:
    """Raise where the recipe cannot be read, or its run may not begin in its folder."""
    if any(word.startswith("--print_config") for word in arguments):
        return
    config, _ = recipe.resolve(named([word for word in arguments if word not in VERBOSE]))
    if config and log.is_first():  # another process may come when the run has begun
        _may_begin(config)


def of_recipe(arguments: list[str]) -> None:
    """Raise where the recipe cannot be read."""
    recipe.resolve(named(arguments))


def distill(arguments: list[str]) -> None:
    """Raise where the recipe cannot be read, or is compared with nothing."""
    args, overrides = plan_command_options.read_distill(arguments)
    config, _ = recipe.resolve(["--config", args.recipe, *overrides])
    if not config.get("compare"):
        raise compare.uncompared(args.recipe)


def _may_begin(config: recipe.Config) -> None:
    place, name, checkpoint = (references.filled(config.get(key)) for key in ("run_dir", "name", "ckpt_path"))
    folder = Path(str(place)) if place else Path("runs") / str(name)
    try:
        overwrite = config.get("overwrite") is True
        run_folder.look(folder, run_folder.goes_on(folder, checkpoint, overwrite), overwrite)
    except TinymimError as error:  # by whose advice a run may be lost, and the next word be of a misspelling
        if wrong := _unknown(config):
            raise mistaken("the command", [*wrong, str(error)]) from None
        raise


def _unknown(config: recipe.Config) -> list[str]:
    """Keys of a recipe and options of its trainer that there are not, a line each; classes stay unopened."""
    from tinymim.config import validation

    errors: list[str] = []
    validation.drop_unknown(dict(config), "", KEYS | COMMAND_KEYS, "a recipe", errors)
    if isinstance(trainer := config.get("trainer"), dict) and (known := trainer_parts.written_options()):
        validation.drop_unknown(dict(trainer), "trainer", known, "lightning's Trainer", errors)
    return errors


def study(arguments: list[str]) -> None:
    """Raise where there is no study of that name."""
    args, _ = plan_options.overrides(plan_command_options.study(), arguments, "study")
    spec.find("study", args.name)


def chain(arguments: list[str]) -> None:
    """Raise where there is no chain of that name, or none in the folder."""
    args = plan_command_options.read_chain(arguments)
    if args.action in ("run", "plan"):
        spec.find("chain", args.chain)
    else:
        state.load(args.folder)


def scaling(arguments: list[str]) -> None:
    """Raise where there is no study of that name, or no table."""
    options = plan_command_options.scaling()
    args = options.parse_args(plan_options.hyphened(options, arguments))
    if args.table:
        text.contents(args.table, f"table: {args.table}", table.MOST_BYTES)
    elif args.study:
        spec.find("scaling study", args.study)


def predict(arguments: list[str]) -> None:
    """Raise where the images or the checkpoint are not there; without a recipe, of which :func:`of_recipe` knows."""
    if names_recipe(arguments):
        return of_recipe(arguments)
    options = network_command_options.predict().parse_args(arguments)
    data_source.check_folder(options.images)
    with field_called("checkpoint"):
        weights_file.check_named(options.checkpoint)
    return None


def report(arguments: list[str]) -> None:
    """Raise where there is no run, or no folder of images."""
    options = network_command_options.report().parse_args(arguments)
    for place in (options.run, *options.others):
        run_folder.check_run(place)
    if options.images:
        data_source.check_folder(options.images)


def bench(arguments: list[str]) -> None:
    """Raise where networks or data are not there."""
    options = network_command_options.bench().parse_args(arguments)
    with field_called("NETWORK"):
        for source in options.networks:
            weights_file.check_named(source)
    data_source.check(options.data or "")


def analyze(arguments: list[str]) -> None:
    """Raise where networks or data are not there."""
    options, errors = network_command_options.analyze().parse_args(arguments), []
    for model in options.models:
        source = model if os.path.exists(model) else model.partition("=")[2] or model  # noqa: PTH110  # of any length
        try:
            weights_file.check_named(source.removeprefix(RANDOM))
        except TinymimError as error:
            errors.append(str(error).removeprefix("teacher: "))
    if errors:
        raise several("models", errors)
    data_source.check(options.data)


def replay(arguments: list[str]) -> None:
    """Raise where there is no captured step."""
    options, _ = network_command_options.replay().parse_known_args(arguments)
    run_folder.check_capture(options.file)


def resume(arguments: list[str]) -> None:
    """Raise where the folder holds nothing to go on with."""
    if not arguments or arguments[0].startswith("-"):
        raise TinymimError("name the folder of a run or of a plan first: tinymim resume runs/relation_digits")
    state.check_held(Path(arguments[0]))


def status(arguments: list[str]) -> None:
    """Raise where the folder holds neither a plan nor a run."""
    state.check_held(plan_command_options.status().parse_args(arguments).folder)
