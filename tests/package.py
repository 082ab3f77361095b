"""The package as its users have it: built, installed without extras into a venv of its own, and run in an empty folder
by the documents' own commands.

``python -m tests.package [--python 3.13] [--keep dist] [-- OVERRIDE ...]``; overrides shorten the demo. It downloads.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

from tests.commands import PROJECT
from tests.documents.pages import blocks, commands
from tests.e2e.test_road import SHORT, mae_file, photographs

UV = Path(sys.executable).with_name("uv")
TUTORIAL = PROJECT / "docs" / "tutorials" / "own_images.md"
ORDER = ["data", "teachers", "check", "fit", "test", "report", "export", "predict"]
"""Commands of a folder of one's own, all of which the README must show."""

LOST = {"matplotlib", "pandas", "scipy", "scikit-learn", "tensorboard", "pyarrow", "pycocotools"}
"""Packages of extras."""


class Installed:
    """A venv with the wheel, and a working folder with nothing in it.

    Args:
        place: a folder for both.
        wheel: to install.
        python: version or path of its Python.
    """

    def __init__(self, place: Path, wheel: Path, python: str):
        self.venv, self.folder, self.wheel = place / "venv", place / "work", wheel
        self.folder.mkdir()
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
        path = f"{self.venv / 'bin'}{os.pathsep}{os.environ['PATH']}"
        self.environment = environment | {"PATH": path, "TINYMIM_TEACHERS": str(place / "teachers")}
        call([str(UV), "venv", "-q", "--python", python, str(self.venv)], self)
        self.install("")

    def install(self, extra: str) -> None:
        """Install the wheel, with an extra."""
        what = f"tinymim{extra} @ {self.wheel.as_uri()}"
        constraints = ["-c", str(PROJECT / "constraints.txt")]
        call([str(UV), "pip", "install", "-q", "--python", str(self.venv), *constraints, what], self)

    def packages(self) -> set[str]:
        """Names of what is installed."""
        listed = call([str(UV), "pip", "freeze", "--python", str(self.venv)], self)
        return {line.partition("==")[0].partition(" @")[0] for line in listed.splitlines()}

    def tinymim(self, *words: str) -> str:
        """Run a command; where it names an extra that is missing, install that, and run it again."""
        print(f"$ tinymim {' '.join(words)}", flush=True)
        result = run(["tinymim", *words], self)
        if result.returncode and (match := re.search(r"pip install 'tinymim(\[[\w,]+\])'", result.stderr)):
            assert len(result.stderr.strip().splitlines()) == 1, result.stderr
            print(f"  {result.stderr.strip()}", flush=True)
            self.install(match[1])
            result = run(["tinymim", *words], self)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout + result.stderr


def run(command: list[str], at: Installed) -> subprocess.CompletedProcess[str]:
    """Run a program in the working folder."""
    return subprocess.run(command, cwd=at.folder, env=at.environment, capture_output=True, text=True, check=False)


def call(command: list[str], at: Installed) -> str:
    """Run a program that must succeed."""
    result = run(command, at)
    assert result.returncode == 0, f"{command}: {result.stdout}{result.stderr}"
    return result.stdout


def build(folder: Path) -> tuple[Path, Path]:
    """Build the source distribution, from it the wheel, and have twine check both."""
    subprocess.run([UV, "build", "-q", "--python", sys.executable, "--out-dir", folder, PROJECT], check=True)
    wheel, source = *folder.glob("*.whl"), *folder.glob("*.tar.gz")
    subprocess.run([UV, "tool", "run", "-q", "twine", "check", "--strict", wheel, source], check=True)
    return wheel, source


def carried(wheel: Path) -> None:
    """The wheel has what is tracked of package, recipes and teachers, its licence, and nothing else."""
    tracked = git("ls-files", "tinymim", "recipes", "teachers").decode().splitlines()
    expected = {path if path.startswith("tinymim/") else f"tinymim/shipped/{path}" for path in tracked}
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == expected, held ^ expected
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in zipfile.ZipFile(wheel).namelist())
    size = f"The wheel is {wheel.stat().st_size / 1e6:.0f} MB"
    assert size in (PROJECT / "docs" / "installing.md").read_text(), f"docs/installing.md does not say: {size}"


