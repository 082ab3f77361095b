"""The real command over real fits of a step or two: killed in the middle, gone on with, and exported."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from tests.commands import PROJECT, refused, tinymim
from tinymim.teachers import weights
from tinymim.training import lock

SHORT = {
    "trainer.max_epochs": 1,
    "trainer.limit_train_batches": 2,
    "trainer.limit_val_batches": 1,
    "trainer.num_sanity_val_steps": 0,
    "data.batch_size": 16,
}
STAGES = [
    {"name": "medium", "kind": "distill", "recipe": "relation_medium_digits", "teacher": "digits_mae"},
    {"name": "tiny", "kind": "distill", "recipe": "relation_digits", "teacher": "previous"},
    {"name": "shipped", "kind": "export", "weights": "tiny"},
]


def stages(place: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError):
        return json.loads((place / "chain.json").read_text())["stages"]
    return {}


def test_chain__killed_and_gone_on_with(tmp_path: Path) -> None:
    path, place = tmp_path / "short.yaml", tmp_path / "chain"
    path.write_text(yaml.safe_dump({"set": SHORT, "stages": STAGES, "seeds": [1]}))
    chain = subprocess.Popen(
        [sys.executable, "-m", "tinymim", "chain", "run", str(path), "--run_dir", str(place)],
        cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    end = time.monotonic() + 900
    try:
        while not lock.owner(place / "seed1/tiny"):
            assert chain.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        stage = stages(place)["seed1/tiny"]["process"]["pid"]
        os.kill(stage, signal.SIGSTOP)  # it would end as soon as the chain does
    finally:
        chain.kill()
        chain.wait()
    before = stages(place)["seed1/medium"]
    assert before["state"] == "done"
    refused(tinymim("chain", "resume", place), "stage seed1/tiny: another command is working in", f"pid {stage}")
    os.kill(stage, signal.SIGCONT)
    while lock.owner(place / "seed1/tiny"):
        assert time.monotonic() < end
        time.sleep(0.05)
    path.unlink()
    result = tinymim("chain", "resume", place)
    assert result.returncode == 0, result.stderr
    assert "== stage 1 of 3" not in result.stderr, "what is done is kept"
    after = stages(place)
    assert after["seed1/medium"] == before
    assert {entry["state"] for entry in after.values()} == {"done"}
    student, _, record = weights.load(place / "seed1/shipped/student.safetensors")
    medium = place / "seed1/medium/checkpoints/last.ckpt"
    assert record["teacher"]["sha256"] == weights.sha256(medium) == before["outputs"]["checkpoints/last.ckpt"]
    assert (student.width, student.output_block, student.trained_qkv) == (48, 5, ["q", "k", "v"])
    assert record["licence"] == "Apache-2.0"
    recipe = yaml.safe_load((place / "seed1/tiny/config.yaml").read_text())
    assert (recipe["seed_everything"], recipe["data"]["init_args"]["seed"]) == (1, 1)
    assert recipe["model"]["init_args"]["teacher"] == str(medium)


def test_chain__mistakes_before_anything_runs(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump({"stages": [*STAGES[:1], {**STAGES[1], "recipe": "cls_digits"}]}))
    refused(
        tinymim("chain", "run", path, "--run_dir", tmp_path / "chain"),
        "tiny: cls.teacher_block: block 6's ffn_post were not trained",
    )
    result = tinymim("chain", "rum", path)
    assert result.returncode == 2
    assert "'rum' is none of run, resume" in result.stderr
