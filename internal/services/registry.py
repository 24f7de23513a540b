"""The services of one process."""

from __future__ import annotations

from dataclasses import dataclass

from internal.services.dead_letters import DeadLetters
from internal.services.jobs import Jobs
from internal.services.retention import Retention


@dataclass(frozen=True, slots=True)
class Services:
    """The services, built by `internal/bootstrap.py`."""

    dead_letters: DeadLetters
    jobs: Jobs
    retention: Retention
