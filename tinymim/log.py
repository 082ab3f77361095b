"""Messages on standard error: the project's own lines, from the first process alone, and no noise of the libraries."""

from __future__ import annotations

import logging
import os
import sys
import warnings

from lightning_utilities.core.rank_zero import rank_zero_only

from tinymim.safety.escaping import terminal

EXPECTED = (
    ".*does not have many workers.*",
    ".*args parameter is intended to run from within Python.*",
    ".*exists and is not empty.*",  # the run folder was claimed on purpose
    ".*callbacks used to create the checkpoint need to be provided.*",
    ".*The dirpath has changed.*",
    ".*is smaller than the logging interval.*",
    ".*your dataloader is not resumable.*",  # the sampler is, by training/exact_resume.py
    ".*could not find the monitored key.*",  # of the best checkpoint, in a run that does not validate
    ".*in eval mode at the start of training.*",  # a probed backbone is meant to be
)
"""Lightning's warnings of what is meant to be so."""

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
"""Variables of launchers that hold the rank, in the order in which Lightning reads them."""


def say(text: str) -> None:
    """Print one line, its control characters spelt out."""
    if _rank() == 0:
        print(terminal(text), file=sys.stderr, flush=True)


def _rank() -> int:
    """Rank of the process: Lightning's, and before that is imported, which takes seconds, the launcher's."""
    launched = (os.environ.get(name, "") for name in RANKS)
    return int(getattr(rank_zero_only, "rank", None) or next(filter(str.isdecimal, launched), 0))


def hush() -> None:
    """Turn off the libraries' expected warnings and Lightning's reports about itself."""
    for logger in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    launcher = logging.getLogger("lightning.fabric.strategies.launchers.subprocess_script")
    launcher.setLevel(logging.INFO)  # reports a child that died
    for message in EXPECTED:
        warnings.filterwarnings("ignore", message)
    # deprecations inside of Lightning are Lightning's to mend: torch's LeafSpec, jsonargparse's old names
    for category in (FutureWarning, DeprecationWarning):
        warnings.filterwarnings("ignore", category=category, module="lightning")
