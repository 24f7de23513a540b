"""The broker's port: wake-ups only. A message is never the only copy of anything (design sections 1 and 4)."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Protocol

VERSION = 1
MAX_LEVEL = 9


class MessageType(StrEnum):
    FETCH = "Fetch"
    PREPARE = "Prepare"
    TRANSCRIBE = "Transcribe"
    FINALISE = "Finalise"
    REPLAY = "Replay"


class QueueName(StrEnum):
    JOBS = "stt_jobs"
    CHUNKS = "stt_chunks"
    FETCH = "stt_fetch"
    FINALISE = "stt_finalise"
    DEAD = "stt_jobs_dlq"


WORK_QUEUES = tuple(name for name in QueueName if name is not QueueName.DEAD)


@dataclass(frozen=True, slots=True)
class Message:
    """A wake-up. Everything after `token` is for the person who reads the queue; the database wins over it.

    level: broker priority 0..9. failures: the row's `failures` when it was published, so that a copy from an earlier
    attempt matches nothing. token: of a Replay, `jobs.replay_token`.
    """

    type: MessageType
    job_id: str
    chunk_index: int | None = None
    failures: int = 0
    level: int = 0
    token: str | None = None
    minio_path: str | None = None
    language: str | None = None
    model: str | None = None
    priority: str | None = None
    original_filename: str | None = None

    @property
    def queue(self) -> QueueName:
        """Where a fresh message of this type belongs."""
        match self.type:
            case MessageType.TRANSCRIBE:
                return QueueName.CHUNKS
            case MessageType.FETCH:
                return QueueName.FETCH
            case MessageType.FINALISE:
                return QueueName.FINALISE
            case MessageType.REPLAY:
                return QueueName.DEAD
            case _:
                return QueueName.JOBS

    def encode(self) -> bytes:
        return json.dumps({"v": VERSION, **asdict(self)}, ensure_ascii=False, separators=(",", ":")).encode()


class UndecodableMessage(Exception):
    """The body is no message of ours: dead-letter it."""


class NewerMessage(Exception):
    """The body is of a newer version: hand it back with a delay for a newer consumer."""


def decode(body: bytes) -> Message:
    """Read a body. Unknown keys are ignored (a newer minor writer).

    Raises UndecodableMessage, NewerMessage.
    """
    try:
        data = json.loads(body)
        version = int(data.pop("v"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UndecodableMessage(str(error)) from error
    if version > VERSION:
        raise NewerMessage(f"version {version}, this consumer reads up to {VERSION}")
    return _build(data)


def _build(data: dict[str, Any]) -> Message:
    known = {name: data[name] for name in Message.__dataclass_fields__ if name in data}
    try:
        message = Message(**{**known, "type": MessageType(known["type"])})
    except (KeyError, TypeError, ValueError) as error:
        raise UndecodableMessage(str(error)) from error
    _check_types(message)
    return message


def _check_types(message: Message) -> None:
    numbers = (message.failures, message.level)
    index = message.chunk_index
    good = (
        isinstance(message.job_id, str)
        and all(type(number) is int and number >= 0 for number in numbers)
        and message.level <= MAX_LEVEL
        and (type(index) is int and index >= 0 if message.type is MessageType.TRANSCRIBE else True)
        and (isinstance(message.token, str) if message.type is MessageType.REPLAY else True)
    )
    if not good:
        raise UndecodableMessage("a field is missing or of the wrong type")


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message as it arrives. redelivered: the broker delivered it before and got no answer."""

    message: Message
    redelivered: bool = False
    headers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ack:
    """Done, or nothing to do."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Publish `message` (or, when None, the same body again) to its queue after at least `delay` seconds, then ack."""

    delay: float
    message: Message | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Not even decodable: to the dead-letter queue, with the reason in a header."""

    reason: str


@dataclass(frozen=True, slots=True)
class DeadMessage:
    """What lies in the dead-letter queue: any bytes, and the headers that tell how they came there."""

    body: bytes
    headers: Mapping[str, Any]


Verdict = Ack | Retry | DeadLetter
Handler = Callable[[Delivery], Awaitable[Verdict]]


@dataclass(frozen=True, slots=True)
class QueueStats:
    """ready: waiting; unacked: delivered and not answered; consumers: subscriptions."""

    name: str
    ready: int
    unacked: int
    consumers: int


class Subscription(Protocol):
    async def failed(self) -> Exception:
        """Return when no more deliveries will come although nobody cancelled, with the reason.

        A lost connection is none: it is made again.
        """
        ...

    async def cancel(self) -> None:
        """Stop new deliveries; running handlers go on. Harmless twice."""
        ...

    async def drain(self, grace: float) -> None:
        """Wait up to `grace` seconds for running handlers; what still runs then is cancelled and handed back."""
        ...


class Broker(Protocol):
    """Every adapter passes tests/contract/test_broker.py. Vendor errors end here: BrokerUnavailable alone gets out."""

    async def start(self) -> None:
        """Connect and declare the topology. Raises BrokerUnavailable when nothing answers."""
        ...

    async def stop(self) -> None:
        """Close. Harmless twice and before start."""
        ...

    async def ping(self) -> None:
        """Raises BrokerUnavailable unless a publish would go through now."""
        ...

    async def publish(self, message: Message, *, delay: float = 0.0, headers: Mapping[str, Any] | None = None) -> None:
        """Publish to `message.queue`, durable and confirmed, after at least `delay` seconds (0: at once).

        Raises BrokerUnavailable when unroutable, refused, blocked or unconfirmed within 2 s.
        """
        ...

    async def consume(self, queue: QueueName, handler: Handler, prefetch: int) -> Subscription:
        """Deliver at most `prefetch` unanswered messages at a time, highest level first, each in a task of its own."""
        ...

    async def walk_dead_letters(self, remove: Callable[[DeadMessage], Awaitable[bool]]) -> int:
        """Show every dead letter to `remove` once, oldest first; those it answers True for are removed.

        Returns how many were shown. Raises BrokerUnavailable.
        """
        ...

    async def stats(self) -> list[QueueStats]:
        """One row for each work queue, then one for `stt_jobs_dlq`. Raises BrokerUnavailable."""
        ...
