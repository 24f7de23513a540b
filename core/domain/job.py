"""The words of the domain: states, priorities, languages' names."""

from __future__ import annotations

from enum import StrEnum


class JobStatus(StrEnum):
    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def terminal(self) -> bool:
        return self in TERMINAL


OPEN = (JobStatus.PENDING, JobStatus.PROCESSING)
TERMINAL = (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)


class Priority(StrEnum):
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"

    @property
    def level(self) -> int:
        return {"low": 0, "normal": 1, "high": 2}[self.value]


TOP_LEVEL = 9
"""Broker priority of Finalise and of whatever starves."""


def job_level(priority: Priority, unfinished_jobs: int) -> int:
    """Broker priority (0..8) of a job's own messages: 3 x user priority + band, design section 4."""
    return 3 * priority.level + job_band(unfinished_jobs)


def job_band(unfinished_jobs: int) -> int:
    """2 while the owner has under 10 unfinished jobs, 1 under 100, else 0."""
    if unfinished_jobs < 10:
        return 2
    return 1 if unfinished_jobs < 100 else 0


def chunk_level(priority: Priority, chunk_index: int, band_of_job: int) -> int:
    """Broker priority (0..8) of a chunk: band 2 for a job's first 4, 1 up to 16, then 0, never above its job's."""
    band = 2 if chunk_index < 4 else 1 if chunk_index < 16 else 0
    return 3 * priority.level + min(band, band_of_job)


AUTO = "auto"
