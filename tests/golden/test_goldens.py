"""What the product does, as it did when the goldens were written: see README.md."""

from __future__ import annotations

import importlib
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.commands import PROJECT, tinymim
from tests.golden import reach
from tests.golden.pinned import HERE, KERNELS, WRITING, by_class_name, files_in, flat, pinned, table, undrawn

SUBCOMMANDS = {
    "chain": ("run", "resume", "status", "plan"),
    "teachers": ("list", "show", "fetch", "verify", "add", "save"),
    "cache": ("list", "clear"),
    "data": ("check",),
}

LIGHTNINGS = ("--trainer.", "--weights_only")
"""Begin options that come and go with versions of Lightning."""


def done(*arguments: str | Path, cwd: Path = PROJECT) -> str:
    """What a command says that ends well."""
    result = tinymim(*arguments, cwd=cwd, COLUMNS="200")
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def options(text: str) -> list[str]:
    """The names of arguments and options in a help text."""
    found: dict[str, None] = {}
    section = ""
    for line in text.splitlines():
        if line and not line.startswith(" "):
            section = line.rstrip(":").lower()
        head = re.split(r"\s{2,}", line.strip())[0]
        if head.startswith("-") and line.startswith(" "):
            found |= dict.fromkeys(re.findall(r"(?:^|, )(--?[A-Za-z][\w.+-]*)", head))
        elif section == "positional arguments" and re.match(r" {2}[\w{]", line):
            found[head.split()[0]] = None
    return list(found)


def test_commands__have_the_options_they_had() -> None:
    found = {}
    commands = [
        (name, *rest) for name in reach.COMMANDS for rest in [(), *((sub,) for sub in SUBCOMMANDS.get(name, ()))]
    ]
    for words in [(), *commands]:
        result = tinymim(*words, "--help", "all", COLUMNS="200")
        found[" ".join(words)] = {
            "code": result.returncode,
            "options": [name for name in options(result.stdout) if not name.startswith(LIGHTNINGS)],
        }
    pinned("commands", {"commands": list(reach.COMMANDS), "help": found})


def test_recipes__compose_to_what_they_did() -> None:
    pinned("recipes", {name: flat(by_class_name(reach.resolved(name))) for name in reach.recipe_names()})


def test_chain__is_planned_as_it_was() -> None:
    plan = by_class_name(reach.chain_plan("digits_l_m_s"))
    plan["stages"] = {name: {**stage, "config": flat(stage["config"])} for name, stage in plan["stages"].items()}
    pinned("chain", plan)


def test_studies__run_the_fits_they_did() -> None:
    names = ("digits", "layers_shapes", "transfer_shapes")
    pinned(
        "studies",
        by_class_name({n: {form: reach.study_fits(n, form == "quick") for form in ("whole", "quick")} for n in names}),
    )


def test_relation_loss__and_its_gradients_are_what_they_were() -> None:
    found = {}
    for form in ("reference", "blocked"):
        tq, tk, sq, sk = (wave(part, width) for part, width in enumerate((8, 8, 5, 5)))
        sq.requires_grad_(), sk.requires_grad_()
        loss = reach.relation_kl(tq, tk, sq, sk, temperature=0.7, form=form)
        loss.backward()
        gradients = {name: each.grad for name, each in (("sq", sq), ("sk", sk))}
        found[form] = {"loss": loss.item()} | {
            name: {"norm": grad.norm().item(), "first": grad[0, 0, 0].tolist(), "last": grad[-1, -1, -1].tolist()}
            for name, grad in gradients.items()
            if grad is not None
        }
    pinned("relation_loss", found, rel=1e-6, abs=1e-9)


def wave(part: int, width: int) -> torch.Tensor:
    """``(2, 3, 7, width)`` numbers that are the same wherever sines are."""
    return (
        (torch.arange(2 * 3 * 7 * width, dtype=torch.float64) * (part + 1.7)).sin().mul(2).view(2, 3, 7, width).float()
    )


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Three steps of the demo's recipe, and the files that they leave."""
    place = tmp_path_factory.mktemp("runs") / "demo"
    torch.set_num_threads(1)
    short = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "3", "--trainer.num_sanity_val_steps", "0"]
    few = ["--data.fraction", "0.1", "--data.batch_size", "32", "--trainer.log_every_n_steps", "1"]
    exact = ["--trainer.precision", "32-true", "--trainer.limit_val_batches", "2", "--model.teacher_cache", "null"]
    done("fit", "--config", "relation_digits", *short, *few, *exact, "--run_dir", place)
    return place, files_in(place)


