"""One working folder for the artefacts, which tests change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.golden.pinned import ARTEFACTS


@pytest.fixture(scope="session")
def user(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the artefacts: the folder of a user of the build that made them, teachers and recipes included."""
    place = tmp_path_factory.mktemp("golden") / "user"
    shutil.copytree(ARTEFACTS, place, symlinks=True)
    return place
