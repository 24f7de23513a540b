"""Views of jobs for API responses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from core.database import Database
from core.domain.job import JobStatus
from core.errors import JobCancelledError
from core.failure_text import failure_text
from internal.services.estimates import Estimator, finished_share
from internal.services.jobs import JobPage
from repositories import corrections
from repositories.models import Job


@dataclass(frozen=True, slots=True)
class JobView:
    """A job with its progress, its failure in the reader's language, an estimate, and the number of its corrections.

    Attributes that are not defined here are the job row's.
    """

    job: Job
    failure: str | None
    estimated_time_seconds: float | None = None
    corrections: int = 0

    @property
    def progress(self) -> float:
        return progress_of(self.job)

    @property
    def error_message(self) -> str | None:
        return self.failure if self.job.error_code else None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.job, name)


@dataclass(frozen=True, slots=True)
class JobViewPage:
    jobs: list[JobView]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class JobViews:
    """Views of jobs, with estimates."""

    estimator: Estimator
    database: Database

    async def of(self, job: Job, language: str) -> JobView:
        """Return the view of a job. language: that of the failure text."""
        return JobView(job, failure_message(job, language), await self.estimator.seconds(job))

    async def with_corrections(self, job: Job, language: str) -> JobView:
        """Return the view of a job, with the number of its corrections."""
        return (await self.page(JobPage([job], None), language)).jobs[0]

    async def page(self, page: JobPage, language: str) -> JobViewPage:
        async with self.database.read() as session:
            counts = await corrections.count_current(session, [job.job_id for job in page.jobs])
        views = [replace(await self.of(job, language), corrections=counts.get(job.job_id, 0)) for job in page.jobs]
        return JobViewPage(views, page.next_cursor)


def view_of(job: Job, language: str) -> JobView:
    """Return a view without an estimate."""
    return JobView(job, failure_message(job, language))


def progress_of(job: Job) -> float:
    """Return the percentage of finished chunks, with one decimal; 100 only for a COMPLETED job."""
    if job.status == JobStatus.COMPLETED:
        return 100.0
    return min(round(100 * finished_share(job), 1), 99.9)


def failure_message(job: Job, language: str) -> str | None:
    """Return the reason for which the job has no result; None if it has neither failed nor been cancelled."""
    if job.status == JobStatus.CANCELLED and job.error_code is None:
        return JobCancelledError.general(language)
    return failure_text(job.error_code, job.error_details, job.error_message, language)
