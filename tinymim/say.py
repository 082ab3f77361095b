"""Words for the user, on standard error, from the first process alone."""

import sys

from lightning.pytorch.utilities import rank_zero_only


@rank_zero_only
def say(text: str) -> None:
    """Print one line."""
    print(text, file=sys.stderr, flush=True)
