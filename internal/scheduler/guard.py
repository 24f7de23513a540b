"""When lapsed leases may be taken as dead: not while their holders may have been cut off as this process was."""

from __future__ import annotations

import time
from dataclasses import dataclass


def uptime() -> float:
    """Seconds of a clock that also counts while the machine sleeps, where there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass(slots=True)
class LeaseGuard:
    """Watches the rounds of one scheduler for gaps.

    A gap between two rounds, on this machine's clock or the database's, is an outage, a machine that slept, or a clock
    that was set: living holders have missed renewals too. After a gap, and after the start, they get one lease period
    to renew before anything is taken from them.

    lease: seconds; gap: seconds between two rounds from which on they count as interrupted.
    """

    lease: float
    gap: float
    _since: float | None = None
    _last: tuple[float, float] = (0.0, 0.0)

    def steady(self, here: float, database: float) -> bool:
        """Note a round at these two clocks' seconds; True: leases that have lapsed by now belong to dead holders."""
        before_here, before_database = self._last
        interrupted = max(here - before_here, abs(database - before_database)) > self.gap
        if self._since is None or interrupted:
            self._since = here
        self._last = (here, database)
        return here - self._since >= self.lease
