"""Small networks and cards that several tests share."""

from __future__ import annotations

import atexit
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from huggingface_hub import constants

from tinymim import files
from tinymim.data.data_module import ImageData
from tinymim.teachers import card, weights
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone

os.fsync = lambda descriptor: None  # of a dozen files a fit; what the tests write need outlive no power cut
torch.set_num_threads(1)  # two threads on busy cores spend the time of tiny networks waiting for each other


os.environ["TINYMIM_TEACHER_CACHE"] = tempfile.mkdtemp(prefix="tinymim_tests_")  # commands of a test inherit it
atexit.register(shutil.rmtree, os.environ["TINYMIM_TEACHER_CACHE"], True)


def pytest_addoption(parser: pytest.Parser) -> None:
    """For the test that kills a chain, and for the order of all."""
    parser.addoption("--kills", type=int, default=1, help="how often it is killed")
    parser.addoption("--dice", type=int, default=9, help="seed of the moments; the first of 9 is amid a stage")
    parser.addoption("--shuffle", type=int, metavar="SEED", help="files in random order, and tests within each")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Shuffle on demand, alike in all processes; a file's tests stay together, as they share what it has trained."""
    if (seed := config.getoption("shuffle")) is not None:
        dice = random.Random(seed)
        files = sorted({str(item.path) for item in items})
        place = {file: dice.random() for file in files}
        items.sort(key=lambda item: (place[str(item.path)], dice.random()))


TINY = {"img_size": 16, "patch_size": 4, "depth": 3}


def tiny(width: int, heads: int, depth: int = 3, **options: object) -> Architecture:
    """A ViT of a few thousand weights for 16x16 images in 4x4 patches."""
    return Architecture(options={**TINY, "embed_dim": width, "num_heads": heads, "depth": depth, **options})


def write_card(folder: Path, name: str, architecture: Architecture, sha256: str | None, **fields: object) -> Path:
    """A card for ``NAME.safetensors`` in the same folder."""
    content = {
        "name": name,
        "architecture": {"arch": architecture.arch, "options": architecture.options, "heads": architecture.heads},
        "file": f"{name}.safetensors",
        "sha256": sha256,
        "licence": "Apache-2.0",
        "citation": "none",
        "source": "a test",
        **fields,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def write_teacher(folder: Path) -> Path:
    """A card ``tiny_teacher`` with random weights (width 24, 4 heads, depth 3)."""
    torch.manual_seed(0)
    architecture = tiny(24, 4)
    file = folder / "tiny_teacher.safetensors"
    backbone = Backbone(architecture)
    with torch.no_grad():  # relations far from uniform, so that there is something to learn
        for block in backbone.vit.blocks:
            block.attn.qkv.weight.mul_(8)
    weights.export(backbone, file, {"licence": "Apache-2.0"})
    return write_card(folder, "tiny_teacher", architecture, files.sha256(file))


@pytest.fixture
def teacher_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The card of :func:`write_teacher`, found by name."""
    folder = tmp_path / "teachers"
    folder.mkdir()
    monkeypatch.setenv("TINYMIM_TEACHERS", str(folder))
    return write_teacher(folder)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """An empty working folder, ``$TINYMIM_TEACHERS`` beside it, a project without teachers and an empty hub cache."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("TINYMIM_TEACHERS", str(tmp_path / "mine"))
    monkeypatch.setattr(card.files, "shipped", lambda kind: tmp_path / "project" / kind)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    places = SimpleNamespace(env=tmp_path / "mine", cwd=tmp_path / "here/teachers", own=tmp_path / "project/teachers")
    (tmp_path / "project").mkdir()
    for folder in vars(places).values():
        folder.mkdir()
    return places


@pytest.fixture(autouse=True, scope="session")
def no_loading_processes() -> Iterator[None]:
    """Let ``num_workers: auto`` be 0 within the tests' own process: what a fit that was broken off leaves behind is
    waited for by whichever test collects it, 5 s for each process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageData, "needs_workers", False)
        yield
