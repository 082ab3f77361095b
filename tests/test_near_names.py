"""Names near a misspelt one: typical slips are met, and what is only the least far is not suggested."""

from __future__ import annotations

import pytest

from tinymim.cli.main import COMMANDS
from tinymim.near_names import near, nearest, strangers

OPTIONS = ["base_lr", "batch_size", "drop_path", "head_layout", "image_size", "mask_ratio", "max_epochs", "num_workers"]
OPTIONS += ["optim", "teacher"]
CARDS = ["digits_mae", "dinov2_reg_vits14", "fashion_mae", "mae_vitb16", "mae_vitl16"]
METRICS = ["val/loss", "val/knn_top1"]

MEANT = {  # a letter too many, missing, wrong or turned around; case and signs; a part of the name
    "commands": (COMMANDS, "fitt:fit fti:fit tset:test chian:chain plna:plan recpies:recipes distil:distill "
                 "distillation:distill analyse:analyze teacher:teachers evaluate:validate Report:report"),
    "options": (OPTIONS, "techer:teacher base_rl:base_lr lr:base_lr epochs:max_epochs batchsize:batch_size "
                "image-size:image_size imgsize:image_size workers:num_workers droppath:drop_path optimizer:optim"),
    "cards": (CARDS, "digits_maee:digits_mae digits_may:digits_mae mae_vitb:mae_vitb16 dinov2:dinov2_reg_vits14"),
    "metrics": (METRICS, "val_loss:val/loss knn:val/knn_top1"),
}  # fmt: skip

UNRELATED = {
    "commands": (COMMANDS, "train run list help x a go digits eval analysis 5"),
    "options": (OPTIONS, "head_alignment rate foo gradient_clip path_to x"),
    "cards": (CARDS, "resnet50 clip mnist_mae nothing"),
}


@pytest.mark.parametrize("kind", MEANT)
def test_near__a_slip_of_the_hand(kind: str) -> None:
    names, pairs = MEANT[kind]
    meant = dict(pair.split(":") for pair in pairs.split())
    assert {word: nearest(word, names)[:1] for word in meant} == {word: [name] for word, name in meant.items()}


@pytest.mark.parametrize("kind", UNRELATED)
def test_near__another_word(kind: str) -> None:
    names, words = UNRELATED[kind]
    assert {word: nearest(word, names) for word in words.split()} == {word: [] for word in words.split()}


def test_near__ends_a_message() -> None:
    assert near("cosin", ["linear", "cosine"]) == "; did you mean cosine?"
    assert near("train", ["fit", "chain"]) == "; there are chain, fit"
    assert near("foo", ["source"]) == "; there is source"
    assert near("lr", ["base_lr", "batch_size", "min_lr"]) == "; did you mean base_lr or min_lr?"
    assert nearest("mae", CARDS, 2) == ["mae_vitb16", "mae_vitl16"]


def test_strangers__each_with_the_name_near_it() -> None:
    names = ["relation", "scratch"]
    assert strangers(["relationn"], names) == "'relationn'; did you mean relation?"
    assert strangers(["relationn", "scrach"], names) == (
        "'relationn' (did you mean relation?), 'scrach' (did you mean scratch?)"
    )
    assert strangers(["nothing", "scrach"], names) == (
        "'nothing', 'scrach' (did you mean scratch?); there are relation, scratch"
    )
    assert strangers(map(str, range(20)), names).endswith("'7' and 12 more; there are relation, scratch")
