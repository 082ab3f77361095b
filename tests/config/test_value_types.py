"""What is wrong with a value is said in the words of people who write recipes, once for each cause."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import pytest
from jsonargparse.typing import NonNegativeInt
from lightning.pytorch.loggers import Logger

from tinymim.config import causes, recipe, value_types
from tinymim.config.options import Saving
from tinymim.targets.base import Target
from tinymim.training import preflight

Kind = Literal["cosine", "linear"]
WORDS: list[tuple[Any, Any, str | None]] = [
    (int, 3, None),
    (int, "many", "'many' is not a whole number"),
    (int, 2.5, "2.5 is not a whole number"),
    (int, None, "null is not a whole number"),
    (int | None, None, None),
    (int | Literal["auto"], "x", "'x' is not a whole number or auto"),
    (NonNegativeInt, -1, "-1 is not a whole number, 0 or more"),
    (float, "fast", "'fast' is not a number"),
    (float, 3, None),
    (int | float | None, "x", "'x' is not a number or null"),
    (bool, "maybe", "'maybe' is not true or false"),
    (bool | int | None, "x", "'x' is not true, false, a whole number or null"),
    (str, 5, "5 is not a text; write '\"5\"' where you mean the text"),
    (str, True, "true is not a text; write '\"true\"' where you mean the text"),
    (str | None, ["a"], "['a'] is not a text or null"),
    (Path, ["a"], "['a'] is not a path"),
    (dict | None, 5, "5 is not a mapping of names to values or null"),
    (list[int], "x", "'x' is not a list of whole numbers"),
    (list[int] | int | None, "x", "'x' is not a list of whole numbers, a whole number or null"),
    (tuple[float, float], 0.2, "0.2 is not a list of 2 numbers"),
    (tuple[float, float], [0.2, 1.0], None),
    (list[str], 5, "5 is not a list of texts"),
    (list[Kind], "x", "'x' is not a list of values, each one of cosine, linear"),
    (Kind, "cosin", "'cosin' is not one of cosine, linear; did you mean cosine?"),
    (Kind, "steps", "'steps' is not one of cosine, linear"),
    (Kind | None, 1, "1 is not one of cosine, linear, null"),
    (list[Target], "x", "'x' is not a list of Target classes; give class_path, and init_args beside it"),
    (Logger | Iterable[Logger] | bool | None, 5, "5 is not a Logger, a list of Logger classes, true, false or null; "
     "give class_path, and init_args beside it"),
    (Saving, 5, "5 is not a mapping of options (every_steps, every_minutes, keep)"),
]  # fmt: skip


@pytest.mark.parametrize(("hint", "value", "words"), WORDS, ids=str)
def test_problem__says_what_is_right(hint: Any, value: Any, words: str | None) -> None:
    assert value_types.problem(hint, value) == words


def test_alone__leaves_out_what_another_mistake_causes() -> None:
    first = ["data.init_args.image_size: 'a' is not a whole number"]
    caused, other = "student.options.img_size: 32, and data.image_size is 224; make them equal", "optim.base_lr: -1"
    assert causes.alone([caused, other, "data.image_sizes: none"], first) == [other, "data.image_sizes: none"]
    assert causes.alone([caused, other], ["data.class_path: x.Y cannot be imported"]) == [other]
    assert causes.alone([caused, other], [other]) == [caused]
    left = "targets: the list is empty"
    assert causes.alone([left, other], ["model.init_args.targets[0].class_path: x.Y cannot be imported"]) == [other]
    assert causes.alone(["data.root is not set: give one"], ["data.init_args.root: 5 is not a text"]) == []


FOLDER = ["--data=ImageFolderData", "--data.root=."]
ONCE = {
    "data.image_size=0": (),
    "data.image_size=abc": FOLDER,
    "data.image_size=null": (),
    "data.image_size=33": (),
    "data.batch_size=0": (),
    "data.num_workers=-1": (),
    "data.root=5": FOLDER,
    "data.crop_pct=0": FOLDER,
    "data.class_path=tinymim.data.DigitData": (),
    "seed_everything=x": (),
    "seed_everything=-1": (),
    "model.teacher=5": (),
    "model.targets=null": (),
    "model.student.options.patch_size=0": (),
    "model.student.options.patch_size=5": (),
    "model.optim.warmup_epochs=null": (),
    "corruptions=5": (),
    "checkpoint=5": (),
    "overwrite=maybe": (),
    "max_rewinds=-1": (),
    "trainer.precision=bf17": (),
}


@pytest.mark.parametrize("option", ONCE)
def test_problems__one_cause_is_one_message(option: str) -> None:
    config, _ = recipe.resolve(["--config", "relation_digits", *ONCE[option], f"--{option}"])
    (line,) = [line for line in preflight.problems(config) if not line.startswith("data.root: .")]
    assert not any(word in line for word in ("<class", "Namespace", "init_args=", "Union", "Optional"))
    assert "bf16, auto, null" in line or "bf17" not in line
