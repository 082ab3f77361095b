"""A whole number in a recipe is one, whatever was imported before."""

from __future__ import annotations

from typing import get_args

import lightning.pytorch as pl
import pytest

from tinymim.config.parser import Parser, whole_numbers_first


@pytest.mark.parametrize("text", ["1", "1.0"])
def test_batches__one_is_not_all(text: str) -> None:
    parser = Parser()
    parser.add_class_arguments(pl.Trainer, "trainer", fail_untyped=False)
    value = parser.parse_args([f"--trainer.limit_train_batches={text}"]).trainer.limit_train_batches
    assert repr(value) == text


def test_whole_numbers_first() -> None:
    def function(a: object, b: object, c: object) -> None: ...

    function.__annotations__ = {"a": float | int | None, "b": float | None, "c": int | str | float}
    whole_numbers_first(function)
    hints = function.__annotations__
    assert get_args(hints["a"]) == (int, float, type(None))
    assert get_args(hints["b"]) == (float, type(None))
    assert get_args(hints["c"]) == (int, str, float)
