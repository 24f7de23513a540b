"""Protection of leases that may have lapsed only because their holders were cut off, like the scheduler itself."""

from __future__ import annotations

import time
from dataclasses import dataclass


def boot_clock() -> float:
    """Return the seconds of a monotonic clock that includes suspended time, if the system has one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass(slots=True)
class LeaseGuard:
    """Detects interruptions of one scheduler by the gaps between its rounds.

    A gap, on the clock of this machine or of the database, means an outage, a suspended machine or a clock that was
    set: live holders may have missed renewals too. After a gap, and after the start, holders get one lease period to
    renew before any lease is released.

    lease: seconds; max_gap: seconds between two rounds above which there was an interruption.
    """

    lease: float
    max_gap: float
    _steady_since: float | None = None
    _last_round: tuple[float, float] = (0.0, 0.0)

    def allows_release(self, local_time: float, database_time: float) -> bool:
        """Record a round at these times (seconds); return whether lapsed leases may be released."""
        last_local, last_database = self._last_round
        interrupted = max(local_time - last_local, abs(database_time - last_database)) > self.max_gap
        if self._steady_since is None or interrupted:
            self._steady_since = local_time
        self._last_round = (local_time, database_time)
        return local_time - self._steady_since >= self.lease
