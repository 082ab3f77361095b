"""Help pages of commands: short ones that fit a screen, and whole ones behind ``--help all``."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Callable
from typing import Any, NoReturn

from typing_extensions import override

from tinymim.config.argument_errors import in_words
from tinymim.near_names import strangers

FURTHER = "further options"


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Paragraphs as wide as the page, listings as they are written, and the argument of an option once, behind its last
    name."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **{"max_help_position": 26, **options})

    @override
    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(_shown(part, width, indent) for part in text.replace("``", "`").split("\n\n"))

    @override
    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        name = self._get_default_metavar_for_optional(action)
        return f"{', '.join(action.option_strings)} {self._format_args(action, name)}"


class Page(argparse.ArgumentParser):
    """A command's parser whose help has a short page.

    That is its first paragraph, examples, and options but the :meth:`further` ones; the whole page has all, and how
    files that the command reads are written.

    Args:
        args: of argparse.
        examples: command lines, one each, with a comment behind ``#`` where there is something to say.
        whole: gives the text that ends the whole page; called for that page alone, as it may import what takes long.
        options: of argparse; texts are shown as they are written.
    """

    def __init__(
        self, *args: Any, examples: tuple[str, ...] = (), whole: Callable[[], str | None] | None = None, **options: Any
    ):
        super().__init__(*args, **{"formatter_class": Formatter, "add_help": False, **options})
        self._examples, self._whole, self._all = examples, whole, False
        self._further: list[argparse._ArgumentGroup] = []
        text, none = "this page; all: the whole one", argparse.SUPPRESS
        self.add_argument("-h", "--help", nargs="?", action=_Help, metavar="all", help=text, dest=none, default=none)

    def further(self, title: str = FURTHER, about: str | None = None) -> argparse._ArgumentGroup:
        """A group of options that the short page leaves out."""
        if not (titled := [group for group in self._further if group.title == title]):
            titled = [self.add_argument_group(title, about)]
            self._further += titled
        return titled[0]

    @override
    def format_help(self) -> str:
        formatter = self._get_formatter()
        hidden = [] if self._all else self._further
        actions = [action for action in self._actions if not any(action in group._group_actions for group in hidden)]
        formatter.add_usage(self._usage(formatter), actions, self._mutually_exclusive_groups)
        about = (self.description or "").strip()
        formatter.add_text(about if self._all else about.partition("\n\n")[0])
        if self._examples:
            formatter.add_text("\n".join(["examples:", *(f"  {line}" for line in self._examples)]))
        for group in self._action_groups:
            if group not in hidden:
                formatter.start_section(group.title)
                formatter.add_text(group.description)
                formatter.add_arguments(group._group_actions)
                formatter.end_section()
        count = sum(len(group._group_actions) for group in hidden)
        options = f"{count} more option{'' if count == 1 else 's'}" if count else ""
        more = [options, "what it reads, in words" if self._whole else ""]
        if not self._all and any(more):
            formatter.add_text(f"{self.prog} --help all: {', and '.join(filter(None, more))}")
        elif self._all and self._whole:
            formatter.add_text(self._whole())
        formatter.add_text(self.epilog)
        return formatter.format_help()

    @override
    def error(self, message: str) -> NoReturn:
        """End with what is wrong, an example where words are missing, and the usage in a line."""
        shown = self._usage(self._get_formatter()) or self.format_usage().removeprefix("usage: ")
        usage, example = " ".join(shown.replace("%(prog)s", self.prog).split()), ""
        if missing := re.match(r"the following arguments are required: (.*)", message):
            optional = {action.dest for action in self._actions if action.nargs == "*"}
            names = [name for name in missing[1].split(", ") if name not in optional]
            example = f", as in: {self._examples[0].partition('  #')[0].strip()}" if self._examples else ""
            words = f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} missing{example}"
        else:
            words = in_words(message, [text for action in self._actions for text in action.option_strings])
        self.exit(2, f"{self.prog}: {words}\nusage: {usage} (`{self.prog} --help` says more)\n")

    def _usage(self, formatter: argparse.HelpFormatter) -> str | None:
        """The usage in a line, in place of all options."""
        if self.usage or self._subparsers:
            return self.usage
        words = []
        for action in self._actions:
            if not action.option_strings:
                words.append(formatter._format_args(action, action.dest.upper()))
            elif action.required:
                words.append(f"{action.option_strings[-1]} {formatter._format_args(action, action.dest.upper())}")
        return " ".join(["%(prog)s", *words, "[options]"])


class _Help(argparse.Action):
    @override
    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option: str | None = None) -> None:
        assert isinstance(parser, Page)
        parser._all = values == "all"
        parser.print_help()
        parser.exit()


def _shown(text: str, width: int, indent: str) -> str:
    """A paragraph as wide as the page, or a listing, whose lines are indented or have columns, as it is."""
    if re.search(r"^ |\S {2,}\S", text, re.MULTILINE):
        return "".join(indent + line for line in text.splitlines(keepends=True))
    words = " ".join(text.split())
    return textwrap.fill(words, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def positive(text: str) -> int:
    """A whole number above 0, for argparse."""
    if not text.strip().isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 1 or more")
    return int(text)


def some(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    """A parser of lists, each of whose parts is ``known``, for argparse."""

    def parse(text: str) -> tuple[str, ...]:
        parts = listed(text)
        if wrong := [part for part in parts if part not in known]:
            raise argparse.ArgumentTypeError(f"there is no {strangers(wrong, known)}")
        return parts

    return parse


def listed(text: str) -> tuple[str, ...]:
    """The parts of ``a,b``, each once."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",")))
