"""Expected warnings kept quiet, and other people's words for a user's mistake put in a sentence of ours."""

from __future__ import annotations

import errno
import logging
import re
import warnings
from collections.abc import Callable
from typing import TypeVar

from tinymim.errors import TinymimError, misfit
from tinymim.training.preemption import rank

T = TypeVar("T")

LOST = re.compile(r"(Connection (closed|reset) by|Broken pipe|\[.*gloo|NCCL|Watchdog caught|Timed out waiting)", re.I)
"""What the collectives of PyTorch say when another process is gone."""


def hush() -> None:
    """Turn off warnings that are expected, and what Lightning says about itself."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric.strategies.launchers.subprocess_script").setLevel(logging.INFO)  # a dead child
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*args parameter is intended to run from within Python.*")
    warnings.filterwarnings("ignore", ".*exists and is not empty.*")  # the folder was claimed on purpose
    warnings.filterwarnings("ignore", category=FutureWarning, module="lightning")
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", ".*callbacks used to create the checkpoint need to be provided.*")
    warnings.filterwarnings("ignore", ".*The dirpath has changed.*")
    warnings.filterwarnings("ignore", ".*is smaller than the logging interval.*")
    warnings.filterwarnings("ignore", ".*your dataloader is not resumable.*")  # the sampler is, by run/exact.py
    warnings.filterwarnings("ignore", ".*in eval mode at the start of training.*")  # a probed backbone is meant to be


def quietly(build: Callable[[], T]) -> T:
    """Run with expected warnings off, and with Lightning's own words for a user's mistake as ours."""
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    hush()
    try:
        return build()
    except MisconfigurationException as error:
        raise TinymimError(str(error)) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            where = f" ({error.filename})" if error.filename else ""
            raise TinymimError(
                f"the disk is full{where}; checkpoints are untouched. Make room, and go on with --ckpt_path last"
            ) from None
        raise
    except RuntimeError as error:
        if "Error(s) in loading state_dict" in str(error):
            raise TinymimError(f"ckpt_path: the checkpoint does not fit this recipe: {misfit(error)}") from None
        if LOST.search(str(error)):
            raise TinymimError(
                f"process {rank()} lost another one of this run, whose own words may stand above "
                f"({str(error).strip().splitlines()[0][:200]}). --ckpt_path last goes on from the newest checkpoint"
            ) from None
        raise
