"""Messages of a run in the words of the Python call that began it: its arguments in place of options and fields."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import yaml

from tinymim import log
from tinymim.config.options import COMMAND_KEYS, KEYS
from tinymim.errors import TinymimError

PHRASES = {" in place of --ckpt_path last": "", "--ckpt_path last": "the same call"}
"""Words of the command line for which a call, that goes on by itself, has no argument."""

VALUE = r"[A-Z][A-Z_]+\b|'[^']*'|-?\d(?:[\w.-]*\w)?|(?:true|false|null|auto|rewind|cpu)\b|\w+(?:\.\w+)+"
"""A value behind an option, told from prose: a placeholder, a quoted text, a number, a known word, a class path."""

NULL = re.compile(r"(?<![\w./'-])null(?![\w./'-])")

OPTION = re.compile(rf"--([a-z]\w*(?:\.\w+)*)(?:[ =]({VALUE}))?")


@contextmanager
def in_python(arguments: Mapping[str, str]) -> Iterator[None]:
    """Say what is said within it, and the error that ends it, in the words of a Python call.

    Args:
        arguments: of the call, by the fields of the recipe that they become.
    """

    def words(text: str) -> str:
        return worded(text, arguments)

    try:
        with log.reworded(words):
            yield
    except TinymimError as error:
        error.args = (words(str(error)), *error.args[1:])
        raise


def worded(text: str, arguments: Mapping[str, str]) -> str:
    """A message with the arguments of a call in place of options of the command line, ``--data.batch_size 8``, and of
    fields of a recipe, ``data.batch_size``; commands in backticks stay."""
    return "".join(
        part if part.startswith("`") else NULL.sub("None", _fields(_options(part, arguments), arguments))
        for part in re.split(r"(`[^`\n]*`)", text)
    )


def _options(text: str, arguments: Mapping[str, str]) -> str:
    for phrase, words in PHRASES.items():
        text = text.replace(phrase, words)

    def argument(option: re.Match[str]) -> str:
        name, value = option[1].replace("init_args.", ""), option[2]
        if name.partition(".")[0] not in KEYS | COMMAND_KEYS:
            return option[0]
        known = arguments.get(name)
        if value is None:
            return known or f"options['{name}']"
        literal = repr(value if value.isupper() else yaml.safe_load(value))
        return f"{known}={literal}" if known else f"options={{'{name}': {literal}}}"

    return OPTION.sub(argument, text)


def _fields(text: str, arguments: Mapping[str, str]) -> str:
    """Options of a model are told with or without ``model.`` before them; a field that is also a word of English stands
    before a colon."""
    named = {name.removeprefix("model."): argument for name, argument in arguments.items()}
    text = re.sub(r"(?<![\w./'-])(model|data)\.init_args\.", lambda part: "" if part[1] == "model" else "data.", text)
    longest_first = sorted(named, key=len, reverse=True)
    names = "|".join(f"{re.escape(name)}{'(?=:)' if name.isalpha() else ''}" for name in longest_first)
    return re.sub(rf"(?<![\w./'=-])(?:model\.)?({names})(?![\w/'=-]|\.\w)", lambda field: named[field[1]], text)
