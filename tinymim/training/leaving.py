"""The end of a run of several processes."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys

import torch.distributed as dist


def several() -> bool:
    """Whether this process is connected to others of a run."""
    return dist.is_available() and dist.is_initialized()


def wait_for_all() -> None:
    """Wait until every process of a finished run has come to its end, so that none breaks a connection in use."""
    if several():
        with contextlib.suppress(RuntimeError):  # one that is gone already needs no waiting for
            dist.barrier()


def leave(code: int) -> None:
    """End this process at once, with ``code``, if it is one of several; what is registered for its end is run.

    An orderly end takes down the interpreter and the libraries while gloo's thread still listens, as DDP's reducer
    keeps the process group alive whether or not it is destroyed. That thread then sees the connections of whoever ended
    first break, and may abort the process (SIGABRT) although all its work is done.
    """
    if several():
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
