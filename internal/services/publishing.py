"""Publishes wake-ups after the commit and notes that they are out. The scheduler repeats what the broker refused."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog

from core.database import Database
from core.domain.job import TOP_LEVEL, Priority, chunk_level
from core.errors import BrokerUnavailable, DatabaseUnavailable
from core.messaging.port import Broker, Message, MessageType
from repositories import schedule
from repositories.claims import WakeUp
from repositories.jobs import Failure
from repositories.models import Job

log = structlog.get_logger(__name__)
LONGEST = 5.0
"""Seconds that one publish, or noting that it went out, may take."""
MAX_TEXT = 1024
"""Bytes of an error message in a dead letter's header."""


def prepare(job: Job, released: WakeUp, level: int | None = None) -> Message:
    own = 3 * Priority(job.priority).level + job.band
    return _message(MessageType.PREPARE, job, released, own if level is None else level)


def fetch(job: Job, released: WakeUp, level: int | None = None) -> Message:
    return replace(prepare(job, released, level), type=MessageType.FETCH)


def finalise(job: Job, released: WakeUp) -> Message:
    return _message(MessageType.FINALISE, job, released, TOP_LEVEL)


def transcribe(job: Job, released: WakeUp, level: int | None = None) -> Message:
    own = chunk_level(Priority(job.priority), released.chunk_index or 0, job.band)
    return _message(MessageType.TRANSCRIBE, job, released, own if level is None else level)


def replay(job: Job) -> Message:
    """The dead letter of a failed job: moved back to either queue, it reopens the job once."""
    letter = _message(MessageType.REPLAY, job, WakeUp(job.job_id, None, job.failures), 0)
    return replace(letter, token=job.replay_token)


def dead_letter_headers(job: Job, failure: Failure) -> dict[str, Any]:
    """What an operator sees in the broker's own page."""
    return {
        "job": job.job_id,
        "chunk": "" if failure.chunk_index is None else failure.chunk_index,
        "attempts": failure.attempts,
        "code": job.error_code or "",
        "message": (job.error_message or "").encode()[:MAX_TEXT].decode(errors="ignore"),
        "first_failure": failure.first.isoformat() if failure.first else "",
        "last_failure": job.completed_at.isoformat() if job.completed_at else "",
    }


def message_for(job: Job, released: WakeUp, level: int | None = None) -> Message:
    """The wake-up that a released row stands for: a chunk's, or the job's own next step."""
    if released.chunk_index is not None:
        return transcribe(job, released, level)
    if job.chunks_total is not None:
        return finalise(job, released)
    fetched = job.minio_audio_path is not None or job.media_url is None
    return prepare(job, released, level) if fetched else fetch(job, released, level)


def _message(kind: MessageType, job: Job, released: WakeUp, level: int) -> Message:
    return Message(
        type=kind,
        job_id=job.job_id,
        chunk_index=released.chunk_index,
        failures=released.failures,
        level=level,
        minio_path=job.minio_audio_path,
        language=job.language,
        model=job.model,
        priority=job.priority,
        original_filename=job.original_filename,
    )


@dataclass(frozen=True, slots=True)
class Publisher:
    """The one place that publishes wake-ups."""

    database: Database
    broker: Broker

    async def publish(self, messages: Sequence[Message]) -> bool:
        """Publish, then put the rows' next publishes off. Returns whether all went out; raises only cancellation.

        What the broker refused is due again in seconds; a message that cannot be published at all does not stop the
        others, its row keeps its `due_at`. The work is committed already, so no fault of the broker, a refused topology
        or a hanging publish included, may reach the caller or hold it up.
        """
        sent: list[WakeUp] = []
        refused: list[WakeUp] = []
        for message in messages:
            row = WakeUp(message.job_id, message.chunk_index, message.failures)
            if refused:
                refused.append(row)
                continue
            try:
                async with asyncio.timeout(LONGEST):
                    await self.broker.publish(message)
                sent.append(row)
            except (BrokerUnavailable, TimeoutError) as error:
                log.warning("publish failed, left to the scheduler", action="publish_failed", reason=repr(error))
                refused.append(row)
            except Exception:
                log.exception("publish failed, left to the scheduler", action="publish_failed", job_id=row.job_id)
        await self._note(sent, refused)
        return len(sent) == len(messages)

    async def _note(self, sent: Sequence[WakeUp], refused: Sequence[WakeUp]) -> None:
        if not sent and not refused:
            return
        try:
            async with asyncio.timeout(LONGEST), self.database.write() as session:
                await schedule.mark_published(session, sent)
                await schedule.postpone(session, refused, schedule.REFUSED_DELAY)
        except (DatabaseUnavailable, TimeoutError) as error:
            reason = repr(error.__cause__ or error)
            log.warning("publish not noted, it will be repeated", action="confirm_failed", reason=reason)
        except Exception:
            log.exception("publish not noted, it will be repeated", action="confirm_failed")
