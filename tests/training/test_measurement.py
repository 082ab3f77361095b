"""The batch of a check on a CPU grows as far as time and memory allow; speeds are those of whole batches."""

from __future__ import annotations

from typing import Any

import pytest

from tests.training.conftest import Recipe
from tinymim.data.data_module import ImageData
from tinymim.training import measurement, preflight
from tinymim.training.measurement import Growth, Measurement


def grown(monkeypatch: pytest.MonkeyPatch, seconds: float, size: int, whole: int = 256) -> tuple[list[int], Growth]:
    """Sizes of the batches until a measurement begins, where each image takes so many seconds and bytes."""
    peak = [1000]
    monkeypatch.setattr(measurement, "peak_memory", lambda: peak[0])
    growth = Growth(whole, seconds=1.0, free=10_000, fixed=500)
    sizes, grows = [], True
    while grows:
        sizes.append(growth.images)
        peak[0] = max(peak[0], 1500 + size * growth.images)
        grows = growth.grow(seconds * growth.images)
    return sizes, growth


def test_growth__to_the_whole_batch_where_nothing_is_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, growth = grown(monkeypatch, 0.001, 10)
    assert sizes == [2, 8, 32, 128, 256]
    assert growth.limit == ""
    assert grown(monkeypatch, 9.0, 10, whole=2)[0] == [2]


def test_growth__ends_where_a_batch_would_be_long(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, growth = grown(monkeypatch, 0.02, 10)
    assert sizes == [2, 8, 32, 32]  # once more, as the first of a size also prepares the others
    assert growth.limit == "more would take too long for a check"
    assert growth.memory(256) == 1500 + 10 * 256


def test_growth__ends_where_memory_would(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, growth = grown(monkeypatch, 0.001, 100)
    assert sizes == [2, 8, 32, 64, 64]  # 1500 + 100 x 64 bytes are less than 1000 + 3/4 of 10,000
    assert growth.limit == "more may not fit into the memory that is free"


def test_seconds__of_a_whole_batch_and_of_what_fills_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement, "peak_memory", lambda: 1)
    timed = Measurement(8, 2, Growth(8, seconds=0.2, free=10, fixed=0))
    for computed, waited in ((0.1, 9.0), (0.2, 9.0), (0.2, 9.0)):  # of two images, and then of four
        timed.add(computed, waited)
    assert timed.images == 4
    assert not timed.done
    timed.add(0.2, 0.3)
    timed.add(0.2, 0.1)
    assert timed.done
    assert timed.seconds(0.1) == pytest.approx(((2 * 0.4 + 0.4 - 0.1) / 2, (2 * 0.4 + 0.4 + 0.1) / 2))


def test_check__with_a_part_of_each_batch(tiny_fit: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    finish = ImageData.on_after_batch_transfer
    monkeypatch.setattr(preflight, "free_memory", lambda: 0)
    monkeypatch.setattr(
        ImageData, "on_after_batch_transfer", lambda *given: (seen.append(len(given[1]["image"])), finish(*given))[1]
    )
    done: Any = tiny_fit(command="check")
    assert done.returncode == 0, done.stderr
    assert "measured with 2 of 8 images a batch, as more may not fit into the memory that is free: " in done.stderr
    assert " in batches of 8), about 0:0" in done.stderr
    assert set(seen) == {2}
