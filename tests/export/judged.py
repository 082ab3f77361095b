"""Digits on which exports are judged."""

from __future__ import annotations

from tinymim.data import DigitsData
from tinymim.export.judge import Judge


def images(size: int = 16, count: int = 40) -> Judge:
    """At most ``count`` held-out digits of ``size`` pixels, and as many neighbours."""
    data = DigitsData(image_size=size)
    data.setup("test")
    return Judge("digits", data, count, count)
