"""Recipes by name: listed, printed whole, copied beside the user's own, and found where the package is installed."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tinymim import files
from tinymim.cli import recipes_command
from tinymim.config import recipe
from tinymim.errors import TinymimError


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_list__has_every_recipe_and_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    recipes_command.main([])
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in recipe.names())
    assert "chains/digits_l_m_s" in printed
    assert "studies/digits" in printed
    about = {path: recipes_command._about(path) for path in files.shipped("recipes").rglob("*.yaml")}
    assert [str(path) for path, text in about.items() if not text.endswith((".", "?"))] == []


def test_list__is_also_asked_for_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    recipes_command.main([])
    printed = capsys.readouterr().out
    recipes_command.main(["list"])
    assert capsys.readouterr().out == printed
    recipes_command.main(["list", "reconstruction"])
    assert "masked_mae_digits" in capsys.readouterr().out
    with pytest.raises(TinymimError, match="did you mean `tinymim recipes list`"):
        recipes_command.main(["lst"])


def test_list__of_a_word_has_what_it_is_in(capsys: pytest.CaptureFixture[str]) -> None:
    recipes_command.main(["reconstruction"])
    printed = capsys.readouterr().out
    assert "masked_mae_digits" in printed
    assert "knn_digits" not in printed
    with pytest.raises(TinymimError, match="no recipe has 'zebra' in its name or description"):
        recipes_command.main(["zebra"])


def test_show__composes_what_the_recipe_extends(capsys: pytest.CaptureFixture[str]) -> None:
    recipes_command.main(["show", "relation_digits"])
    assert yaml.safe_load(capsys.readouterr().out)["vars"]["teacher"] == "digits_mae"


def test_show__takes_the_name_of_a_chain_or_study_alone(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    recipes_command.main(["show", "chains/digits_l_m_s"])
    printed = capsys.readouterr().out
    recipes_command.main(["show", "digits_l_m_s"])
    assert capsys.readouterr().out == printed
    recipes_command.main(["copy", "digits_l_m_s"])
    assert (tmp_path / "recipes" / "chains" / "digits_l_m_s.yaml").is_file()
    with pytest.raises(TinymimError, match="digits: there are studies/digits and scaling/digits; name one"):
        recipes_command.main(["show", "digits"])
    with pytest.raises(TinymimError, match="unknown recipe 'digits_l_m'; near it: chains/digits_l_m_s"):
        recipes_command.main(["show", "digits_l_m"])


def test_find__of_a_run_or_of_what_runs_many(tmp_path: Path) -> None:
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "config.yaml").touch()
    with pytest.raises(TinymimError, match="runs/mine is the folder of a run; give its recipe, --config runs/mine/con"):
        recipe.find("runs/mine")
    with pytest.raises(TinymimError, match="what runs many: tinymim chain run digits_l_m_s"):
        recipe.find("digits_l_m_s")


@pytest.mark.parametrize("action", ["show", "copy"])
@pytest.mark.parametrize("content", ["services: {web: 1}", "[1]", "text"])
def test_show__refuses_what_is_no_recipe(action: str, content: str, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(content)
    with pytest.raises(TinymimError, match=r"compose\.yaml"):
        recipes_command.main([action, "compose.yaml"])
    assert not (tmp_path / "recipes").exists()


def test_show__knows_every_shipped_file() -> None:
    for path in files.shipped("recipes").rglob("*.yaml"):
        recipes_command._check_kind(path)


def test_copy__is_taken_first_and_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipes_command.main(["copy", "chains/paper"])
    recipes_command.main(["copy", "relation_digits"])
    assert (tmp_path / "recipes" / "chains" / "paper.yaml").is_file()
    copied = tmp_path / "recipes" / "relation_digits.yaml"
    assert recipe.find("relation_digits").resolve() == copied
    capsys.readouterr()
    recipes_command.main(["show", "relation_digits"])
    assert "digits_mae" in capsys.readouterr().out
    copied.write_text("# Mine.\n")
    with pytest.raises(TinymimError, match="is there already"):
        recipes_command.main(["copy", "relation_digits"])
    assert copied.read_text() == "# Mine.\n"
    recipes_command.main(["relation_digits"])
    assert "Mine." in capsys.readouterr().out


def test_unreadable_recipe__does_not_hide_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipes" / "broken.yaml").mkdir(parents=True)
    recipes_command.main([])
    assert "cannot be read" in capsys.readouterr().out


def test_shipped__is_in_the_package_once_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages" / "tinymim"
    (package / "shipped" / "recipes").mkdir(parents=True)
    monkeypatch.setattr(files, "__file__", str(package / "files.py"))
    assert files.shipped("recipes") == package / "shipped" / "recipes"
    assert files.shipped("teachers") == package.parent / "teachers"
