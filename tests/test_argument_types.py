"""Arguments of the classes and functions that a Python program calls: other types and other names, a line each."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinymim
from tinymim.argument_types import path_of
from tinymim.errors import TinymimError
from tinymim.methods import MAEPretrainer
from tinymim.methods.mae_decoder import Reconstruction
from tinymim.targets import CLS, AttentionMap, Feature, Logits, Relation, Target
from tinymim.targets.base import block_numbers
from tinymim.tasks.deit import Deit

Optim, Architecture = tinymim.Optim, tinymim.Architecture
SMALL = Architecture(options={"depth": 2})


def distiller(**options: Any) -> Any:
    return tinymim.Distiller("digits_mae", SMALL, [Relation()], **options)


TYPES: list[tuple[Callable[..., Any], dict[str, Any], str]] = [
    (Optim, {"base_lr": "a"}, "base_lr: 'a' is not a number"),
    (Optim, {"base_lr": True}, "base_lr: True is not a number"),
    (Optim, {"betas": 0.9}, "betas: 0.9 is not a list of 2 numbers"),
    (Optim, {"betas": [0.9]}, "betas: [0.9] is not a list of 2 numbers"),
    (Optim, {"schedule": "cos"}, "schedule: 'cos' is not one of 'cosine', 'linear'"),
    (Optim, {"warmup_steps": 2.5}, "warmup_steps: 2.5 is not a whole number or None"),
    (Architecture, {"arch": 3}, "arch: 3 is not a text"),
    (Architecture, {"options": "depth"}, "options: 'depth' is not a mapping"),
    (Architecture, {"heads": "3"}, "heads: '3' is not a whole number or a list of whole numbers or None"),
    (Architecture, {"mean": (0.5, "b", 0.5)}, "mean: (0.5, 'b', 0.5) is not a list of 3 numbers"),
    (Reconstruction, {"weight": "a"}, "weight: 'a' is not a number"),
    (Deit, {"teacher": 3}, "teacher: 3 is not a text"),
    (Relation, {"pairs": "qk"}, "pairs: 'qk' is not a list of texts"),
    (Relation, {"heads": "all"}, "heads: 'all' is not 'auto' or a whole number"),
    (Relation, {"teacher_block": "last"}, "teacher_block: 'last' is not a number or a list or None"),
    (AttentionMap, {"loss": "l1"}, "loss: 'l1' is not one of 'kl', 'mse'"),
    (Feature, {"tap": ["q", "z"]}, "tap: ['q', 'z'] is not one of 'ffn_post', "),
    (CLS, {"temperature": None}, "temperature: None is not a number"),
    (Logits, {"t_squared": 1}, "t_squared: 1 is not True or False"),
    *((target, {"weight": "a"}, "weight: 'a' is not a number") for target in (Target, AttentionMap, CLS, Feature)),
    *((target, {"weight": "a"}, "weight: 'a' is not a number") for target in (Logits, Relation)),
]

OTHERS: list[tuple[Callable[..., Any], dict[str, Any], str]] = [
    (Optim, {"lr": 1}, "tinymim.Optim has no argument lr; did you mean base_lr or min_lr?"),
    (Architecture, {"optons": {}}, "tinymim.Architecture has no argument optons; did you mean options?"),
    (Architecture, {"foo": 1}, "tinymim.Architecture has no argument foo; timm's own arguments go into options: Arch"),
    (Relation, {"wieght": 1}, "tinymim.targets.Relation has no argument wieght; did you mean weight?"),
    (Logits, {"foo": 1}, "tinymim.targets.Logits has no argument foo; there are cls, student_block, t_squared, temp"),
    (Deit, {"kinds": "hard"}, "tinymim.tasks.deit.Deit has no argument kinds; did you mean kind?"),
    (distiller, {"drop_pth": 0.1}, "tinymim.Distiller has no argument drop_pth; did you mean drop_path?"),
    (
        distiller,
        {"teacher_veiw": "whole"},
        "tinymim.Distiller has no argument teacher_veiw; did you mean teacher_view?",
    ),
    (distiller, {"foo": 1}, "tinymim.Distiller has no argument foo; there are compile, drop_path, "),
    (
        MAEPretrainer,
        {"architecture": SMALL, "mask_seed": 1},
        "tinymim.methods.MAEPretrainer has no argument mask_seed;",
    ),
    (tinymim.distill, {"lr": 1}, "tinymim.distill has no argument lr; did you mean base_lr?"),
    (
        tinymim.relation_kl,
        {"temprature": 2},
        "tinymim.relation_kl has no argument temprature; did you mean temp",
    ),
    (tinymim.load, {"teacher": "digits_mae"}, "tinymim.load has no argument teacher; there is source"),
]


@pytest.mark.parametrize(("made", "arguments", "says"), [*TYPES, *OTHERS])
def test_argument__of_another_type_or_name_is_told_in_a_line(made: Any, arguments: Any, says: str) -> None:
    with pytest.raises(TinymimError) as raised:
        made(**arguments)
    assert str(raised.value).startswith(says)
    assert "\n" not in str(raised.value)


def test_arguments__all_that_are_wrong_are_told_together() -> None:
    with pytest.raises(
        TinymimError, match=r"^Optim cannot be built:\n  - tinymim.Optim has .*\n  - base_lr: .*\n  - bet"
    ):
        Optim(base_lr="a", betas=3, lr=1)  # type: ignore[arg-type, call-arg]


def test_arguments__of_fitting_types_are_kept_as_they_are() -> None:
    optim = Optim(np.float32(0.5), betas=[0.9, np.float64(0.99)])  # type: ignore[arg-type]
    assert optim.base_lr == 0.5
    assert optim == Optim(0.5, betas=[0.9, 0.99])  # type: ignore[arg-type]
    target = Relation(("qk",), np.int64(3), teacher_block=[0.5, 2])  # type: ignore[arg-type]
    assert target.pairs == ["qk"]
    assert target.teacher_block == [0.5, 2]
    assert Architecture("vit_tiny_patch16_224", heads=[3, 6]).heads == [3, 6]


def test_argument__missing_is_pythons_to_say() -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'teacher'"):
        Deit()  # type: ignore[call-arg]


def test_signature__is_that_of_what_is_checked() -> None:
    assert list(inspect.signature(Optim).parameters)[:3] == ["base_lr", "weight_decay", "betas"]
    assert list(inspect.signature(tinymim.distill).parameters)[:3] == ["teacher", "student", "data"]


def test_path__is_the_shortest_that_shows_it() -> None:
    assert [path_of(each) for each in (Optim, Relation, Deit, block_numbers)] == [
        "tinymim.Optim",
        "tinymim.targets.Relation",
        "tinymim.tasks.deit.Deit",
        "tinymim.targets.base.block_numbers",
    ]