def archive(folder: Path) -> None:
    """Build the commit's archive, which has no git: its version is a tag's, or the one for where there is none."""
    files, built = folder / "files", folder / "built"
    with tarfile.open(fileobj=io.BytesIO(git("archive", "HEAD"))) as packed:
        packed.extractall(files, filter="data")
    subprocess.run([UV, "build", "-q", "--wheel", "--python", sys.executable, "--out-dir", built, files], check=True)
    (wheel,) = built.glob("*.whl")
    tagged = "describe-name: v" in (files / ".git_archival.txt").read_text()
    assert (wheel.name.split("-")[1] == "0.0") != tagged, wheel.name


def git(*words: str) -> bytes:
    """What git says of this project."""
    return subprocess.run(["git", *words], cwd=PROJECT, capture_output=True, check=True).stdout


def publishable(version: str) -> str:
    """Words on whether this may be published: by its tag, which the documents know of."""
    if "dev" in version or version == "0.0":
        return f"{version} is no release: tag the commit v and a version first, as v0.1.0"
    assert f"## {version}\n" in (PROJECT / "CHANGELOG.md").read_text(), "CHANGELOG.md says nothing of this version"
    assert f"\nversion: {version}\n" in (PROJECT / "CITATION.cff").read_text(), "CITATION.cff has another version"
    return f"{version} can be published: uv publish dist/*"


def named_next(said: str) -> list[str]:
    """The page and the export among the next steps, without their remarks and the program's name."""
    return re.findall(r"^  tinymim ((?:report|export) .+?)(?: +#.*)?$", said, re.MULTILINE)


def demo(here: Installed, overrides: list[str]) -> None:
    """The first command, and the page and the export that it names at its end."""
    said = here.tinymim("distill", *overrides)
    print(said[said.index("\nall runs") - 900 :], flush=True)
    page, export = named_next(said)
    assert "curves need matplotlib, not installed here: pip install 'tinymim[report]'" in here.tinymim(*page.split())
    here.tinymim(*export.split())
    assert {"runs", "exports"} <= {path.name for path in here.folder.iterdir()}


def own_folder(here: Installed) -> None:
    """The README's commands for a folder of images, on a few photographs, with a teacher of random weights."""
    photographs(here.folder / "FOLDER")
    teachers = Path(here.environment["TINYMIM_TEACHERS"])
    teachers.mkdir()
    mae_file(teachers / "mae_pretrain_vit_base.pth")
    block = next(block for block in blocks(PROJECT / "README.md") if "tinymim data check FOLDER" in block.text)
    asked = [words[1:] for words in commands(block) if words[0] == "tinymim"]
    assert list(dict.fromkeys(words[0] for words in asked)) == ORDER
    for words in asked:
        here.tinymim(*words, *(SHORT if words[0] in ("fit", "check") else []))
    (code,) = (block.text for block in blocks(TUTORIAL) if block.language == "python")
    call([str(here.venv / "bin" / "python"), "-c", code], here)


def main(arguments: list[str]) -> None:
    """Build, install and try the package."""
    parser = argparse.ArgumentParser(prog="python -m tests.package", description=__doc__)
    parser.add_argument("--python", default=sys.executable, help="version or path of the Python to install it for")
    parser.add_argument("--keep", type=Path, help="folder for what was built, once all has passed")
    parser.add_argument("overrides", nargs="*", help="of the demo's recipe, behind --")
    options = parser.parse_args(arguments)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        built = build(place / "dist")
        carried(built[0])
        archive(place)
        here = Installed(place, built[0], options.python)
        packages = here.packages()
        assert not packages & LOST, packages & LOST
        version = run(["tinymim", "--version"], here).stdout.split()[1]
        assert built[0].name.startswith(f"tinymim-{version}-"), version
        cuda = {name for name in packages if name.startswith(("nvidia", "cuda", "triton"))}
        print(f"tinymim {version}: {len(packages) - 1} packages, {len(cuda)} of them CUDA's", flush=True)
        for words in (["recipes", "digits"], ["teachers"]):
            here.tinymim(*words)
        demo(here, options.overrides)
        own_folder(here)
        if options.keep:
            shutil.rmtree(options.keep, ignore_errors=True)
            options.keep.mkdir()
            for file in built:
                shutil.copy(file, options.keep)
            print(publishable(version), flush=True)
    print(f"the package works, in {time.monotonic() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
