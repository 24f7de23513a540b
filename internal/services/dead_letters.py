"""Dead letters: one message per failed job, with a token that reopens the job once."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from core import tracing
from core.database import Database
from core.errors import BrokerUnavailable, DatabaseUnavailable
from core.messaging.port import Broker, DeadMessage, MessageType, NewerMessage, UndecodableMessage, decode
from internal.services.publishing import Publisher, dead_letter_message
from repositories import failures, jobs, schedule
from repositories.jobs import Failure
from repositories.models import Job

log = structlog.get_logger(__name__)
ALL = "all"
"""Selects every dead letter, in place of a job id."""
MAX_HEADER_TEXT = 1024
"""Maximum bytes of an error message in a dead letter's header."""


def new_token() -> str:
    return secrets.token_urlsafe(16)


def dead_letter_headers(job: Job, failure: Failure) -> dict[str, Any]:
    """Return the headers that describe the failure, shown by the broker's management page and `stt dlq`."""
    return {
        "job": job.job_id,
        "chunk": "" if failure.chunk_index is None else failure.chunk_index,
        "attempts": failure.attempts,
        "code": job.error_code or "",
        "message": (job.error_message or "").encode()[:MAX_HEADER_TEXT].decode(errors="ignore"),
        "first_failure": failure.first.isoformat() if failure.first else "",
        "last_failure": job.completed_at.isoformat() if job.completed_at else "",
    }


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter in the broker.

    job_id: None if the message cannot be decoded; token: None unless it reopens a job; headers: see
    `dead_letter_headers`.
    """

    job_id: str | None
    token: str | None
    headers: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, dead_message: DeadMessage) -> DeadLetter:
        try:
            message = decode(dead_message.body)
        except (UndecodableMessage, NewerMessage):
            return cls(None, None, dead_message.headers)
        return cls(message.job_id, message.token if message.type is MessageType.REPLAY else None, dead_message.headers)


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """Publishing, listing, replaying and purging dead letters."""

    database: Database
    broker: Broker
    publisher: Publisher

    async def publish(self, job_id: str) -> None:
        """Publish a failed job's dead letter and record the publish. Never raises: the scheduler repeats a failure."""
        try:
            async with self.database.read() as session:
                job = await jobs.get(session, job_id)
                failure = await jobs.get_failure(session, job_id)
            if job is None or job.replay_token is None:
                return
            headers = dead_letter_headers(job, failure) | tracing.headers(job_id)
            await self.broker.publish(dead_letter_message(job), headers=headers)
            async with self.database.write() as session:
                await schedule.mark_dead_letter_published(session, job_id, job.replay_token)
        except (BrokerUnavailable, DatabaseUnavailable) as error:
            log.warning("dead letter left to the scheduler", action="dead_letter_delayed", reason=str(error))
        except Exception:
            log.exception("dead letter left to the scheduler", action="dead_letter_failed", job_id=job_id)

    async def list_all(self) -> list[DeadLetter]:
        """Return every dead letter, oldest first, leaving them in the queue."""
        dead_letters: list[DeadLetter] = []

        async def collect(message: DeadMessage) -> bool:
            dead_letters.append(DeadLetter.of(message))
            return False

        await self.broker.walk_dead_letters(collect)
        return dead_letters

    async def replay(self, job_id: str) -> tuple[int, int]:
        """Reopen the job, or ALL. Return the number of reopened jobs and of stale dead letters, which are removed."""
        reopened = stale = 0

        async def reopen(message: DeadMessage) -> bool:
            nonlocal reopened, stale
            dead_letter = DeadLetter.of(message)
            if dead_letter.job_id is None or dead_letter.token is None or job_id not in (dead_letter.job_id, ALL):
                return False
            async with self.database.write() as session:
                wake_ups = await failures.replay(session, dead_letter.job_id, dead_letter.token)
            if wake_ups is None:
                stale += 1
            else:
                reopened += 1
                await self.publisher.publish_rows(wake_ups)
            return True

        await self.broker.walk_dead_letters(reopen)
        return reopened, stale

    async def purge(self, job_id: str) -> int:
        """Remove the dead letters of the job, or ALL; the jobs stay FAILED. Return the number removed."""
        removed = 0

        async def remove_matching(message: DeadMessage) -> bool:
            nonlocal removed
            matches = job_id in (DeadLetter.of(message).job_id, ALL)
            removed += matches
            return matches

        await self.broker.walk_dead_letters(remove_matching)
        return removed
