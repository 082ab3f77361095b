"""Chains as written, and every mistake in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tinymim.config import recipe as recipes
from tinymim.errors import TinymimError
from tinymim.experiments import chain as chains
from tinymim.experiments import plan, plan_changes

MEDIUM = {"name": "medium", "kind": "distill", "recipe": "relation_medium_digits", "teacher": "digits_mae"}
TINY = {"name": "tiny", "kind": "distill", "recipe": "relation_digits", "teacher": "previous"}
TUNED = {"name": "tuned", "kind": "finetune", "recipe": "finetune_digits", "weights": "tiny"}
PROBED = {"name": "probed", "kind": "probe", "recipe": "probe_digits", "weights": "tiny"}
SHIPPED = {"name": "shipped", "kind": "export", "weights": "tiny"}
WHOLE = [MEDIUM, TINY, TUNED, PROBED, SHIPPED]


def chain(tmp_path: Path, stages: list[dict[str, Any]], settings: list[str] | None = None, **content: Any) -> plan.Plan:
    path = tmp_path / "some.yaml"
    path.write_text(yaml.safe_dump({"stages": stages, **content}, sort_keys=False))
    return chains.load(str(path), settings)


def init_args(stage: plan.Stage) -> dict[str, Any]:
    return stage.config["model"]["init_args"]


def test_load__starts_from_timms_weights_by_name(tmp_path: Path) -> None:
    found = chain(tmp_path, [{**MEDIUM, "teacher": "timm:vit_base_patch16_224.mae"}])
    assert init_args(found.stages["medium"])["teacher"] == "timm:vit_base_patch16_224.mae"
    assert found.stages["medium"].parent is None


def test_load__stages_in_an_order_that_can_run_and_what_each_starts_from(tmp_path: Path) -> None:
    found = chain(tmp_path, [TUNED, {**TINY, "teacher": "medium"}, MEDIUM, SHIPPED, PROBED])
    assert list(found.stages) == ["medium", "tiny", "tuned", "shipped", "probed"]
    assert [stage.parent for stage in found.stages.values()] == [None, "medium", "tiny", "tiny", "tiny"]
    assert init_args(found.stages["medium"])["teacher"] == "digits_mae"
    assert init_args(found.stages["tiny"])["teacher"] == "medium/checkpoints/last.ckpt"
    tuned = init_args(found.stages["tuned"])
    assert (tuned["weights"], tuned["architecture"]) == ("tiny/checkpoints/last.ckpt", None)


def test_load__previous_is_the_nearest_backbone_above(tmp_path: Path) -> None:
    found = chain(tmp_path, [MEDIUM, {**PROBED, "weights": "medium"}, TINY])
    assert found.stages["tiny"].parent == "medium"
    with pytest.raises(TinymimError, match=r"tiny\.teacher: previous might mean tuned"):
        chain(tmp_path, [MEDIUM, {**TUNED, "weights": "medium"}, TINY])
    with pytest.raises(TinymimError, match=r"tiny\.teacher: previous, and no stage above"):
        chain(tmp_path, [TINY])


def test_load__branches_and_starts_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.ckpt").write_text("")
    other = {**TINY, "name": "other", "teacher": "medium"}
    scratch = {**TUNED, "name": "scratch", "weights": None}
    mine = {**TUNED, "name": "mine", "weights": "mine.ckpt"}
    found = chain(tmp_path, [MEDIUM, TINY, other, scratch, mine])
    assert [found.stages[name].parent for name in ("tiny", "other", "scratch", "mine")] == [
        "medium",
        "medium",
        None,
        None,
    ]
    assert found.stages["mine"].start == str(tmp_path / "mine.ckpt"), "wherever it is resumed from"
    assert init_args(found.stages["scratch"])["weights"] is None
    assert init_args(found.stages["scratch"])["architecture"]["arch"] == "vit_tiny_patch16_224"


def test_load__the_seed_is_left_open(tmp_path: Path) -> None:
    found = chain(tmp_path, WHOLE, seeds=[3, 5])
    assert [(key, fit.seed) for key, fit in found.fits.items()][::5] == [("seed3/medium", 3), ("seed5/medium", 5)]
    assert found.parent("seed5/tiny") == "seed5/medium"
    config = found.stages["tiny"].config
    assert (config["seed_everything"], config["data"]["init_args"]["seed"]) == (0, "${seed_everything}")
    five = plan.seeded(config, 5)
    assert (five["seed_everything"], five["data"]["init_args"]["seed"]) == (5, 5)
    own = chain(tmp_path, WHOLE, set={"seed_everything": 7})
    assert list(own.fits) == list(own.stages)
    assert plan.seeded(own.stages["tiny"].config)["data"]["init_args"]["seed"] == 7


def test_load__whose_override_wins(tmp_path: Path) -> None:
    below = {"set": {"trainer.max_epochs": 1, "data.batch_size": 32}}
    stages = [{**MEDIUM, "set": {"trainer.max_epochs": 2}}, TINY]
    epochs = lambda found: [stage.config["trainer"]["max_epochs"] for stage in found.stages.values()]  # noqa: E731
    assert epochs(chain(tmp_path, stages, **below)) == [2, 1]
    assert epochs(chain(tmp_path, stages, ["trainer.max_epochs=3"], **below)) == [3, 3]
    found = chain(tmp_path, stages, ["trainer.max_epochs=3", "tiny.trainer.max_epochs=4", "seeds=[8]"], **below)
    assert (epochs(found), found.seeds) == ([3, 4], [8])
    assert found.stages["tiny"].config["data"]["init_args"]["batch_size"] == 32


def test_load__several_recipes_are_laid_over_each_other(tmp_path: Path) -> None:
    found = chain(tmp_path, [{**MEDIUM, "recipe": ["relation_vitb", "parts/gpus32"], "teacher": "mae_vitl16"}])
    trainer = found.stages["medium"].config["trainer"]
    assert (trainer["num_nodes"], trainer["max_epochs"]) == (4, 300)
    assert found.stages["medium"].recipe == "relation_vitb + parts/gpus32"


@pytest.mark.parametrize(
    ("stages", "content", "words"),
    [
        (WHOLE, {"stagse": 1}, "stagse: no such key; did you mean stages?"),
        ([], {}, "stages: missing"),
        (["tiny"], {}, "stages: number 1 is 'tiny'"),
        (WHOLE, {"seeds": 3}, "seeds: 3 is not a list"),
        (WHOLE, {"seeds": [0, 0]}, "seed 0 stands twice"),
        ([{**MEDIUM, "name": "seed0"}], {}, r"stages\.seed0\.name: 'seed0' names no folder"),
        ([{**MEDIUM, "name": "../up"}], {}, "names no folder"),
        ([{**MEDIUM, "kind": "distil"}], {}, r"medium\.kind: 'distil' is no kind of stage; did you mean distill\?"),
        ([{**MEDIUM, "recipie": "a"}], {}, r"medium\.recipie: no such key; did you mean recipe\?"),
        ([{**MEDIUM, "weights": "a"}], {}, r"medium\.weights: no such key"),
        (
            [{"name": "a", "kind": "pretrain", "recipe": "mae_digits", "teacher": "digits_mae"}],
            {},
            "teacher: no such key",
        ),
        ([{"name": "a", "kind": "pretrain"}], {}, r"a\.recipe: missing"),
        ([{"name": "a", "kind": "finetune", "recipe": "finetune_digits"}], {}, r"a\.weights: missing.*null starts"),
        ([{"name": "a", "kind": "export"}], {}, r"a\.weights: missing"),
        ([MEDIUM, MEDIUM], {}, "2 stages have this name"),
        ([{**MEDIUM, "set": {"run_dir": "x"}}], {}, r"medium\.set: run_dir: the chain settles this itself"),
        ([MEDIUM, {**TINY, "teacher": "medim"}], {}, r"tiny: 'medim' is neither a stage nor .*did you mean medium\?"),
        ([{**MEDIUM, "teacher": "tiny"}, {**TINY, "teacher": "medium"}], {}, "medium -> tiny -> medium is a ring"),
        ([{**MEDIUM, "teacher": "medium"}], {}, "medium -> medium is a ring"),
        ([*WHOLE, {**TINY, "name": "b", "teacher": "probed"}], {}, r"b\.teacher: probed is a linear layer on frozen"),
        ([*WHOLE, {**TINY, "name": "b", "teacher": "shipped"}], {}, r"b\.teacher: shipped is an export of weights"),
        (
            [{**MEDIUM, "recipe": "relation_medum"}],
            {},
            "medium: unknown recipe 'relation_medum'; near it: relation_medium",
        ),
        (
            [{"name": "a", "kind": "distill", "recipe": "logits_digits"}],
            {},
            "a: teacher: missing, and its recipe names none",
        ),
        (WHOLE, {"compare": {"rows": []}}, r"compare\.title: missing(.|\n)*compare\.rows: missing"),
        (
            WHOLE,
            {"compare": {"title": "t", "rows": {"a": ["tunde"]}}},
            r"rows\.a: no stage 'tunde'; did you mean tuned",
        ),
        (WHOLE, {"compare": {"title": "t", "rows": {"a": ["tiny"]}}}, "tiny is of kind distill, and figures come from"),
        (WHOLE, {"compare": {"title": "t", "rows": {"a": ["tuned"]}, "paper": {"b": 1}}}, "'b' is not among its rows"),
    ],
)
def test_load__says_what_is_wrong(stages: list[Any], content: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(TinymimError, match=words):
        chain(tmp_path, stages, **content)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("max_epochs", "is not KEY=VALUE"),
        ("tinny.trainer.max_epochs=1", "tinny is neither a stage nor a part of a recipe; did you mean tiny"),
        ("tiny.run_dir=x", "the chain settles this itself"),
        ("seeds=[-1]", "is not a list of whole numbers from 0"),
    ],
)
def test_load__settings_that_mean_nothing(setting: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(TinymimError, match=words):
        chain(tmp_path, WHOLE, [setting])


def test_load__all_mistakes_at_once_and_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(TinymimError, match=r"2 mistakes(.|\n)*medium\.kind(.|\n)*tiny\.recipie"):
        chain(tmp_path, [{**MEDIUM, "kind": "x"}, {**TINY, "recipie": 1}])
    with pytest.raises(
        TinymimError,
        match=r"unknown chain 'digits'; of that name there is tinymim study digits, or .*; did you mean digits_l_m_s",
    ):
        chains.load("digits")


def test_changes__only_what_can_alter_results(tmp_path: Path) -> None:
    old = chain(tmp_path, WHOLE)

    def changed(*settings: str, stages: list[dict[str, Any]] = WHOLE) -> dict[str, list[str]]:
        return plan_changes.between(old, chain(tmp_path, stages, list(settings)))

    assert (
        changed(
            "data.num_workers=4", "trainer.strategy=ddp", "trainer.enable_progress_bar=false", "trainer.logger=false"
        )
        == {}
    )
    assert changed("trainer.precision=32-true")["tiny"] == ['tiny.trainer.precision: "auto", now "32-true"']
    assert changed("medium.trainer.max_epochs=3") == {"medium": ["medium.trainer.max_epochs: 30, now 3"]}
    assert changed(stages=WHOLE[:4]) == {"shipped": ["shipped: no longer there"]}
    assert changed("seeds=[0]")[""] == ["seeds: None, now [0]"]
    assert list(changed(stages=[MEDIUM, {**TINY, "teacher": "digits_mae"}, *WHOLE[2:]])) == ["tiny"]


def test_changes__the_total_batch_counts_and_not_how_it_is_shared(tmp_path: Path) -> None:
    stage = {**MEDIUM, "recipe": ["relation_vitb", "parts/gpus8"], "teacher": "mae_vitl16"}
    eight = chain(tmp_path, [stage])
    many = chain(tmp_path, [{**stage, "recipe": ["relation_vitb", "parts/gpus32"]}])
    assert plan_changes.between(eight, many) == {}
    assert plan_changes.digest(eight.stages["medium"]) == plan_changes.digest(many.stages["medium"])
    half = chain(tmp_path, [stage], ["trainer.devices=4"])
    assert plan_changes.between(eight, half) == {"medium": ["medium.total_batch: 4096, now 2048"]}


@pytest.mark.parametrize("fragment", ["gpus8", "gpus32", "gpus8_finetune", "gpus32_finetune"])
def test_gpus__the_papers_total_batch(fragment: str) -> None:
    recipe, batch = ("finetune_vits", 1024) if "finetune" in fragment else ("relation_vits", 4096)
    config, _ = recipes.resolve(["--config", recipe, "--config", f"parts/{fragment}"])
    trainer = config["trainer"]
    processes = trainer["devices"] * trainer["num_nodes"]
    assert processes == int(fragment.removeprefix("gpus").removesuffix("_finetune"))
    assert processes * trainer["accumulate_grad_batches"] * config["data"]["init_args"]["batch_size"] == batch
