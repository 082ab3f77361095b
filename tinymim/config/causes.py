"""One cause, one message: mistakes of a recipe that follow from another one are not told beside it."""

from __future__ import annotations

import re

FIELD = re.compile(r"[a-z_]\w*(\.\w+|\[\d+\])*(?=: | is )")
"""Name of an option at the beginning of a message."""


def fields(errors: list[str]) -> set[str]:
    """The options that messages are on, by the short names that a command line takes: ``data.image_size``."""
    return {_short(match[0]) for error in errors if (match := FIELD.match(error))}


def alone(errors: list[str], causes: list[str]) -> list[str]:
    """The ``errors`` that name no option that one of ``causes``, found before them, is on.

    A class that cannot be made stands for all of its options; so does a part of the recipe.
    """
    lists = {name.partition("[")[0].removeprefix("model.") for name in fields(causes) if "[" in name}
    errors = [error for error in errors if not fields([error]) & lists]  # of what is left of a list
    wrong = [rf"{re.escape(name)}(?!\w)" for name in fields(causes) if "." in name]
    wrong += [rf"{name}\.[a-z]" for name in fields(causes) if "." not in name]
    if not wrong:
        return errors
    caused = re.compile(rf"(?<![\w.])(?:{'|'.join(wrong)})")
    return [error for error in errors if not caused.search(_short(error))]


def _short(words: str) -> str:
    """Names of options without the steps that a command line leaves out."""
    return re.sub(r"\.(init_args|class_path)\b", "", words)
