"""``tinymim recipes``: recipes, chains, studies and programs that can be named, those of the working folder first."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import yaml
from omegaconf import OmegaConf
from rich.table import Table

from tinymim import files
from tinymim.cli.help_page import Page
from tinymim.config import recipe
from tinymim.errors import TinymimError
from tinymim.near_names import nearest
from tinymim.safety import text
from tinymim.safety.console import PlainConsole

COMMANDS = {
    "": "tinymim fit NAME, or tinymim distill NAME",
    "chains": "tinymim chain run NAME",
    "studies": "tinymim study NAME",
    "scaling": "tinymim scaling NAME",
    "papers": "tinymim papers NAME",
    "parts": "extends: [parts/NAME], or a further --config parts/NAME",
}
"""What each folder of recipes is for, as a command."""

KEYS = ("model", "data", "trainer", "extends", "vars", "compare", "corruptions")
LISTING = ("stages", "rows", "objectives", "parts")
"""Keys of which every recipe or part of one has one, and every file that lists fits."""

ACTIONS = ("list", "show", "copy")


def main(arguments: list[str]) -> int:
    """Run ``tinymim recipes [list] [WORD] | show NAME | copy NAME [--to FOLDER]``."""
    usage = "tinymim recipes [list] [WORD] | show NAME | copy NAME [--to FOLDER]"
    if arguments[:1] in (["show"], ["copy"]):
        parser = Page(f"tinymim recipes {arguments[0]}")
        parser.add_argument("name", help="of the list, or FOLDER/NAME where two have it, or a path")
        if arguments[0] == "copy":
            parser.add_argument("--to", type=Path, default=Path("recipes"), help="by default recipes")
        options = parser.parse_args(arguments[1:])
        name = _in_folder(options.name)
        path = recipe.find(name)
        _show(path) if arguments[0] == "show" else _copy(path, name, options.to)
        return 0
    about = "Recipes, chains, studies and programs that can be named, those of the working folder first."
    parser = Page("tinymim recipes", usage=usage, description=about)
    parser.add_argument("word", nargs="?", default="", help="only what has it in its name or description")
    _list(parser.parse_args(arguments[1:] if arguments[:1] == ["list"] else arguments).word.lower())
    return 0


def _in_folder(name: str) -> str:
    """A name as the list has it, of what has no other recipe, chain, study or program beside it of that name."""
    if Path(name).is_file() or any((base / f"{name}.yaml").is_file() for base in recipe.folders()):
        return name
    found = [f"{folder}/{name}" for folder in recipe.elsewhere(name)]
    if len(found) > 1:
        raise TinymimError(f"{name}: there are {' and '.join(found)}; name one")
    known = [
        f"{folder}/{path.stem}"
        for folder in recipe.PLANS
        for at in recipe.folders()
        for path in (at / folder).glob("*.yaml")
    ]
    stems = {listed.rpartition("/")[2]: listed for listed in known} | {stem: stem for stem in recipe.names()}
    if not found and (near := nearest(Path(name).stem, stems)):
        raise TinymimError(f"unknown recipe {name!r}; near it: {', '.join(stems[stem] for stem in near)}")
    return found[0] if found else name


def _check_kind(path: Path) -> None:
    """Raise unless a file has a key by which recipes, parts of them, or files that list fits are known."""
    content = text.mapping(text.read_yaml(path, str(path)), str(path))
    if not content.keys() & {*KEYS, *LISTING}:
        raise TinymimError(
            f"{path} is no recipe or part of one, with {', '.join(KEYS)}, and no file that lists fits, with "
            f"{', '.join(LISTING)}; `tinymim recipes` lists those that are"
        )


def _list(word: str) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for folder, command in COMMANDS.items():
        by_name: dict[str, str] = {}
        for place in reversed(recipe.folders()):
            by_name |= {path.stem: _about(path) for path in (place / folder).glob("*.yaml")}
        rows = [(name, about) for name, about in sorted(by_name.items()) if word in f"{folder}/{name} {about}".lower()]
        if rows:
            table.add_row(f"{folder or 'recipes'}:", command, style="bold")
        for name, about in rows:
            table.add_row(f"  {folder}/{name}" if folder else f"  {name}", about)
    if not table.row_count:
        meant = "".join(f"; did you mean `tinymim recipes {action}`?" for action in nearest(word, ACTIONS, 1))
        raise TinymimError(f"no recipe has {word!r} in its name or description; `tinymim recipes` lists all{meant}")
    PlainConsole().print(table)


def _about(path: Path) -> str:
    """The comment that a recipe begins with, up to its first empty line."""
    try:
        lines = text.contents(path, str(path)).splitlines()
    except TinymimError:
        return "cannot be read"
    comment = itertools.takewhile(lambda line: line.startswith("# "), lines)
    return " ".join(line.removeprefix("# ") for line in comment)


def _show(path: Path) -> None:
    """Print a recipe with what it extends, its references as they are written."""
    _check_kind(path)
    print(yaml.safe_dump(OmegaConf.to_container(recipe.compose(path)), sort_keys=False, width=120), end="")


def _copy(path: Path, name: str, folder: Path) -> None:
    """Copy a recipe's file, which goes on extending what the project has."""
    target = folder / (path.name if Path(name).is_file() else f"{name}.yaml")
    if target.exists():
        raise TinymimError(f"{target} is there already; --to names another folder")
    _check_kind(path)
    with files.writing("--to", target):
        files.write_atomically(target, lambda temporary: shutil.copyfile(path, temporary))
    shadows = ", which commands here now take first" if folder == Path("recipes") else ""
    print(f"{target}: a copy of {path}{shadows}")
