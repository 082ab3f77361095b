"""A run on images in memory is killed without warning, resumed, and ends with the bits of one that never stopped."""

import signal

import torch

from tests.commands import PROJECT, Forked, tinymim
from tests.data.idx import write_set

SMALL = "{arch: vit_tiny_patch16_224, options: {img_size: 32, patch_size: 8, embed_dim: 24, depth: 2, num_heads: 3}}"


def test_fit__killed_goes_on_bit_for_bit(tmp_path):
    write_set(tmp_path / "set", train=96)
    recipe = tmp_path / "small.yaml"
    recipe.write_text(
        f"""extends: [mae_fashion]
trainer: {{max_epochs: 3, check_val_every_n_epoch: 10, enable_progress_bar: false, precision: 32-true}}
data: {{init_args: {{root: {tmp_path / "set"}, batch_size: 16}}}}
checkpoint: {{every_steps: 1}}
model: {{init_args: {{architecture: {SMALL}, decoder_width: 24, decoder_depth: 1, decoder_heads: 3}}}}
"""
    )
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert tinymim("fit", "--config", recipe, "--run_dir", whole).returncode == 0
    torture = {"PYTHONPATH": f"{PROJECT}/tests/e2e/torture", "TORTURE": "fit alone 60"}
    code, said = Forked("fit", "--config", recipe, "--run_dir", killed, log=tmp_path / "log", **torture).ended()
    assert code == -signal.SIGKILL, said
    assert 0 < state(killed)["step"] < 18
    resumed = tinymim("fit", "--config", recipe, "--run_dir", killed, "--ckpt_path", "last")
    assert resumed.returncode == 0, resumed.stderr
    one, other = state(whole), state(killed)
    assert one["step"] == other["step"] == 18
    assert [name for name in one["weights"] if not torch.equal(one["weights"][name], other["weights"][name])] == []


def state(run):
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    return {"step": content["global_step"], "weights": content["state_dict"]}
