"""Speed and memory of a few batches; in ``tinymim check`` on a CPU of smaller ones, where whole ones take too much."""

from __future__ import annotations

from tinymim.system import peak_memory

FEW = 2
"""Images that a growing batch begins with; some networks take no fewer."""

GROWTH = (4, 2)
"""Factors from one batch to the next; the first one that time and memory allow."""

SHARE = 0.75
"""Share of the memory that is free which growing may take."""


class Growth:
    """Images of a batch, from :data:`FEW` to all of them, while a batch stays short and fits into memory.

    Args:
        whole: images of a whole batch, of one process.
        seconds: that a batch may take.
        free: bytes of memory that are free.
        fixed: bytes that a step takes whatever its batch: gradients, and the optimiser's moments.
    """

    def __init__(self, whole: int, seconds: float, free: int, fixed: int):
        self.images, self.whole, self.seconds = min(FEW, whole), whole, seconds
        self.limit = ""
        """Reason why a batch stays smaller than the whole, once it does."""
        self._base, self._most = peak_memory() + fixed, peak_memory() + SHARE * free
        self._again = False

    def grow(self, seconds: float) -> bool:
        """After a batch that took so many seconds: whether the next is larger, or the same once more, as the first of a
        size also prepares the others."""
        if self.images == self.whole:
            return False
        for factor in GROWTH:
            images = min(factor * self.images, self.whole)
            if self.memory(images) > self._most:
                self.limit = "more may not fit into the memory that is free"
            elif seconds * images > self.seconds * self.images:
                self.limit = "more would take too long for a check"
            else:
                self.images, self.limit, self._again = images, "", False
                return True
        self._again = not self._again
        return self._again

    def memory(self, images: int) -> float:
        """Bytes that the process will have had at once after a batch of so many, by the growth so far."""
        return self._base + max(peak_memory() - self._base, 0) * images / self.images


class Measurement:
    """Seconds of batches, without those that warm up.

    Args:
        whole: images of a whole batch, of one process.
        most: batches to measure.
        growth: images that are taken of them; ``None`` takes all.
    """

    def __init__(self, whole: int, most: int, growth: Growth | None = None):
        self.whole, self.most, self.growth = whole, most, growth
        self.images, self.batches = growth.images if growth else whole, 0
        self._computed = self._waited = 0.0
        self._warm, self._newest = False, (0, 0.0)

    @property
    def done(self) -> bool:
        """Whether all have ended that were to be measured."""
        return self._warm and self.batches == self.most

    @property
    def last(self) -> bool:
        """Whether the next batch is the last one."""
        return self._warm and self.batches == self.most - 1

    def add(self, computed: float, waited: float) -> None:
        """Count a batch by the seconds of its step, and those before it since the one before."""
        if self._warm:
            self.batches += 1
            self._computed, self._waited = self._computed + computed, self._waited + waited
            return
        self._newest = (self.images, computed)
        self._warm = self.growth is None or not self.growth.grow(computed)
        if self.growth:
            self.images = self.growth.images

    def end(self) -> bool:
        """Take the newest batch of those that grew where the time ended before any was measured; is there one?"""
        if not self.batches and self.growth and self._newest[0]:
            (self.images, self._computed), self.batches = self._newest, 1
            self.growth.limit = self.growth.limit or "the check ended"
        return self.batches > 0

    def seconds(self, filling: float) -> tuple[float, float]:
        """Seconds of a whole batch, without and with what a teacher's cache took to fill.

        Args:
            filling: seconds that filling took, of all that was measured.
        """
        larger = self.whole / self.images
        without = max(self._computed * larger + self._waited - filling, 1e-9)
        return without / self.batches, (without + filling * larger) / self.batches
