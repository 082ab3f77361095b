"""A command of the table that :mod:`tinymim.cli.main` holds: nothing of it is imported before it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

from tinymim import extras


class Command(NamedTuple):
    """A row of the table.

    Args:
        help: line of ``tinymim --help``.
        function: ``module:function`` in the project; it gets the arguments, and returns an exit code or ``None`` for 0.
        builds: whether it builds what its user names, classes of the working folder among them, by its arguments; other
            commands only look.
        actions: words that come first, each with a help of its own.
        packages: that it needs of :data:`tinymim.extras.EXTRAS`.
        look: function of :mod:`tinymim.cli.first_look` that tells mistakes before anything heavy is imported.
        page: ``module:function`` in the folder of commands that gives its help page, of one whose work imports much.
        lightning: its whole help page is Lightning's.
    """

    help: str
    function: str
    builds: Callable[[list[str]], bool] = lambda arguments: False
    actions: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    look: str = ""
    page: str = ""
    lightning: bool = False

    def module(self) -> Any:
        """Import the module of the function.

        Raises:
            TinymimError: packages that it needs are not installed.
        """
        extras.need("this command needs", *self.packages)
        return importlib.import_module(f"tinymim.{self.function.partition(':')[0]}")

    def first_look(self, arguments: list[str]) -> None:
        """Raise where the arguments cannot be meant, before :meth:`run` imports what takes seconds."""
        if self.look:
            getattr(importlib.import_module("tinymim.cli.first_look"), self.look)(arguments)

    def run(self, arguments: list[str]) -> int:
        """Import the function, and call it."""
        return getattr(self.module(), self.function.partition(":")[2])(arguments) or 0

    def print_help(self, words: list[str]) -> int:
        """Print the help page that ``words`` ask for."""
        if not self.page or (self.lightning and "all" in words):
            return self.run(words[:-1] if self.lightning else words)
        module, _, name = self.page.partition(":")
        getattr(importlib.import_module(f"tinymim.cli.{module}"), name)().parse_args(words)
        return 0
