"""``tinymim chain`` and ``tinymim resume``: what they refuse and keep. The recipes are real, the fits are not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.experiments.conftest import Fake
from tests.experiments.test_plan import MEDIUM, PROBED, SHIPPED, TINY, TUNED
from tinymim.cli import chain_command, main, recipe_commands
from tinymim.errors import TinymimError
from tinymim.experiments.state import load
from tinymim.training import lock

STAGES = [MEDIUM, TINY, TUNED, PROBED, SHIPPED]
NAMES = ["medium", "tiny", "tuned", "probed", "shipped"]
COMPARE = {"title": "Chain or not", "rows": {"chain": ["probed", "tuned"]}}


class Written:
    """A chain's file, and its folder."""

    def __init__(self, folder: Path):
        self.file, self.place = folder / "short.yaml", folder / "chain"
        self.write()

    def write(self, **changes: Any) -> None:
        content = {"stages": STAGES, "compare": COMPARE, **changes}
        self.file.write_text(yaml.safe_dump(content, sort_keys=False))

    def run(self, *arguments: str) -> int:
        return chain_command.main(["run", str(self.file), "--run_dir", str(self.place), "--jobs", "1", *arguments])

    def resume(self, *arguments: str) -> int:
        return chain_command.main(["resume", str(self.place), "--jobs", "1", *arguments])


@pytest.fixture
def short(fake: Fake, tmp_path: Path) -> Written:
    return Written(tmp_path)


@pytest.fixture
def done(short: Written, fake: Fake) -> Written:
    """Run to its end."""
    assert short.run() == 0
    assert fake.stages() == NAMES
    return short


