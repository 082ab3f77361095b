"""``tinymim fit | validate | test | predict | check``: the commands over one recipe."""

from __future__ import annotations

from tinymim.errors import TinymimError


def fit(arguments: list[str]) -> None:
    """Train a recipe, and say where the run is."""
    from tinymim.log import say
    from tinymim.training.fit import run

    folder = run("fit", arguments)
    say(f"the run is in {folder}")


def validate(arguments: list[str]) -> None:
    """Validate a checkpoint on its recipe's held-out images."""
    from tinymim.training.fit import run

    run("validate", arguments)


def test(arguments: list[str]) -> None:
    """Test a checkpoint, and write its figures into its run folder."""
    from tinymim.training.fit import run

    run("test", arguments)


def predict(arguments: list[str]) -> int | None:
    """Write features or classes of a recipe's held-out images; without a recipe, of a folder of images."""
    if not names_recipe(arguments):
        from tinymim.cli import predict_command

        return predict_command.main(arguments)
    from tinymim.training.fit import run

    run("predict", arguments)
    return None


def names_recipe(arguments: list[str]) -> bool:
    """Whether ``--config`` is among the arguments."""
    return any(argument.partition("=")[0] == "--config" for argument in arguments)


def check(arguments: list[str]) -> None:
    """Check a recipe whole, train a few steps of it, and write nothing."""
    from tinymim.training.fit import run

    recipe, overrides = _recipe_first(arguments, "check")
    run("fit", ["--config", recipe, *overrides], checking=True)
    print(f"{recipe}: ready to run")


def _recipe_first(arguments: list[str], command: str) -> tuple[str, list[str]]:
    """The recipe that comes first, and the overrides after it."""
    if not arguments or arguments[0].startswith("-"):
        raise TinymimError(f"name a recipe first: tinymim {command} relation_digits [--trainer.max_epochs 5 ...]")
    return arguments[0], arguments[1:]
