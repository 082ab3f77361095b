"""Words for the user, on standard error, from the first process alone."""

import sys

from lightning.pytorch.utilities import rank_zero_only

from tinymim.safety.shown import terminal


@rank_zero_only
def say(text: str) -> None:
    """Print one line."""
    print(terminal(text), file=sys.stderr, flush=True)
