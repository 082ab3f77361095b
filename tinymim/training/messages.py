"""Errors of the libraries that stand for a user's mistake, reworded in one sentence of ours."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from tinymim.errors import TinymimError, misfit
from tinymim.log import hush
from tinymim.training.processes import rank

LOST = re.compile(r"(Connection (closed|reset) by|Broken pipe|\[.*gloo|NCCL|Watchdog caught|Timed out waiting)", re.I)
"""PyTorch's collectives, when another process is gone."""


@contextmanager
def readable_errors() -> Iterator[None]:
    """Hide expected warnings, and raise a :class:`TinymimError` where a library's error is a user's to mend."""
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    hush()
    try:
        yield
    except MisconfigurationException as error:
        raise TinymimError(str(error)) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" ({error.filename})" if error.filename else ""
        raise TinymimError(
            f"the disk is full{where}; checkpoints are untouched. Make room, and go on with --ckpt_path last"
        ) from None
    except ValueError as error:
        if "parameter group" not in str(error):
            raise
        raise TinymimError(
            f"ckpt_path: the checkpoint's optimizer does not fit this recipe: {misfit(error)}; go on with the recipe "
            "that the run began with, or start from the weights alone"
        ) from None
    except RuntimeError as error:
        if "Error(s) in loading state_dict" in str(error):
            raise TinymimError(f"ckpt_path: the checkpoint does not fit this recipe: {misfit(error)}") from None
        if LOST.search(str(error)):
            first_line = str(error).strip().splitlines()[0][:200]
            raise TinymimError(
                f"rank {rank()}: another rank died; its error may be printed above ({first_line}). "
                "--ckpt_path last goes on from the newest checkpoint"
            ) from None
        raise
