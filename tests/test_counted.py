"""Numbers stand before nouns that agree with them."""

from __future__ import annotations

import ast
import re

from tests.test_floors import modules
from tinymim.errors import counted, mistaken, plural


def test_counted__one_is_not_several() -> None:
    counts = [(1, "epoch"), (0, "epoch"), (2000, "image"), (1, "class"), (3, "class"), (2, "batch"), (2, "process")]
    words = "1 epoch, 0 epochs, 2,000 images, 1 class, 3 classes, 2 batches, 2 processes"
    assert ", ".join(counted(count, noun) for count, noun in counts) == words
    assert (plural(1, "fit"), plural(2, "fit")) == ("fit", "fits")
    assert str(mistaken("x", ["a", "b"])).splitlines()[0] == "x has 2 mistakes:"


def test_words__leave_no_ending_open() -> None:
    """None says ``1 fit(s)``."""
    open_ended = [
        f"{name}: {node.value}"
        for name, path in modules().items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.search(r"(?<!Error)(?<=[a-z])\((e?s|ies)\)", node.value)
    ]
    assert open_ended == []