def test_run__leaves_a_folder_that_needs_nothing_else(
    done: Written, fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = yaml.safe_load((done.place / "recipes/tiny.yaml").read_text())
    assert recipe["model"]["init_args"]["teacher"] == "medium/checkpoints/last.ckpt"
    assert recipe["data"]["init_args"]["seed"] == "${seed_everything}"
    assert {path.name for path in done.place.iterdir()} == {
        *NAMES, "recipes", "chain.json", "table.md", "table.json", "index.html", ".lock",
    }  # fmt: skip
    shutil.rmtree(done.place / "recipes")
    done.file.unlink()
    fake.plan("tiny", "preempted")
    state = load(done.place)
    state.forget({"tiny"})
    state.save()
    assert done.resume() == 75
    assert done.resume() == 0
    assert fake.stages() == ["tiny", *NAMES[1:]]
    assert yaml.safe_load((done.place / "recipes/tiny.yaml").read_text()) == recipe
    assert f"is done: {done.place}" in capsys.readouterr().out


def test_run__neither_resumes_nor_overwrites_by_accident(done: Written, fake: Fake, tmp_path: Path) -> None:
    with pytest.raises(TinymimError, match=r"holds a chain already. Go on with it: --resume"):
        done.run()
    assert done.run("--resume") == 0
    assert fake.calls() == []
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/thesis.tex").write_text("")
    with pytest.raises(TinymimError, match=r"holds other files \(thesis.tex\)"):
        chain_command.main(["run", str(done.file), "--run_dir", str(tmp_path / "thesis"), "--resume"])


def test_run__resume_begins_where_nothing_is(short: Written, fake: Fake) -> None:
    assert short.run("--resume") == 0
    assert fake.stages() == NAMES


def test_run__a_mistake_leaves_nothing_behind(short: Written) -> None:
    short.write(stages=[MEDIUM, {**TINY, "recipe": "cls_digits"}], compare=None)
    with pytest.raises(TinymimError, match=r"1 mistake: tiny: cls.teacher_block: block 6's ffn_post were not trained"):
        short.run()
    assert not short.place.exists()
    short.write()
    assert short.run() == 0


def test_resume__a_folder_in_use(short: Written) -> None:
    short.run()
    with lock.hold(short.place, "folder"), pytest.raises(TinymimError, match="another command is working in"):
        short.resume()
    with pytest.raises(TinymimError, match=r"holds no chain: there is no .*chain.json"):
        chain_command.main(["resume", str(short.place / "tiny")])
    assert not (short.place / "tiny/.lock").exists()


@pytest.mark.parametrize("how", ["altered", "missing"])
def test_resume__a_finished_file_that_is_not_what_it_was(how: str, done: Written, fake: Fake) -> None:
    path = done.place / "tiny/checkpoints/last.ckpt"
    expected = load(done.place).entries["tiny"].outputs["checkpoints/last.ckpt"]
    whole = path.read_text()
    path.write_text("other") if how == "altered" else path.unlink()
    with pytest.raises(TinymimError) as raised:
        done.resume()
    said = str(raised.value)
    found = "d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa" if how == "altered" else "missing"
    assert f"{path}: sha256 was {expected}, and it is {found}" in said
    assert "Undo it, or: --accept-changes runs these again" in said
    assert fake.calls() == []
    path.write_text(whole)
    assert done.resume() == 0
    path.unlink()
    assert done.resume("--accept-changes") == 0
    assert fake.stages() == NAMES[1:], "the rest is kept"


def test_resume__another_teacher_than_it_was_made_with(
    short: Written, fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teachers = tmp_path / "teachers"
    teachers.mkdir()
    for name in ("digits_mae.yaml", "digits_mae.safetensors"):
        shutil.copy(Path("teachers") / name, teachers)
    monkeypatch.setenv("TINYMIM_TEACHERS", str(teachers))
    short.run()
    with (teachers / "digits_mae.safetensors").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(
        TinymimError, match=r"digits_mae.safetensors: sha256 is .*, and medium was begun with fe88b0d28862"
    ):
        short.resume()
    (teachers / "digits_mae.safetensors").unlink()
    (teachers / "digits_mae.yaml").unlink()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tinymim.teachers.card.files.shipped", lambda kind: tmp_path / kind)
    fake.calls()
    assert short.resume() == 0, "what is done needs its teacher no more"
    assert fake.calls() == []


def test_resume__a_recipe_that_was_edited(done: Written, fake: Fake) -> None:
    path = done.place / "recipes/tiny.yaml"
    text = path.read_text()
    path.write_text(text.replace("max_epochs: 30", "max_epochs: 31").replace("warmup_epochs: 4", "warmup_epochs: 5"))
    with pytest.raises(TinymimError) as raised:
        done.resume()
    assert "  - tiny.trainer.max_epochs: 30, now 31\n" in str(raised.value)
    assert "  - tiny.model.init_args.optim.warmup_epochs: 4, now 5" in str(raised.value)
    assert done.resume("--accept-changes") == 0
    assert fake.stages() == NAMES[1:]
    assert "max_epochs: 31" in path.read_text()
    assert done.resume() == 0
    assert fake.calls() == []
    path.write_text("- no recipe")
    with pytest.raises(TinymimError, match=r"tiny.yaml is no recipe: it holds \['no recipe'\]"):
        done.resume()
    path.write_text("trainer: 5")
    with pytest.raises(TinymimError, match=r"tiny.trainer: .*, now 5"):
        done.resume()


def test_run__a_chain_that_was_edited(done: Written, fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    done.write(stages=[MEDIUM, TINY, {**TUNED, "set": {"trainer.max_epochs": 7}}, PROBED, {**TUNED, "name": "more"}])
    with pytest.raises(TinymimError) as raised:
        done.run("--resume")
    for line in ("tuned.trainer.max_epochs: 20, now 7", "shipped: no longer there", "more: a new stage"):
        assert line in str(raised.value)
    assert done.run("--resume", "--accept-changes") == 0
    assert fake.stages() == ["tuned", "more"]
    assert "shipped is no longer part of the chain" in capsys.readouterr().err
    assert (done.place / "shipped/student.safetensors").exists()


def test_run__what_cannot_alter_results_needs_no_leave(done: Written, fake: Fake) -> None:
    assert done.run("--resume", "--set", "data.num_workers=2", "trainer.enable_progress_bar=false") == 0
    assert fake.calls() == []
    assert load(done.place).plan.stages["tiny"].config["data"]["init_args"]["num_workers"] == 2


def test_run__more_seeds_keep_those_that_are_there(short: Written, fake: Fake) -> None:
    short.write(seeds=[0])
    short.run()
    fake.calls()
    short.write(seeds=[0, 1])
    with pytest.raises(TinymimError, match=r"seeds: \[0\], now \[0, 1\]"):
        short.run("--resume")
    assert short.run("--resume", "--accept-changes") == 0
    assert len(fake.calls()) == 5
    assert json.loads((short.place / "table.json").read_text())["rows"]["chain"].keys() == {"0", "1"}
    assert "| chain | 25.0 ± 0.0 | 50.0 ± 0.0 | 50.0 ± 0.0 | 2 |" in (short.place / "table.md").read_text()


def test_run__the_launcher_is_remembered(short: Written, fake: Fake) -> None:
    fake.plan("tiny", "preempted")
    assert short.run("--launch", "env LAUNCHED=by-env") == 75
    assert short.resume() == 0
    assert {call[-1] for call in fake.calls() if call[0] == "fit"} == {"by-env"}


def test_plan__says_what_would_be_and_writes_nothing(
    short: Written, fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chain_command.main(["plan", str(short.file), "--set", "trainer.max_epochs=3"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for words in (
        "qk+vv: block 6 -> 6, 6 heads of 32 -> 6 heads of 16",
        "682,272 parameters",
        "output block 5 of 6 (q, k, v of block 6 trained too); licence Apache-2.0",
        "3 epochs, total batch 128, about 33 steps over 1,437 images",
        "shipped/student.safetensors",
    ):
        assert words in out
    assert not short.place.exists()
    assert fake.calls() == []


def test_resume__of_whatever_a_folder_holds(done: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main.main(["resume", str(done.place)]) == 0
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("")
    called: list[Any] = []
    monkeypatch.setattr(recipe_commands, "fit", called.append)
    assert main.main(["resume", str(run), "--trainer.max_epochs", "3"]) == 0
    own = ["--config", str(run / "config.yaml"), "--run_dir", str(run), "--ckpt_path", "last"]
    assert called == [[*own, "--trainer.max_epochs", "3"]]


def test_resume__of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["resume", str(tmp_path)]) == 1
    assert "holds neither a plan (chain.json or plan.json) nor a run (config.yaml)" in capsys.readouterr().err
    assert main.main(["resume"]) == 1
    assert main.main(["chain", "run", "digits_l_m_s", "--jobs", "0"]) == 1
    assert "--jobs: 0 is not a whole number, 1 or more" in capsys.readouterr().err


def test_chain_json__cannot_be_read(done: Written) -> None:
    path = done.place / "chain.json"
    text = path.read_text()
    path.write_text(text[:100])
    with pytest.raises(TinymimError, match=r"chain.json cannot be read"):
        done.resume()
    for missing in ("launch", "form", "chain", "stages"):
        path.write_text(json.dumps({name: part for name, part in json.loads(text).items() if name != missing}))
        with pytest.raises(TinymimError, match=rf"chain.json: {missing} missing$"):
            chain_command.main(["status", str(done.place)])
    path.write_text(text.replace('"form": 2', '"form": 3'))
    with pytest.raises(TinymimError, match="has form 3, and this version of tinymim reads 1 and 2"):
        done.resume()


def test_status__says_where_a_finished_stage_was_altered(done: Written, capsys: pytest.CaptureFixture[str]) -> None:
    (done.place / "medium/checkpoints/last.ckpt").write_text("other")
    capsys.readouterr()
    assert chain_command.main(["status", str(done.place)]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert "altered" in rows["medium"]
    assert "altered" not in rows["tiny"]


def test_plan__values_that_cannot_be_are_one_message(short: Written) -> None:
    with pytest.raises(TinymimError, match=r"tiny: data.batch_size: 0 is not 1 or more"):
        chain_command.main(["plan", str(short.file), "--set", "tiny.data.batch_size=0"])
