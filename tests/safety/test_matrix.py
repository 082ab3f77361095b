"""No file decides what runs, what is opened or what is written: a marker at every place of every kind of file."""

from __future__ import annotations

import copy
import io
import sys
import tarfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.safety import commands, places
from tests.safety.places import DATA, FILE, MARKERS, MODULE, Home, Kind, Path_
from tinymim.errors import TinymimError

watching: list[str] | None = None


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    """What is opened, imported or started, while anybody wants to know it."""
    if watching is None:
        return
    said = str(arguments[0]) if arguments else ""
    if event == "open" and FILE in said:
        watching.append(f"open {said}")
    elif event == "import" and said.partition(".")[0] == MODULE:
        watching.append(f"import {said}")
    elif event in ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "pty.spawn"):
        watching.append(f"{event} {said}")


sys.addaudithook(_watch)


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("matrix") / "here"
    folder.mkdir()
    made = Home(folder)
    (folder / "images").mkdir()
    Image.new("RGB", (16, 16)).save(folder / "images/0.png")
    (folder / "theirs").mkdir()
    made.safetensors(made.record, folder / "own.safetensors")
    from safetensors.torch import save_file

    save_file(made.state, folder / "theirs/model.safetensors")
    save_file(made.state, folder / "teachers/small.safetensors")
    with tarfile.open(folder / "shard.tar", "w") as tar:
        picture = (folder / "images/0.png").read_bytes()
        member = tarfile.TarInfo("a.png")
        member.size = len(picture)
        tar.addfile(member, io.BytesIO(picture))
    made.run(places.RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        patch.setenv("TINYMIM_TEACHERS", str(folder / "teachers"))
        patch.setattr("tinymim.report.document.Document.html", lambda self: self.markdown())  # of which it is made
        patch.setattr("tinymim.report.curves.charts", lambda *_: [])  # which takes a second, and reads nothing
        patch.setattr("tinymim.report.curves.headline", lambda _: None)
        for place in commands.BEGINNINGS:
            patch.setattr(f"tinymim.{place}", commands.begins)
        card = _kind(made, "teacher card")  # which others name
        card.write(card.content)
        yield made


NAMES = [kind.name for kind in places.kinds()]


def _kind(home: Home, name: str) -> Kind:
    return next(kind for kind in places.kinds(home) if kind.name == name)


def _tried(home: Home, kind: Kind, place: Path_, marker: str, command: str) -> str | None:
    """What went wrong, if anything did."""
    global watching
    kind.write(places.planted(kind.content, place, MARKERS[marker]))
    watching = []
    try:
        kind.commands[command]()
        said = None
    except TinymimError as error:
        said = str(error)
    except SystemExit as error:
        return f"left with {error}"
    except Exception as error:  # this is what must not be
        return f"{type(error).__name__}: {error}"
    finally:
        seen, watching = watching, None
    opened = ".".join(map(str, place)) in kind.named and marker.startswith("a file")
    touched = [one for one in seen if not (opened and one.startswith("open "))]
    loaded, marked = sys.modules.pop(MODULE, None) is not None, Path("MARK").exists()
    Path("MARK").unlink(missing_ok=True)
    if kind.run:  # which revision of the project it is, is noted before the first fit
        touched = [one for one in touched if one != "subprocess.Popen git"]
    if kind.run and marker in ("a class", "a name of a class"):
        touched, loaded, marked = [one for one in touched if not one.startswith("import ")], False, False
    if touched or loaded or marked:
        return f"touched {touched}, imported {loaded}, called {marked}"
    if said is not None and len(said.splitlines()) > 8:
        return f"{len(said.splitlines())} lines: {said[:200]}"
    return None


@pytest.mark.parametrize("name", NAMES)
def test_marker__is_touched_at_no_place(home: Home, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    kind = _kind(home, name)
    wrong, before = [], _files(home.folder.parent)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for command, place, marker in kind.trials():
            if problem := _tried(home, kind, place, marker, command):
                wrong.append(f"{command}, {'.'.join(map(str, place)) or 'the whole'}, {marker}: {problem}")
    kind.write(kind.content)
    made = {path for path in _files(home.folder.parent) - before if FILE in path}
    assert not made, f"{made} were made"
    capsys.readouterr()
    assert not wrong, f"{len(wrong)} places:\n" + "\n".join(wrong[:40])


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("captured step", "index of shards")])
def test_honest__is_read(home: Home, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    kind = _kind(home, name)
    for command, run in kind.commands.items():
        content = copy.deepcopy(kind.content)
        if name == "comparison of one's own":
            content["compare"]["teacher"] = None  # whose images are of another size than the small teacher's
        kind.write(content)
        if command in ("teachers fetch", "scaling"):
            continue  # a card without an address; a run that restores no images
        run()


def test_document__has_the_numbers_of_this_test() -> None:
    text = Path(__file__).parents[2].joinpath(DATA).read_text()
    assert places.written(text) == text, "python -m tests.safety.places writes them"
