"""Rewrite every golden file from what the product does now: ``python -m tests.golden.make``; the diff is the choice."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.golden.pinned import WRITING


def main() -> int:
    os.environ[WRITING] = "1"
    return int(pytest.main(["-q", "-p", "no:cacheprovider", str(Path(__file__).parent), *sys.argv[1:]]))


if __name__ == "__main__":
    sys.exit(main())
