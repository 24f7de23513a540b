"""Progress of a backup or a restoration."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

OBJECTS, ROWS, UPGRADE = "objects", "rows", "upgrade"
"""Phases."""
REPORT_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Progress:
    """State of a phase. total: None while it is not known; size: bytes read or written so far."""

    phase: str
    done: int
    total: int | None
    size: int


Report = Callable[[Progress], None]


@dataclass
class Counter:
    """Counts the items of a phase, and reports at most ten times a second."""

    report: Report
    phase: str
    total: int | None = None
    done: int = 0
    size: int = 0
    _reported: float = field(default=0.0)

    def add(self, items: int = 0, size: int = 0) -> None:
        self.done += items
        self.size += size
        now = time.monotonic()
        if now - self._reported >= REPORT_SECONDS:
            self._reported = now
            self.show()

    def show(self) -> None:
        """Report the present state."""
        self.report(Progress(self.phase, self.done, self.total, self.size))
