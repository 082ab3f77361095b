"""Messages in the words of a Python call: its arguments, where the command line has options and recipes have fields."""

from __future__ import annotations

import signal

import pytest

from tinymim import log
from tinymim.methods.checkpoint_record import OTHER_RUN
from tinymim.training.call_mistakes import ARGUMENTS
from tinymim.training.preemption import Preempted
from tinymim.training.python_arguments import in_python, worded

WORDED = {
    "run_dir: a/run_dir is a file; give one with --run_dir": "out: a/run_dir is a file; give one with out",
    "Keep it: --run_dir ANOTHER_FOLDER": "Keep it: out='ANOTHER_FOLDER'",
    "Start it again and lose it: --overwrite true. Keep": "Start it again and lose it: overwrite=True. Keep",
    "--ckpt_path last goes on from the newest": "the same call goes on from the newest",
    "warm-up, --trainer.gradient_clip_val 1, or": "warm-up, options={'trainer.gradient_clip_val': 1}, or",
    "or --trainer.precision 32-true; or": "or precision='32-true'; or",
    "--on_nonfinite rewind goes back": "options={'on_nonfinite': 'rewind'} goes back",
    "; --data.held_out 0.2 holds a fifth": "; options={'data.held_out': 0.2} holds a fifth",
    "; --data.batch_size 1 makes an epoch 11": "; batch_size=1 makes an epoch 11",
    "more --trainer.max_epochs are more": "more epochs are more",
    "(optim.base_lr x 4 / 256), so raise --model.optim.base_lr": "(base_lr x 4 / 256), so raise base_lr",
    "such as --data tinymim.data.HFData": "such as options={'data': 'tinymim.data.HFData'}",
    "student.options.img_size: 32, and data.image_size is": "student.options.img_size: 32, and image_size is",
    "model.init_args.teacher_cache: 'x' is not": "teacher_cache: 'x' is not",
    "data.root: no images in emp/data.root: looked": "data: no images in emp/data.root: looked",
    "teacher_cache: 'x' is not a number, null": "teacher_cache: 'x' is not a number, None",
    "writes to /dev/null": "writes to /dev/null",
    "trainer.accelerator: 'cpuu' is none": "trainer.accelerator: 'cpuu' is none",
    "`tinymim fit --run_dir x`, --trust, --mean half": "`tinymim fit --run_dir x`, --trust, --mean half",
    f"ckpt_path: no; {OTHER_RUN}": "out: no; go on with the recipe that the run began with; or keep it, and give "
    "out='ANOTHER_FOLDER'; or start again and lose it: overwrite=True",
}


@pytest.mark.parametrize("told", WORDED)
def test_worded__names_arguments_of_the_call(told: str) -> None:
    assert worded(told, ARGUMENTS) == WORDED[told]


def test_in_python__words_errors_of_any_kind_and_lines_within_it(capsys: pytest.CaptureFixture[str]) -> None:
    def preempted() -> None:
        log.say("--run_dir PLACE")
        raise Preempted("the run_dir is saved", signal.SIGTERM)

    with pytest.raises(Preempted, match="the out is saved") as raised, in_python({"run_dir": "out"}):
        preempted()
    log.say("--run_dir PLACE")
    assert capsys.readouterr().err == "out='PLACE'\n--run_dir PLACE\n"
    assert raised.value.code == Preempted("", signal.SIGTERM).code
