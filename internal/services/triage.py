"""Dead letters as an operator handles them: look at them, replay them, throw them away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from core.messaging.port import DeadMessage, MessageType, NewerMessage, UndecodableMessage, decode
from internal.bootstrap import Application
from internal.services import reopening
from repositories import failures

ALL = "all"


@dataclass(frozen=True, slots=True)
class Letter:
    """job: None for what could not be decoded; facts: the headers that tell what happened."""

    job: str | None
    token: str | None
    facts: Mapping[str, Any] = field(default_factory=dict)


def read(message: DeadMessage) -> Letter:
    try:
        letter = decode(message.body)
    except (UndecodableMessage, NewerMessage):
        return Letter(None, None, message.headers)
    token = letter.token if letter.type is MessageType.REPLAY else None
    return Letter(letter.job_id, token, message.headers)


async def letters(parts: Application) -> list[Letter]:
    """Every dead letter, oldest first; all stay where they are."""
    found: list[Letter] = []

    async def keep(message: DeadMessage) -> bool:
        found.append(read(message))
        return False

    await parts.broker.walk_dead_letters(keep)
    return found


async def replay(parts: Application, wanted: str) -> tuple[int, int]:
    """Reopen the wanted job (or `all`) for what is missing. Returns how many were reopened, and how many were stale."""
    reopened = stale = 0

    async def take(message: DeadMessage) -> bool:
        nonlocal reopened, stale
        letter = read(message)
        if letter.job is None or letter.token is None or wanted not in (letter.job, ALL):
            return False
        async with parts.database.write() as session:
            released = await failures.replay(session, letter.job, letter.token)
        if released is None:
            stale += 1
        else:
            reopened += 1
            await reopening.publish(parts, released)
        return True

    await parts.broker.walk_dead_letters(take)
    return reopened, stale


async def purge(parts: Application, wanted: str) -> int:
    """Remove the letters of a job, or all. The jobs stay FAILED. Returns how many went."""
    gone = 0

    async def take(message: DeadMessage) -> bool:
        nonlocal gone
        mine = wanted in (read(message).job, ALL)
        gone += mine
        return mine

    await parts.broker.walk_dead_letters(take)
    return gone
