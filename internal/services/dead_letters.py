"""Dead letters: one message per failed job, whose token reopens the job once (design section 4)."""

from __future__ import annotations

import secrets

import structlog

from core.errors import BrokerUnavailable, DatabaseUnavailable
from internal.bootstrap import Parts
from internal.services import publishing
from repositories import jobs, schedule

log = structlog.get_logger(__name__)


def new_token() -> str:
    return secrets.token_urlsafe(16)


async def publish(parts: Parts, job_id: str) -> None:
    """Publish a failed job's letter and note that it is out. Raises nothing: the scheduler repeats what failed."""
    try:
        async with parts.database.read() as session:
            job = await jobs.get(session, job_id)
            failure = await jobs.get_failure(session, job_id)
        if job is None or job.replay_token is None:
            return
        headers = publishing.dead_letter_headers(job, failure)
        await parts.broker.publish(publishing.replay(job), headers=headers)
        async with parts.database.write() as session:
            await schedule.mark_dead_letter_published(session, job_id, job.replay_token)
    except (BrokerUnavailable, DatabaseUnavailable) as error:
        log.warning("dead letter left to the scheduler", action="dead_letter_delayed", reason=str(error))
    except Exception:
        log.exception("dead letter cannot be made, left to the scheduler", action="dead_letter_failed", job_id=job_id)
