"""Wake-up messages, published after the commit of the work that they announce."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import structlog

from core import tracing
from core.database import Database
from core.domain.job import TOP_LEVEL, Priority, chunk_level
from core.errors import BrokerUnavailable, DatabaseUnavailable
from core.messaging.port import Broker, Message, MessageType
from core.tasks import cancel_and_wait
from repositories import jobs, parking, schedule
from repositories.claims import WakeUp
from repositories.models import Job

log = structlog.get_logger(__name__)
PUBLISH_TIMEOUT = 5.0
"""Seconds that one publish may take, or recording all of them."""
RECORD_DELAY = 0.25
"""Seconds after which publishes are recorded, together with those made meanwhile."""
PUBLISH_STEP = "publish"


def prepare_message(job: Job, wake_up: WakeUp, level: int | None = None) -> Message:
    default = 3 * Priority(job.priority).level + job.band
    return _message(MessageType.PREPARE, job, wake_up, default if level is None else level)


def fetch_message(job: Job, wake_up: WakeUp, level: int | None = None) -> Message:
    return replace(prepare_message(job, wake_up, level), type=MessageType.FETCH)


def finalise_message(job: Job, wake_up: WakeUp) -> Message:
    return _message(MessageType.FINALISE, job, wake_up, TOP_LEVEL)


def transcribe_message(job: Job, wake_up: WakeUp, level: int | None = None) -> Message:
    default = chunk_level(Priority(job.priority), wake_up.chunk_index or 0, job.band)
    return _message(MessageType.TRANSCRIBE, job, wake_up, default if level is None else level)


def dead_letter_message(job: Job) -> Message:
    """Return the dead letter of a failed job. Moved back to a work queue, it reopens the job once."""
    message = _message(MessageType.REPLAY, job, WakeUp(job.job_id, None, job.failures), 0)
    return replace(message, token=job.replay_token)


def message_for(job: Job, wake_up: WakeUp, level: int | None = None) -> Message:
    """Return the message for a chunk, or for the job's own next step."""
    if wake_up.chunk_index is not None:
        return transcribe_message(job, wake_up, level)
    if job.chunks_total is not None:
        return finalise_message(job, wake_up)
    fetched = job.minio_audio_path is not None or job.media_url is None
    return prepare_message(job, wake_up, level) if fetched else fetch_message(job, wake_up, level)


def _message(kind: MessageType, job: Job, wake_up: WakeUp, level: int) -> Message:
    return Message(
        type=kind,
        job_id=job.job_id,
        chunk_index=wake_up.chunk_index,
        failures=wake_up.failures,
        level=level,
        minio_path=job.minio_audio_path,
        language=job.language,
        model=job.model,
        priority=job.priority,
        original_filename=job.original_filename,
    )


@dataclass(frozen=True, slots=True)
class _Sent:
    """Rows of one call whose messages the broker has. started: time on the monotonic clock before the first one."""

    started: float
    rows: Sequence[WakeUp]


@dataclass(slots=True)
class Publisher:
    """Publisher of wake-ups. The scheduler repeats those that the broker refuses."""

    database: Database
    broker: Broker
    _sent: list[_Sent] = field(default_factory=list, init=False)
    _recording: asyncio.Task[None] | None = field(default=None, init=False)

    async def publish_rows(self, wake_ups: Sequence[WakeUp], level: int | None = None) -> bool:
        """Publish the wake-ups of these rows; return whether all of them were published.

        level: priority of the messages, by default that of each row. A row whose message cannot be built is parked.
        Raises DatabaseUnavailable.
        """
        async with self.database.read() as session:
            jobs_by_id = await jobs.get_many(session, {row.job_id for row in wake_ups})
        messages: list[Message] = []
        for row in (row for row in wake_ups if row.job_id in jobs_by_id):
            try:
                message = message_for(jobs_by_id[row.job_id], row, level)
                message.encode()
            except Exception as error:  # noqa: BLE001
                await self._park(row, error)
            else:
                messages.append(message)
        started = time.monotonic()
        sent, refused = await self._send(messages)
        if messages:
            await self._mark([_Sent(started, sent)], refused)
        return len(sent) == len(messages)

    async def _park(self, row: WakeUp, error: Exception) -> None:
        async with self.database.write() as session:
            pause = await parking.park(session, PUBLISH_STEP, f"{row.job_id}/{row.chunk_index}", repr(error))
            await schedule.postpone(session, [row], pause)
        log.error(
            "row cannot be published, parked", action="parked", job_id=row.job_id, reason=repr(error), pause=pause
        )

    async def publish(self, messages: Sequence[Message]) -> bool:
        """Publish the messages, and record the publishes soon. Return whether all were published.

        Raises only CancelledError: the work is committed, so a fault of the broker must not affect the caller. After a
        refusal the other messages are not tried, and all of them are due again within seconds. A message that fails
        otherwise keeps its `due_at` and does not stop the others.

        The records of many publishes share a transaction, and rows that are claimed meanwhile need none. Until then a
        row is due at the time that its release set, so a lost record causes one more wake-up.
        """
        started = time.monotonic()
        sent, refused = await self._send(messages)
        if refused:
            await self._mark([_Sent(started, sent)], refused)
        elif sent:
            self._sent.append(_Sent(started, sent))
            if self._recording is None:
                self._recording = asyncio.create_task(self._record_soon(), name="record publishes")
        return len(sent) == len(messages)

    async def stop(self) -> None:
        """Record the last publishes. Idempotent."""
        recording, self._recording = self._recording, None
        await cancel_and_wait(recording)
        await self._record()

    async def _record_soon(self) -> None:
        await asyncio.sleep(RECORD_DELAY)
        self._recording = None
        await self._record()

    async def _record(self) -> None:
        sent, self._sent = self._sent, []
        if sent:
            await self._mark(sent, [])

    async def _send(self, messages: Sequence[Message]) -> tuple[list[WakeUp], list[WakeUp]]:
        """Return the rows whose messages were sent, and those whose messages the broker refused."""
        sent: list[WakeUp] = []
        refused: list[WakeUp] = []
        for message in messages:
            row = WakeUp(message.job_id, message.chunk_index, message.failures)
            if refused:
                refused.append(row)
                continue
            try:
                async with asyncio.timeout(PUBLISH_TIMEOUT):
                    await self.broker.publish(message, headers=tracing.headers(message.job_id) or None)
                sent.append(row)
            except (BrokerUnavailable, TimeoutError) as error:
                log.warning("publish failed, left to the scheduler", action="publish_failed", reason=repr(error))
                refused.append(row)
            except Exception:
                log.exception("publish failed, left to the scheduler", action="publish_failed", job_id=row.job_id)
        return sent, refused

    async def _mark(self, groups: Sequence[_Sent], refused: Sequence[WakeUp]) -> None:
        try:
            async with asyncio.timeout(PUBLISH_TIMEOUT), self.database.write() as session:
                for group in groups:
                    await schedule.mark_published(session, group.rows, time.monotonic() - group.started)
                await schedule.postpone(session, refused, schedule.REFUSED_DELAY)
        except (DatabaseUnavailable, TimeoutError) as error:
            reason = repr(error.__cause__ or error)
            log.warning("publish not recorded, it will be repeated", action="confirm_failed", reason=reason)
        except Exception:
            log.exception("publish not recorded, it will be repeated", action="confirm_failed")
