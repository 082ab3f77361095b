"""``tinymim fit | validate | test | predict | check``: the commands over one recipe, which may also come first."""

from __future__ import annotations

from tinymim.errors import TinymimError

VERBOSE = ("-v", "--verbose")
"""Asks for all lines before a fit begins."""


def fit(arguments: list[str]) -> None:
    """Train a recipe, and say where the run is."""
    from tinymim.log import say
    from tinymim.training.fit import run

    words = [word for word in arguments if word not in VERBOSE]
    folder = run("fit", named(words), verbose=len(words) < len(arguments))
    say(f"the run is in {folder}; `tinymim report {folder}` makes its page")


def validate(arguments: list[str]) -> None:
    """Validate a checkpoint on its recipe's held-out images."""
    from tinymim.training.fit import run

    run("validate", named(arguments))


def test(arguments: list[str]) -> None:
    """Test a checkpoint, and write its figures into its run folder."""
    from tinymim.training.fit import run

    run("test", named(arguments))


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

    if not arguments or arguments[0].startswith("-"):
        raise TinymimError("name a recipe first: tinymim check relation_digits [--trainer.max_epochs 5 ...]")
    run("fit", named(arguments), checking=True)
    print(f"{arguments[0]}: ready to run")


def named(arguments: list[str]) -> list[str]:
    """Arguments with ``--config`` before a recipe that comes first."""
    return ["--config", *arguments] if arguments and not arguments[0].startswith("-") else arguments
