"""Messages on standard error: the project's own lines, from the first process alone, and no noise of the libraries."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

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

SIZES = ("WORLD_SIZE", "SLURM_NTASKS")
"""Variables of launchers that hold the number of processes."""

SAID, STALE = "tinymim-said-", 600.0
"""Beginning of the names of files that mark what was said, and seconds for which they count."""


_wording: Callable[[str], str] = str


@contextmanager
def reworded(wording: Callable[[str], str]) -> Iterator[None]:
    """Put what is said within it in other words."""
    global _wording
    before, _wording = _wording, wording
    try:
        yield
    finally:
        _wording = before


def say(text: str) -> None:
    """Print one line, its control characters spelt out."""
    if is_first():
        print(terminal(_wording(text)), file=sys.stderr, flush=True)


@dataclass
class Details:
    """Lines on a run that only who asks for all of them reads as they come; its folder keeps them.

    Args:
        shown: say them, too.
    """

    shown: bool = False
    lines: list[str] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    """Short reasons for what was chosen, by its name."""


_details: Details | None = None


@contextmanager
def details(shown: bool) -> Iterator[Details]:
    """Keep what :func:`detail` is given within it, for one run."""
    global _details
    before, _details = _details, Details(shown)
    try:
        yield _details
    finally:
        _details = before


def detail(text: str, **reasons: str) -> None:
    """Say a line on a run, or only keep it, with short reasons that it gives (see :func:`details`)."""
    if _details is None or _details.shown:
        say(text)
    if _details is not None:
        _details.lines.append(text)
        _details.reasons |= reasons


def keeps_details() -> bool:
    """Whether :func:`detail` keeps its lines for a run."""
    return _details is not None


def is_first() -> bool:
    """Whether this is the first process of a run, or the only one."""
    return _rank() == 0


def _rank() -> int:
    """Rank of the process: Lightning's, and before that is imported, which takes seconds, the launcher's."""
    launched = (os.environ.get(name, "") for name in RANKS)
    return int(getattr(rank_zero_only, "rank", None) or next(filter(str.isdecimal, launched), 0))


def first_to_say(text: str) -> bool:
    """Whether no other process of this run has said ``text`` on this machine, so that an error that all of them meet is
    told once, and one of a single process by that one.

    The processes of a run have their launcher in common, which is the first of them where Lightning started the others,
    and where they write to. A file in the folder of temporary ones says that one was first, even before they are
    connected.
    """
    sizes = [int(size) for name in SIZES if (size := os.environ.get(name, "")).isdecimal()]
    if max(sizes, default=2 if "LOCAL_RANK" in os.environ else 1) < 2:  # Lightning takes its WORLD_SIZE away in the end
        return True
    outside = any(name in os.environ for name in ("TORCHELASTIC_RUN_ID", "SLURM_PROCID", "RANK"))
    first = not outside and os.environ.get("LOCAL_RANK", "0") == "0"
    place = "unknown"
    with suppress(OSError, ValueError):
        place = str(os.fstat(sys.stderr.fileno())[1:3])
    words = re.sub(r"rank \d+", "rank", text)
    launcher = f"{os.getpid() if first else os.getppid()} {os.environ.get('TORCHELASTIC_RESTART_COUNT')}"
    key = hashlib.sha256(f"{launcher} {place} {words}".encode()).hexdigest()[:32]
    path = Path(tempfile.gettempdir()) / f"{SAID}{key}"
    with suppress(OSError):
        for old in path.parent.glob(f"{SAID}*"):
            if time.time() - old.stat().st_mtime > STALE:
                old.unlink()
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return False
    except OSError:  # better twice than never
        return True
    return True


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
