"""A stage is checked against what the one before it will leave, before there is a file of it."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import tiny
from tests.experiments.test_plan import MEDIUM, PROBED, SHIPPED, TINY, TUNED, chain
from tests.methods.test_distillation import NoiseData, distiller, trainer
from tinymim.experiments import chain as chains
from tinymim.experiments import plan_check
from tinymim.methods import MAEPretrainer
from tinymim.methods.base import Method
from tinymim.targets import CLS, Feature, Relation
from tinymim.tasks import Classifier
from tinymim.teachers import locate
from tinymim.teachers.weights import RECORD
from tinymim.vit.backbone import skeleton
from tinymim.vit.taps import Tap

QK = [{"class_path": "tinymim.targets.Relation", "init_args": {"pairs": ["qk"]}}]
VV = [{"class_path": "tinymim.targets.Relation", "init_args": {"pairs": ["vv"]}}]
BLOCK_5 = [{"class_path": "tinymim.targets.Feature", "init_args": {"teacher_block": 5}}]


def mistakes(tmp_path: Path, *stages: dict[str, Any]) -> list[str]:
    found = chain(tmp_path, list(stages))
    return plan_check.problems(found, plan_check.check(found), found.stages)


def heads(count: int, width: int) -> dict[str, Any]:
    return {"img_size": 32, "patch_size": 4, "embed_dim": width, "depth": 6, "num_heads": count}


def test_check__the_chain_as_it_should_be(tmp_path: Path) -> None:
    found = chain(tmp_path, [MEDIUM, TINY, TUNED, PROBED, SHIPPED])
    promised = plan_check.check(found)
    assert plan_check.problems(found, promised, found.stages) == []
    left = promised["medium"].leaves
    assert left is not None
    assert (left.skeleton.width, left.skeleton.output_block, left.licence) == (96, 5, "Apache-2.0")
    assert promised["tiny"].model.located.skeleton is left.skeleton


@pytest.mark.parametrize("recipe", ["cls_digits", "feature_digits"])
def test_check__what_a_relation_left_untrained_is_not_read(recipe: str, tmp_path: Path) -> None:
    (found,) = mistakes(tmp_path, MEDIUM, {**TINY, "recipe": recipe})
    assert found.startswith("tiny: ")
    for words in (
        "block 6's ffn_post were not trained",
        "wholly trained block is 5, and of block 6 only q, k, v were",
        "(teacher_block: 5), distil relations of q, k, v",
    ):
        assert words in found


def test_check__what_it_trained_is(tmp_path: Path) -> None:
    assert mistakes(tmp_path, MEDIUM, {**TINY, "recipe": "feature_digits", "set": {"model.targets": BLOCK_5}}) == []
    assert (
        mistakes(
            tmp_path,
            {**MEDIUM, "recipe": ["feature_digits", "parts/student_medium_digits"]},
            {**TINY, "recipe": "cls_digits"},
        )
        == []
    )
    assert (
        mistakes(tmp_path, MEDIUM, {**TUNED, "weights": "medium"}, {**TINY, "recipe": "cls_digits", "teacher": "tuned"})
        == []
    )
    mae = {"name": "mae", "kind": "pretrain", "recipe": "mae_digits"}
    assert mistakes(tmp_path, mae, {**TINY, "recipe": "cls_digits"}) == []


def test_check__q_and_k_alone_do_not_teach_v(tmp_path: Path) -> None:
    half = {**MEDIUM, "set": {"model.targets": QK}}
    (found,) = mistakes(tmp_path, half, {**TINY, "set": {"model.targets": VV}})
    assert "block 6's v were not trained;" in found
    assert "only q, k were" in found
    assert mistakes(tmp_path, half, {**TINY, "set": {"model.targets": QK}}) == []


def test_check__a_width_that_the_teachers_heads_do_not_divide(tmp_path: Path) -> None:
    odd = {**MEDIUM, "set": {"model.student.options": heads(9, 72)}}
    (found,) = mistakes(tmp_path, odd, TINY)
    assert "tiny: heads: 9 does not divide the width 48 of the student" in found
    assert "these do: 1, 2, 3, 4, 6, 8, 12, 16, 24, 48" in found


def test_check__the_head_layout_goes_on(tmp_path: Path) -> None:
    published = {**MEDIUM, "set": {"model.student.options": heads(3, 96), "model.head_layout": "published"}}
    found = chain(tmp_path, [published, {**TINY, "set": {"model.head_layout": "published"}}])
    left = {name: promise.leaves for name, promise in plan_check.check(found).items()}
    assert {name: start.skeleton.heads for name, start in left.items() if start} == {
        "medium": [3, 3, 3, 3, 3, 6],
        "tiny": [3, 3, 3, 3, 3, 6],
    }


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ({**TUNED, "weights": "digits_mae", "recipe": "probe_digits"}, "kind: finetune, .* which is of kind probe"),
        ({**TUNED, "weights": "digits_mae", "recipe": "relation_digits"}, "which is of kind distill"),
        ({"name": "a", "kind": "pretrain", "recipe": "relation_digits"}, "kind: pretrain, and recipe relation_digits"),
        ({**MEDIUM, "set": {"model.drop_paht": 0.1}}, r"medium: model.*drop_path\?"),
        ({**MEDIUM, "teacher": "gone.ckpt"}, "medium: .*gone.ckpt"),
        ({**SHIPPED, "weights": "mae_vitb16"}, "shipped: teacher: the weights of mae_vitb16 are not here"),
    ],
)
def test_check__a_stage_by_itself(stage: dict[str, Any], words: str, tmp_path: Path) -> None:
    found = mistakes(tmp_path, stage)
    assert any(re.search(words, line) for line in found), found


def test_check__a_stage_without_checkpoint_starts_nothing(tmp_path: Path) -> None:
    off = {"set": {"trainer.enable_checkpointing": False}}
    assert "and another stage needs its checkpoint" in " ".join(mistakes(tmp_path, {**MEDIUM, **off}, TINY))
    assert mistakes(tmp_path, MEDIUM, {**TINY, **off}) == []


def test_problems__one_line_for_all_who_share_it(tmp_path: Path) -> None:
    wrong = {"set": {"trainer.max_epoch": 3}}
    (found,) = mistakes(tmp_path, {**MEDIUM, **wrong}, {**TINY, **wrong})
    assert found.startswith("medium, tiny: trainer.max_epoch: ")
    others = [{**TINY, **wrong, "name": f"tiny_{place}"} for place in range(3)]
    (found,) = mistakes(tmp_path, {**MEDIUM, **wrong}, *others)
    assert found.startswith("trainer.max_epoch: no such option of lightning's Trainer; did you mean max_epochs?")
    assert found.endswith(" (in all 4 stages, from medium on)")
    (found,) = mistakes(tmp_path, MEDIUM, *others, {**TINY, **wrong})
    assert found.endswith(" (in 4 stages, from tiny_0 on)"), "which names the field first"


@pytest.mark.parametrize("name", ["digits_l_m_s", "paper", "paper_ablation"])
def test_chains__as_shipped_fit(name: str) -> None:
    found = chains.load(name)
    promised = plan_check.check(found)
    absent = ("teacher: the weights of mae_vit", "data.root is not set")
    for line in plan_check.problems(found, promised, found.stages):
        assert line.startswith(absent) or line.partition(": ")[2].startswith(absent), line
    assert all(promise.leaves for promise in promised.values())


def test_paper__block_18_of_vit_l_and_16_heads_to_the_end() -> None:
    promised = plan_check.check(chains.load("paper"))
    assert promised["base"].model.targets[0].blocks == [(18, 12)]
    for name, width in (("base", 768), ("small", 384), ("tiny", 192)):
        assert promised[name].leaves is not None
        network = promised[name].leaves.skeleton
        assert (network.width, network.heads[-1]) == (width, 16)
        assert promised[name].leaves.licence == "CC-BY-NC-4.0"


def modules() -> dict[str, Method]:
    return {
        "relation": distiller(),
        "qk": distiller(Relation(pairs=["qk"]), head_layout="published"),
        "feature": distiller(Feature(student_block=2, teacher_block=2), CLS(student_block=1)),
        "mae": MAEPretrainer(tiny(12, 3), decoder_width=8, decoder_depth=1, decoder_heads=2),
        "probe": Classifier("tiny_teacher", linear_probe=True),
        "finetune": Classifier(None, tiny(12, 3), num_classes=2, blocks=2, head_layout="uniform", neck=8),
    }


@pytest.mark.parametrize("name", ["relation", "qk", "feature", "mae", "probe", "finetune"])
def test_leaves__is_what_the_checkpoint_says(name: str, teacher_card: Path, tmp_path: Path) -> None:
    module = modules()[name]
    assert module.problems(16) == []  # type: ignore[attr-defined]
    promised = module.checkpoint_record()
    fresh = modules()[name]
    trainer(tmp_path, max_epochs=0).fit(fresh, datamodule=NoiseData())
    content: dict[str, Any] = {}
    fresh.on_save_checkpoint(content)
    record = {key: value for key, value in content[RECORD].items() if key not in ("teacher", "start")}
    record["backbone"]["architecture"]["options"].pop("num_classes", None)  # a card's classifier is left behind
    if "classifier" in promised and not module.num_classes:  # type: ignore[attr-defined]
        record["classifier"]["classes"] = 1
    assert promised == record


@pytest.mark.parametrize(
    ("targets", "output", "beyond"),
    [
        ([Tap(3, "q"), Tap(3, "k")], 2, ["q", "k"]),
        ([Tap(3, "attn_pre")], 2, ["q", "k", "v"]),
        ([Tap(2, "ffn_post"), Tap(1, "q")], 2, []),
        ([Tap(2, "v"), Tap(1, "ffn_post")], 1, ["v"]),
        ([Tap(1, "q")], 1, []),
    ],
)
def test_set_output_block__by_hand(targets: list[Tap], output: int, beyond: list[str]) -> None:
    network = skeleton(tiny(12, 3))
    network.set_output_block(targets)
    assert (network.output_block, network.trained_qkv) == (output, beyond)
    assert network.trained(Tap(output, "ffn_post"))
    assert not network.trained(Tap(output + 1, "ffn_pre"))
    assert [name for name in "qkv" if network.trained(Tap(output + 1, name))] == beyond


def test_records__of_before_mean_all_three(teacher_card: Path, tmp_path: Path) -> None:
    module = distiller(Relation(pairs=["qk"]))
    assert module.problems(16) == []
    record = module.checkpoint_record()
    assert locate.promised("x", record).skeleton.trained_qkv == ["q", "k"]
    del record["backbone"]["beyond"]
    assert locate.promised("x", record).skeleton.trained_qkv == ["q", "k", "v"]
    assert all(parameter.is_meta for parameter in locate.promised("x", record).skeleton.parameters())


def test_kind__of_a_segmentation_is_finetune(tmp_path: Path) -> None:
    masks = {"name": "masks", "kind": "finetune", "recipe": "segment_shapes", "weights": "medium"}
    found = chain(tmp_path, [MEDIUM, masks])
    promised = plan_check.check(found)
    assert plan_check.problems(found, promised, found.stages) == []
    left = promised["masks"].leaves
    assert left is not None
    assert (left.skeleton.width, left.skeleton.output_block, left.licence) == (96, 6, "Apache-2.0")
    (wrong,) = mistakes(tmp_path, MEDIUM, {**masks, "kind": "probe"})
    assert "trains a Segmenter, which is of kind finetune" in wrong
    tabled = chain(tmp_path, [MEDIUM, masks], compare={"title": "a table", "rows": {"a row": ["masks"]}})
    (wrong,) = plan_check.problems(found, plan_check.check(tabled), tabled.stages)
    assert wrong.startswith("masks: compare.rows: they show accuracy on labels")


@pytest.mark.parametrize(("recipe", "kind"), [("semantic_shapes", "finetune"), ("probe_geometric_shapes", "probe")])
def test_kind__of_tasks_on_scenes_is_probe_where_they_are_frozen(recipe: str, kind: str, tmp_path: Path) -> None:
    tasks = {"name": "tasks", "kind": kind, "recipe": recipe, "weights": "medium"}
    found = chain(tmp_path, [MEDIUM, tasks], compare={"title": "a table", "rows": {"a row": ["tasks"]}})
    (wrong,) = plan_check.problems(found, plan_check.check(found), found.stages)
    assert wrong.startswith("tasks: compare.rows: they show accuracy on labels, and this stage is measured otherwise")


def test_show__a_test_trains_nothing() -> None:
    stage: Any = SimpleNamespace(kind="test", start="digits_mae")
    promise: Any = SimpleNamespace(model=None, leaves=locate.locate("digits_mae"))
    titles = [title for title, _ in plan_check._lines(stage, promise, {})]
    assert titles == ["from", "network"], "no epochs, and no licence of a checkpoint that there will not be"


def test_show__a_student_has_a_teacher_and_starts_from_nothing_of_it() -> None:
    promise: Any = SimpleNamespace(model=None, leaves=None)
    stage: Any = SimpleNamespace(kind="distill", start="digits_mae")
    assert plan_check._lines(stage, promise, {})[0] == ("teacher", "digits_mae")
    stage = SimpleNamespace(kind="finetune", start="digits_mae")
    assert plan_check._lines(stage, promise, {})[0] == ("from", "digits_mae")
