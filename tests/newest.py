"""Plugin of ``make test-newest``: versions other than the pinned ones, behaviours that moved, and deprecated calls.

A deprecation is listed where a line of ``tinymim`` is on the stack, with the library by way of which it came, if one
did. What commands in processes of their own call is not seen.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
OURS = str(PROJECT / "tinymim")
KINDS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)

deprecated: Counter[str] = Counter()
"""Where we called what will go, and how often."""

_warn = warnings.warn


def warn(message: Any, category: Any = None, stacklevel: int = 1, *rest: Any, **named: Any) -> None:
    """``warnings.warn``, which also keeps the nearest line of ours that led to a deprecation."""
    kind = type(message) if isinstance(message, Warning) else category or UserWarning
    if issubclass(kind, KINDS) and (place := _called_from()):
        deprecated[f"{place}{_by_way_of(stacklevel)}: {kind.__name__}: {' '.join(str(message).split())[:200]}"] += 1
    _warn(message, category, stacklevel + 1, *rest, **named)


def _called_from() -> str:
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename.startswith(OURS):
            return f"{Path(frame.f_code.co_filename).relative_to(PROJECT)}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return ""


def _by_way_of(stacklevel: int) -> str:
    """The file that the warning is about, where that is not ours: a call of its authors', and not for us to change."""
    try:
        file = Path(sys._getframe(stacklevel + 1).f_code.co_filename)
    except ValueError:  # the stack is not that deep
        return ""
    return "" if file.is_relative_to(OURS) else f", by way of {'/'.join(file.parts[-3:])}"


def moved(failed: list[str], page: str) -> list[str]:
    """The rows of the page of behaviours that these tests hold."""
    rows = [line for line in page.splitlines() if re.match(r"\| \d+ \|", line)]
    return [row for row in rows if any(f"`{name}`" in row for name in failed)]


def changed(pins: str) -> list[str]:
    """Packages that are installed in another version than the pinned one."""
    lines = []
    for name, pinned in re.findall(r"^([a-z0-9-]+)==(\S+)$", pins, re.MULTILINE):
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            found = "not installed"
        if found != pinned:
            lines.append(f"{name} {pinned} -> {found}")
    return lines


def pytest_configure() -> None:
    """Listen from now on."""
    warnings.warn = warn


def pytest_unconfigure() -> None:
    """Listen no more."""
    warnings.warn = _warn


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Tell what is other than with the pinned versions."""
    failed = [report.nodeid for report in terminalreporter.stats.get("failed", [])]
    parts = {
        "other versions than the pinned ones": changed((PROJECT / "constraints.txt").read_text()),
        "behaviours that moved (docs/behaviours.md)": moved(failed, (PROJECT / "docs/behaviours.md").read_text()),
        "deprecated, and called from tinymim": [f"{count} x {text}" for text, count in sorted(deprecated.items())],
    }
    for title, lines in parts.items():
        terminalreporter.section(title)
        for line in lines or ["none"]:
            terminalreporter.write_line(line)
