"""States, priorities and fairness bands of jobs."""

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
"""Broker priority of Finalise and of starving jobs. A job's other messages have 3 x priority level + band, 0..8."""


def job_band(unfinished_jobs: int) -> int:
    """Return the job's band: 2 while its owner has under 10 unfinished jobs, 1 under 100, else 0."""
    if unfinished_jobs < 10:
        return 2
    return 1 if unfinished_jobs < 100 else 0


def chunk_level(priority: Priority, chunk_index: int, band_of_job: int) -> int:
    """Return the broker priority (0..8) of a chunk's message.

    A job's first 4 chunks have band 2, the next 12 band 1, and all others band 0, limited to the band of the job.
    """
    band = 2 if chunk_index < 4 else 1 if chunk_index < 16 else 0
    return 3 * priority.level + min(band, band_of_job)


AUTO = "auto"
"""Language of a job whose language is to be detected."""
