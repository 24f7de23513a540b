"""Progress of a download."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

WINDOW_SECONDS = 10.0
SAMPLE_SECONDS = 0.05
WAITING, DOWNLOADING, CHECKING = "waiting", "downloading", "checking"


@dataclass(frozen=True, slots=True)
class Progress:
    """State of a pull. done, total: bytes, None if unknown. rate: bytes per second. detail: holder of the lock."""

    phase: str
    done: int = 0
    total: int | None = None
    rate: float = 0.0
    detail: str = ""

    @property
    def remaining(self) -> float | None:
        """Seconds until the download ends, or None."""
        return None if self.total is None or self.rate <= 0 else max(0.0, self.total - self.done) / self.rate


Report = Callable[[Progress], None]
"""Called with each state, in the thread of the pull, several times a second."""


class RateMeter:
    """Rate of a growing number over the last ten seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def add(self, value: int) -> float:
        """Record the value and return its growth per second."""
        now = time.monotonic()
        if not self._samples or now - self._samples[-1][0] > SAMPLE_SECONDS:
            self._samples.append((now, value))
        while now - self._samples[0][0] > WINDOW_SECONDS:
            self._samples.popleft()
        start, first = self._samples[0]
        return (value - first) / (now - start) if now > start else 0.0