@pytest.fixture(scope="module")
def run(fitted: tuple[Path, list[str]]) -> Path:
    return fitted[0]


def test_fit__has_the_losses_and_leaves_the_files_it_did(fitted: tuple[Path, list[str]]) -> None:
    run, left = fitted
    logged = {name: [v for v in values if v != ""] for name, values in table(run / "metrics.csv").items()}
    results = json.loads((run / "results.json").read_text())
    kept = ("metrics", "epochs", "steps", "images", "images_seen", "flops", "parameters", "backbone", "skipped_steps")
    content = {
        "files": left,
        "logged": logged,
        "results_keys": sorted(results),
        "results": {key: results[key] for key in kept},
        "progress_keys": sorted(json.loads((run / "progress.json").read_text())),
        "environment_keys": sorted(json.loads((run / "environment.json").read_text())),
    }
    pinned("fit", content, rel=KERNELS, abs=1e-6)


def test_fit__twice_ends_in_the_same_bits(user: Path) -> None:
    """Of a small network: distilled in eight steps, from one seed."""
    for name in ("first", "second"):
        done("fit", "--config", "relation", "--run_dir", f"runs/{name}", cwd=user)
    first, second = (checkpoint(user / "runs" / name)["state_dict"] for name in ("first", "second"))
    assert all(torch.equal(first[name], second[name]) for name in first.keys() | second.keys())


def test_test__leaves_what_it_did(run: Path) -> None:
    done(
        "test",
        "--config",
        run / "config.yaml",
        "--ckpt_path",
        "last",
        "--trainer.limit_test_batches",
        "2",
        "--run_dir",
        run,
    )
    left = json.loads((run / "test.json").read_text())
    metrics = left.pop("metrics")
    pinned("test", {"keys": sorted(left), "data": left["data"], "metrics": metrics}, rel=KERNELS, abs=1e-6)


def checkpoint(place: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(place / "checkpoints/last.ckpt", weights_only=True)
    return content


def test_checkpoint__has_the_keys_it_had(run: Path) -> None:
    content = checkpoint(run)
    callbacks = {re.match(r"\w+", name)[0]: sorted(state) for name, state in content["callbacks"].items()}  # type: ignore[index]
    state = {name: [str(value.dtype), *value.shape] for name, value in content["state_dict"].items()}
    record = content["tinymim"]
    pinned(
        "checkpoint",
        {
            "keys": sorted(content),
            "hyper_parameters": sorted(content.get("hyper_parameters", {})),
            "callbacks": callbacks,
            "state_dict": state,
            "record": {key: record[key] for key in ("backbone", "prefix", "licence")},
            "record_keys": sorted(record),
            "position": content["tinymim_position"],
            "optimizer_groups": [
                {"parameters": len(group["params"]), **{key: group[key] for key in ("lr", "weight_decay", "betas")}}
                for group in content["optimizer_states"][0]["param_groups"]
            ],
        },
    )


def test_analysis__measures_what_it_did(tmp_path: Path) -> None:
    out = tmp_path / "out"
    sizes = ["--images", "8", "--batch_size", "4", "--device", "cpu", "--out", out]
    with undrawn():
        done("analyze", "digits_mae", "random:digits_mae", "--data", "digits", *sizes)
    tables = {path.stem: table(path) for path in sorted(out.glob("*.csv"))}
    about = json.loads((out / "analysis.json").read_text())
    keys = {"about_keys": sorted(about), "options": about["options"], "files": files_in(out)}
    pinned("analysis", {**keys, **tables}, rel=KERNELS, abs=1e-6)


def test_scaling__finds_what_it_did(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with undrawn():
        done("scaling", "--table", PROJECT / "tests/scaling/simmim_scaling.csv", "--out", out)
    tables = {str(path.relative_to(out).with_suffix("")): table(path) for path in sorted(out.rglob("*.csv"))}
    pinned("scaling", {"files": files_in(out), **tables})


def test_class_paths__can_be_imported() -> None:
    """A later build has these and may have more; so this list is rewritten by the build that made it alone."""
    path = HERE / "class_paths.json"
    if os.environ.get(WRITING) and not path.is_file():
        path.write_text(json.dumps(reach.class_paths(), indent=1) + "\n")
    missing = []
    for name in json.loads(path.read_text()):
        module, _, cls = name.partition(":")
        try:
            getattr(importlib.import_module(module), cls)
        except (ImportError, AttributeError) as error:
            missing.append(f"{name}: {error}")
    assert not missing, "users' files name these: " + "; ".join(missing)
