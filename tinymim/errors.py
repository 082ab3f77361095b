"""Errors for users: printed without a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager

MOST = 100
"""Mistakes that are shown at once: a file of others' may have thousands."""


class TinymimError(Exception):
    """A mistake that the user can mend; the command prints its message alone and exits with ``code``.

    The message names the field, the value, and what would be right.
    """

    code = 1


@contextmanager
def field_called(name: str, other: str = "teacher") -> Iterator[None]:
    """Within it, messages on the field ``other`` name the argument ``name`` of a command that has no such field."""
    try:
        yield
    except TinymimError as error:
        if str(error).startswith(f"{other}: "):
            error.args = (f"{name}: {str(error).removeprefix(f'{other}: ')}",)
        raise


def several(heading: str, problems: list[str]) -> TinymimError:
    """One error that lists all ``problems`` under ``heading``, so that they can be mended in one go; the first
    :data:`MOST` of thousands."""
    if len(problems) == 1:
        return TinymimError(f"{heading}: {problems[0]}")
    more = [f"and {len(problems) - MOST:,} more"] if len(problems) > MOST else []
    return TinymimError(f"{heading}:\n" + "\n".join(f"  - {p}" for p in [*problems[:MOST], *more]))


def own_words(error: TinymimError) -> str:
    """Message of an error; of one from a loading process, without the traceback that PyTorch puts around it."""
    text = str(error)
    return text.rpartition("tinymim.errors.TinymimError: ")[2].strip() if "DataLoader worker" in text else text


def misfit(error: Exception) -> str:
    """First lines of PyTorch's error on a state dict that does not fit, as one; of other errors the first."""
    lines = str(error).splitlines()
    return "; ".join(line.strip() for line in lines[1:4] or lines)[:300]


def mistaken(what: str, problems: list[str]) -> TinymimError:
    """One error on ``what``, such as a recipe, that lists all its ``problems``, and says how many there are."""
    return several(f"{what} has {counted(len(problems), 'mistake')}", problems)


def plural(count: int, noun: str, others: str = "") -> str:
    """``noun`` as it stands behind ``count``: ``image`` behind 1, else ``images``, or ``others`` of verbs."""
    if count == 1:
        return noun
    return others or (f"{noun}es" if noun.endswith(("s", "x", "sh", "tch")) else f"{noun}s")


def counted(count: int, noun: str) -> str:
    """A number with what it is of: ``1 image``, ``2,000 images``."""
    return f"{count:,} {plural(count, noun)}"


def first_few(names: list[str], most: int = 3) -> str:
    """The first names, and how many more."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
