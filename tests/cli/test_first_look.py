"""What a command's words alone show to be wrong is told before PyTorch is imported, which takes seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tinymim.errors import TinymimError
from tinymim.training import lock, run_folder

CODE = """
import contextlib, io, json, sys
from tinymim.cli.main import main
said = {}
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            code = main(words.split())
        except SystemExit as ended:
            code = ended.code
    said[words] = [code, err.getvalue(), "torch" in sys.modules]
print(json.dumps(said))
"""

MISTAKES = {
    "fit relation_digits --overwrite true --ckpt_path last": "--overwrite true and --ckpt_path last contradict each",
    "fit relation_digits": "runs/relation_digits holds a run already. Go on with it: --ckpt_path last.",
    "fit relation_digits -v --trainer.max_epochs 1": "runs/relation_digits holds a run already",
    "fit relation_digits --trainer.max_epoch 3 --nmae x": (
        "the command has 3 mistakes:\n  - nmae: no such option of a recipe; did you mean name?\n"
        "  - trainer.max_epoch: no such option of lightning's Trainer; did you mean max_epochs?\n"
        "  - run_dir: runs/relation_digits holds a run already"
    ),
    "fit relation_digits --name thesis --trainer.max_epochs 1": "runs/thesis holds other files (thesis.tex)",
    "distill knn_digits": (
        "recipe: knn_digits has no `compare`, so there is nothing to lay beside it; `tinymim fit knn_digits` trains "
        "it; recipes of digits that have one: attention_digits, blocks_digits, cls_digits, "
    ),
    "distill relation_vitt --seeds 3": "`tinymim fit relation_vitt` trains it",
    "fit relation_digts": "unknown recipe 'relation_digts'; near it: relation_digits",
    "validate nosuch": "unknown recipe 'nosuch'",
    "check nosuch": "unknown recipe 'nosuch'",
    "study nosuch": "unknown study 'nosuch'; there are digits",
    "study relation_digits": "of that name there is a recipe (tinymim fit relation_digits); there are digits",
    "study digit": "unknown study 'digit'; did you mean digits?",
    "chain run digits_l_m": "unknown chain 'digits_l_m'; did you mean digits_l_m_s?",
    "scaling digit": "unknown scaling study 'digit'; did you mean digits?",
    "chain run nosuch": "unknown chain 'nosuch'; there are digits_l_m_s",
    "chain status photos": "photos holds no chain",
    "scaling nosuch": "unknown scaling study 'nosuch'",
    "scaling --table nowhere.csv": "table: nowhere.csv",
    "predict --config nosuch": "unknown recipe 'nosuch'",
    "predict digits_mae --images nowhere": "images: nowhere is no folder",
    "test runs/whole --ckpt_path last": "runs/whole is the folder of a run; give its recipe, --config runs/whole/conf",
    "fit digits_l_m_s": "what runs many: tinymim chain run digits_l_m_s",
    "bench nope": "bench: NETWORK: no card 'nope'",
    "bench digits_mae ex/ov": "bench: NETWORK: there is no file or folder 'ex/ov'",
    "analyze ex/ov --data digits": "there is no file or folder 'ex/ov'",
    "export ex/ov --to onnx": "export: checkpoint: there is no file or folder 'ex/ov'; cards' names are those of",
    "export nope --to onnx": "export: checkpoint: no card 'nope'",
    "predict digits_mea --images photos": "checkpoint: no card 'digits_mea'; near it: digits_mae",
    "predict digits_mae --images photos --pool maen": "did you mean mean?",
    "report nowhere": "run: nowhere is no folder",
    "report runs/whole --images nowhere": "images: nowhere is no folder",
    "bench digits_mae nowhere/last.ckpt": "no weights file at nowhere/last.ckpt",
    "bench digits_mae --data nowhere": "data: nowhere is no folder of images",
    "analyze digits_mea random:nosuch a=b.ckpt --data digits": "models:\n  - no card 'digits_mea'",
    "analyze digits_mae --data nowhere": "data: nowhere is no folder of images, neither digits nor shapes",
    "replay nowhere.pt": "there is no file at nowhere.pt",
    "resume photos": "photos holds neither a plan (chain.json or plan.json) nor a run (config.yaml)",
    "status photos": "photos holds neither a plan",
    "export digits_mae --to onnx --quantize int8 --images nowhere": "--images: nowhere is no folder of images",
    "export nowhere/last.ckpt student.safetensors": "no weights file at nowhere/last.ckpt",
    "export digits_mae --to timm --bench nowhere.json": "bench: there is no nowhere.json",
}


def test_mistakes__are_told_without_torch(tmp_path: Path) -> None:
    for place in ("runs/relation_digits/results.json", "runs/thesis/thesis.tex", "runs/whole/config.yaml"):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).write_text("{}")
    (tmp_path / "photos").mkdir()
    command = [sys.executable, "-c", CODE, json.dumps([*MISTAKES])]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    for words, (code, said, torch) in json.loads(result.stdout).items():
        assert MISTAKES[words] in said, words
        assert code in (1, 2), words
        assert not torch, words


def test_look__lets_a_run_go_on_or_begin_again(tmp_path: Path) -> None:
    run_folder.look(tmp_path / "new", resume=False, overwrite=False)
    assert not (tmp_path / "new").exists()
    (tmp_path / "results.json").write_text("{}")
    run_folder.look(tmp_path, resume=True, overwrite=False)
    run_folder.look(tmp_path, resume=False, overwrite=True)
    with lock.hold(tmp_path, "run_dir"), pytest.raises(TinymimError, match=r"another command is working in"):
        run_folder.look(tmp_path, resume=False, overwrite=False)
    assert [path.name for path in tmp_path.iterdir() if path.name != lock.NAME] == ["results.json"]


def test_goes_on__with_its_own_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_folder.goes_on(Path("run"), "last")
    assert run_folder.goes_on(Path("run"), os.path.abspath("run/checkpoints/best.ckpt"))  # noqa: PTH100
    assert not run_folder.goes_on(Path("run"), "other/checkpoints/last.ckpt")
    assert not run_folder.goes_on(Path("run"), None)
