"""What a licence of weights asks of those who use them or what was made from them."""

from __future__ import annotations


def warning(licence: str) -> str | None:
    """A sentence to be read before weights under ``licence`` are used, or ``None`` where there is nothing to say."""
    lower = licence.lower()
    if "-nc" in lower or "non-commercial" in lower:
        return f"Not for commercial use: these weights, or a teacher of theirs, are under {licence}."
    if not lower or "unknown" in lower or "none stated" in lower:
        return "No licence is stated for these weights or a teacher of theirs, so none is given: ask before using them."
    return None
