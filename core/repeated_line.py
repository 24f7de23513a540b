"""Limit on log lines that an outage would repeat every second."""

from __future__ import annotations

import time

INTERVAL = 60.0
"""Seconds between two lines about one outage."""


class RepeatedLine:
    """Times at which one outage is logged: at its start, once per INTERVAL, and at its end."""

    def __init__(self) -> None:
        self._started: float | None = None
        self._logged = 0.0

    def due(self) -> bool:
        """Return whether a failure that has just happened is to be logged."""
        now = time.monotonic()
        if self._started is None:
            self._started = now
        elif now - self._logged < INTERVAL:
            return False
        self._logged = now
        return True

    def end(self) -> float | None:
        """End the outage, if there is one; return its length in seconds."""
        started, self._started = self._started, None
        return None if started is None else round(time.monotonic() - started, 1)
