"""The one exception that a user is meant to read, and how its text is put together."""


class TinymimError(Exception):
    """A mistake the user can mend; the command prints its message alone and exits with ``code``.

    The message names the field, the value, and what would be right.
    """

    code = 1


def several(heading: str, problems: list[str]) -> TinymimError:
    """One error that lists all ``problems`` under ``heading``, so that they can be mended in one go."""
    if len(problems) == 1:
        return TinymimError(f"{heading}: {problems[0]}")
    return TinymimError(f"{heading}:\n" + "\n".join(f"  - {p}" for p in problems))


def own_words(error: TinymimError) -> str:
    """Its message; of one that a loading process raised, without the traceback that PyTorch puts around it."""
    text = str(error)
    return text.rpartition("tinymim.errors.TinymimError: ")[2].strip() if "DataLoader worker" in text else text


def misfit(error: Exception) -> str:
    """The first lines of PyTorch's error on a state dict that does not fit, as one; of others the first."""
    lines = str(error).splitlines()
    return "; ".join(line.strip() for line in lines[1:4] or lines)[:300]
