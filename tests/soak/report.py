"""What a soak run left behind: how jobs ended, what ran twice, how long the longest job waited."""

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
"""Codes that the soak's own damaged recordings end with; every other failed job is a defect."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Counts of jobs and chunks; seconds for `longest`, the greatest time from a submit to its job's completion."""

    accepted: int
    ended: dict[str, int]
    missing: int
    failures: Counter[str]
    chunks: int
    attempts: int
    committed: int
    longest: float

    @property
    def stuck(self) -> int:
        return sum(self.ended.get(status, 0) for status in OPEN)

    @property
    def wrongly_failed(self) -> int:
        return sum(count for code, count in self.failures.items() if code not in EXPECTED_FAILURES)

    def good(self, job_timeout: float) -> bool:
        """Nothing lost, doubled or wrongly failed, and some job did wait longer than `job_timeout` seconds."""
        wrong = (self.missing, self.stuck, self.wrongly_failed, self.committed - self.chunks)
        return not any(wrong) and self.longest > job_timeout


async def figures(database: Database, accepted: list[str]) -> Figures:
    async with database.read() as session:
        by_status = await session.execute(select(Job.status, func.count()).group_by(Job.status))
        ended: dict[str, int] = {row[0]: row[1] for row in by_status.all()}
        found = set((await session.execute(select(Job.job_id))).scalars())
        codes = await session.execute(select(Job.error_code).where(Job.status == JobStatus.FAILED))
        done = select(func.count(), func.coalesce(func.sum(Chunk.attempts), 0))
        chunks, attempts = (await session.execute(done.where(Chunk.status == JobStatus.COMPLETED))).one()
        commits = select(func.count()).where(Metric.metric_name == "chunk_seconds")
        committed = (await session.execute(commits)).scalar_one()
        times = select(Job.created_at, Job.completed_at).where(Job.status == JobStatus.COMPLETED)
        waits = [(end - start).total_seconds() for start, end in (await session.execute(times)).all() if end]
    missing = len(set(accepted) - found)
    failures = Counter(str(code) for code in codes.scalars())
    return Figures(len(accepted), ended, missing, failures, chunks, attempts, committed, max(waits, default=0.0))


def table(
    found: Figures,
    minutes: float,
    job_timeout: float,
    hazards: Counter[str],
    disk: bool,
    memory: dict[str, tuple[float, float]],
) -> Table:
    """memory: resident MB of each process at the start and at the end."""
    rows = Table("what", "figure", title=f"{minutes:g} minutes of soak, {datetime.now(UTC).date()}")
    rows.add_row("jobs accepted", str(found.accepted))
    for status in (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED):
        rows.add_row(f"jobs {status}", str(found.ended.get(status, 0)))
    rows.add_row("jobs lost, jobs not ended", f"{found.missing}, {found.stuck}")
    rows.add_row("failed jobs by code", ", ".join(f"{code} {count}" for code, count in found.failures.items()))
    rows.add_row("chunks finished, runs of them", f"{found.chunks}, {found.attempts}")
    rows.add_row("chunks committed twice", str(found.committed - found.chunks))
    rows.add_row("longest job, s (JOB_TIMEOUT_SECONDS)", f"{found.longest:.0f} ({job_timeout:.0f})")
    for name, count in sorted(hazards.items()):
        rows.add_row(name, str(count))
    if not disk:
        rows.add_row("fill the disk", "not done: mounting a small file system needs root")
    for name, (before, after) in memory.items():
        rows.add_row(f"memory of {name}, MB", f"{before:.0f} → {after:.0f}")
    return rows
