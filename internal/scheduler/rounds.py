"""The scheduler's rounds: publish what is due, collect what expired. Any number of schedulers may run."""

from __future__ import annotations

from dataclasses import dataclass, field

import structlog

from core.domain.job import TOP_LEVEL
from core.errors import ChunkTimeoutError
from core.messaging.port import WORK_QUEUES, QueueName
from internal.bootstrap import Parts
from internal.services import dead_letters, lifecycle, reopening
from repositories import admission, claims, failures, idempotency, intents, rate_limits, schedule, starvation, workers
from repositories.claims import Released

log = structlog.get_logger(__name__)
ROUND = 5.0
QUEUE_ROUND = 10.0
HOUSEKEEPING_ROUND = 60.0


@dataclass(slots=True)
class Rounds:
    parts: Parts
    _seen_empty: dict[str, bool] = field(default_factory=dict)

    async def publish_due(self) -> None:
        """Publish rows whose `due_at` has passed: lost wake-ups, run-out claims, retries, dead letters."""
        while True:
            async with self.parts.database.write() as session:
                jobs = await schedule.take_due_jobs(session)
                chunks = await schedule.take_due_chunks(session)
            if jobs or chunks:
                log.info("publishing what is due", action="due_published", jobs=len(jobs), chunks=len(chunks))
            await reopening.publish(self.parts, [*(job.released for job in jobs if job.token is None), *chunks])
            for job in jobs:
                if job.token is not None:
                    await dead_letters.publish(self.parts, job.released.job_id)
            if len(jobs) < schedule.BATCH and len(chunks) < schedule.BATCH:
                return

    async def notice_purged_queues(self) -> None:
        """A queue seen empty twice in a row has lost what was published and never claimed."""
        empty = {stats.name: stats.ready == 0 for stats in await self.parts.broker.stats()}
        lost = [name for name in WORK_QUEUES if empty.get(name) and self._seen_empty.get(name)]
        self._seen_empty = empty
        if not lost:
            return
        async with self.parts.database.write() as session:
            count = await schedule.republish_unclaimed(
                session, jobs=any(name is not QueueName.CHUNKS for name in lost), chunks=QueueName.CHUNKS in lost
            )
        if count:
            log.warning("queue was emptied, publishing again", action="purge_noticed", rows=count)

    async def boost_starving(self) -> None:
        """Whatever made no progress for STARVATION_SECONDS gets one of its waiting items published at the top level."""
        async with self.parts.database.write() as session:
            rows = await starvation.take_starving(session, self.parts.settings.starvation_seconds)
        if rows:
            log.info("boosting jobs that wait too long", action="boosted", jobs=len(rows))
            await reopening.publish(self.parts, rows, TOP_LEVEL)

    async def wake_put_off(self) -> None:
        """Try the next row of each owner that has rows put off: jobs that fail or are cancelled make room, too."""
        async with self.parts.database.write() as session:
            rows: list[Released] = []
            for owner in await admission.owners_put_off(session):
                rows += await admission.wake(session, owner, claims.unfetched(), 1)
                rows += await admission.wake(session, owner, claims.unprepared(), 1)
        await reopening.publish(self.parts, rows)

    async def fail_stuck(self) -> None:
        """Something runs and nothing progressed for JOB_TIMEOUT: the job fails, with a dead letter."""
        settings = self.parts.settings
        async with self.parts.database.read() as session:
            stuck = await starvation.stuck(session, settings.job_timeout)
        for job_id in stuck:
            token = dead_letters.new_token()
            async with self.parts.database.write() as session:
                await failures.fail_job(session, job_id, ChunkTimeoutError(), token, ttl=settings.failure_ttl)
            log.error("job made no progress, failed", action="job_stuck", job_id=job_id)
            await dead_letters.publish(self.parts, job_id)

    async def collect_intents(self) -> None:
        """Remove what uploads that never became jobs, and steps that died, left behind."""
        async with self.parts.database.read() as session:
            expired = await intents.expired(session)
        for intent in expired:
            if not await lifecycle.collect_expired(self.parts, intent.key):
                continue
            log.info("abandoned object removed", action="intent_collected", job_id=intent.job_id, key=intent.key)

    async def housekeep(self) -> None:
        await self.collect_intents()
        await self.fail_stuck()
        await lifecycle.expire(self.parts)
        async with self.parts.database.write() as session:
            await workers.forget_gone(session)
            await idempotency.forget_expired(session)
            await rate_limits.forget_expired(session)
