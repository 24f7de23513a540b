"""The report of a soak run: outcomes of jobs, repeated work, the longest wait."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.table import Table
from sqlalchemy import func, select

from core.database import Database
from core.domain.job import OPEN, JobStatus
from repositories.models import Chunk, Job, Metric

EXPECTED_FAILURES = frozenset({"INVALID_AUDIO"})
"""Codes of the soak's own damaged recordings; every other failed job is a defect."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Counts of jobs and chunks; `longest` is the longest time from submit to completion in seconds."""

    accepted: int
    by_status: dict[str, int]
    missing: int
    failures: Counter[str]
    chunks: int
    attempts: int
    committed: int
    longest: float

    @property
    def stuck(self) -> int:
        return sum(self.by_status.get(status, 0) for status in OPEN)

    @property
    def wrongly_failed(self) -> int:
        return sum(count for code, count in self.failures.items() if code not in EXPECTED_FAILURES)

    def passed(self, job_timeout: float) -> bool:
        """Return True if nothing was lost, repeated or wrongly failed, and a job waited longer than `job_timeout`
        seconds.
        """
        wrong = (self.missing, self.stuck, self.wrongly_failed, self.committed - self.chunks)
        return not any(wrong) and self.longest > job_timeout


async def figures(database: Database, accepted: list[str]) -> Figures:
    async with database.read() as session:
        counts = await session.execute(select(Job.status, func.count()).group_by(Job.status))
        by_status: dict[str, int] = {row[0]: row[1] for row in counts.all()}
        stored = set((await session.execute(select(Job.job_id))).scalars())
        codes = await session.execute(select(Job.error_code).where(Job.status == JobStatus.FAILED))
        completed = select(func.count(), func.coalesce(func.sum(Chunk.attempts), 0))
        chunks, attempts = (await session.execute(completed.where(Chunk.status == JobStatus.COMPLETED))).one()
        commits = select(func.count()).where(Metric.metric_name == "chunk_seconds")
        committed = (await session.execute(commits)).scalar_one()
        times = select(Job.created_at, Job.completed_at).where(Job.status == JobStatus.COMPLETED)
        waits = [(end - start).total_seconds() for start, end in (await session.execute(times)).all() if end]
    missing = len(set(accepted) - stored)
    failures = Counter(str(code) for code in codes.scalars())
    return Figures(len(accepted), by_status, missing, failures, chunks, attempts, committed, max(waits, default=0.0))


def table(
    figures: Figures,
    minutes: float,
    job_timeout: float,
    hazards: Counter[str],
    disk: bool,
    memory: dict[str, tuple[float, float]],
) -> Table:
    """Build the report. memory: resident MB of each process at the start and at the end."""
    rows = Table("what", "figure", title=f"{minutes:g} minutes of soak, {datetime.now(UTC).date()}")
    rows.add_row("jobs accepted", str(figures.accepted))
    for status in (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED):
        rows.add_row(f"jobs {status}", str(figures.by_status.get(status, 0)))
    rows.add_row("jobs lost, jobs not ended", f"{figures.missing}, {figures.stuck}")
    rows.add_row("failed jobs by code", ", ".join(f"{code} {count}" for code, count in figures.failures.items()))
    rows.add_row("chunks finished, their runs", f"{figures.chunks}, {figures.attempts}")
    rows.add_row("chunks committed twice", str(figures.committed - figures.chunks))
    rows.add_row("longest job, s (JOB_TIMEOUT_SECONDS)", f"{figures.longest:.0f} ({job_timeout:.0f})")
    for name, count in sorted(hazards.items()):
        rows.add_row(name, str(count))
    if not disk:
        rows.add_row("fill the disk", "not done: mounting a small file system needs root")
    for name, (before, after) in memory.items():
        rows.add_row(f"memory of {name}, MB", f"{before:.0f} → {after:.0f}")
    return rows
