"""The parser of recipes: jsonargparse's, with errors of a line, and whole numbers that stay whole."""

from __future__ import annotations

import functools
from collections.abc import Callable
from operator import or_
from typing import Any, NoReturn, get_args

import lightning.pytorch as pl
from lightning.pytorch.cli import LightningArgumentParser
from typing_extensions import override

from tinymim.config import value_types
from tinymim.config.argument_errors import in_words
from tinymim.errors import TinymimError


def whole_numbers_first(function: Callable[..., Any]) -> None:
    """Let a parser try ``int`` before ``float`` where ``function`` takes either: 1 batch is not 1.0, all of them.

    ``Optional[Union[int, float]]`` comes in the order of whoever wrote it first in this process, as typing caches it.
    """
    for name, hint in function.__annotations__.items():
        if {int, float} <= {*get_args(hint)}:
            function.__annotations__[name] = functools.reduce(
                or_, sorted(get_args(hint), key=lambda kind: kind is not int)
            )


whole_numbers_first(pl.Trainer.__init__)
value_types.start_no_python()


class Parser(LightningArgumentParser):
    """jsonargparse with errors of a line instead of a page."""

    @override
    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        lines = [line for line in message.splitlines() if "Subtypes" not in line and "NoneType" not in line]
        if "fit.data" in message or ("required: " in message and "Union subtypes" not in message):
            lines = ["no recipe: name one with --config, such as --config relation_digits"]
        lines[:1] = [in_words(line) for line in lines[:1]]
        raise TinymimError("\n".join(lines[:12])) from None
