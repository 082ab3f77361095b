"""The comparison with other packages without them: the command line, what is left out, and the table."""

from __future__ import annotations

import importlib
import io
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("peers")


def printed(table: object) -> str:
    out = io.StringIO()
    Console(file=out, width=160).print(table)
    return out.getvalue()


def test_table__medians_and_ratios_round_by_round(peers: ModuleType) -> None:
    options = peers.arguments(["--batch", "8"])
    ours = peers.Measured(0.5, [1.0, 2.0, 4.0], 3 * 2**30, 2**29)
    theirs = peers.Measured(0.25, [1.5, 2.0, 10.0], 2**30, 0.0)
    text = printed(peers.table({"tinymim": ours, "torchdistill": theirs}, options))
    rows = {
        line.split("│")[1].strip(): [cell.strip() for cell in line.split("│")[2:-1]]
        for line in text.splitlines()
        if " ms " in line
    }
    assert rows["tinymim"] == ["0.5000", "2000 ms", "4.0", "1.00", "1.00 to 1.00", "3.00 GiB", "0.50 GiB"]
    assert rows["torchdistill"] == ["0.2500", "2000 ms", "4.0", "1.50", "1.00 to 2.50", "1.00 GiB", "-"]


def test_problem__a_package_that_is_absent_or_another_version(
    peers: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = peers.PEERS["lightly-train"]

    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    assert peer.problem().startswith("lightly-train 0.18 is not installed")
    assert peers.PEERS["tinymim"].problem() is None
    for found, fits in (("0.18.0", True), ("0.18", True), ("0.180.0", False), ("0.17.2", False)):
        monkeypatch.setattr(metadata, "version", lambda name, found=found: found)
        assert (peer.problem() is None) == fits
        assert fits or found in peer.problem()


def test_computes__says_which_token_a_peer_reads(peers: ModuleType) -> None:
    told = peers.PEERS["lightly-train"].computes
    assert "mean of the patch tokens" in told
    assert "trains no class token" in told


def test_arguments__an_unknown_row_is_refused_and_the_rows_are_listed(
    peers: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        peers.arguments(["--only", "lightning"])
    assert "torchdistill" in capsys.readouterr().err


def test_rows__ours_and_the_published_step_give_one_loss(peers: ModuleType, tmp_path: Path) -> None:
    options = peers.arguments(["--teacher", "vit_tiny_patch16_224", "--batch", "1"])
    options.folder = tmp_path
    peers.write_networks(options)
    ours, published = (float(peers.PEERS[name].build(options).step()) for name in ("tinymim", "TinyMIM published"))
    assert ours == pytest.approx(published, rel=0.1)  # drop path draws differ


def test_main__measures_what_is_there_and_names_what_is_not(
    peers: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--teacher", "vit_tiny_patch16_224", "--batch", "1", "--rounds", "1", "--threads", "1"]
    monkeypatch.setattr(sys, "argv", ["peers.py", "--only", "tinymim", "torchdistill", "--cache", *small])
    peers.main()
    out = capsys.readouterr().out
    rows = [line.split("│")[1].strip() for line in out.splitlines() if " ms " in line]
    assert "tinymim" in rows
    assert ("tinymim cached" in rows) != ("left out: the teacher cache" in out)
    assert ("torchdistill" in rows) != ("left out: torchdistill 1.1.5 is not installed" in out)
