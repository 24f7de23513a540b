"""The port of the broker. Messages are wake-ups: all state is in the database."""

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
    """A wake-up. level: broker priority 0..9.

    failures: the row's `failures` when the message is published, so that messages of an earlier attempt are recognised.
    token: `jobs.replay_token` of a Replay. The other fields are for operators who inspect the queue; consumers read
    the database instead.
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
        """The queue for messages of this type."""
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
    """The body is not a valid message and is dead-lettered."""


class NewerMessage(Exception):
    """The message has a newer version and is returned to the queue for a newer consumer."""


def decode(body: bytes) -> Message:
    """Decode a message body. Unknown keys are ignored, since a newer release may have added them.

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
    valid = (
        isinstance(message.job_id, str)
        and all(type(number) is int and number >= 0 for number in numbers)
        and message.level <= MAX_LEVEL
        and (type(index) is int and index >= 0 if message.type is MessageType.TRANSCRIBE else True)
        and (isinstance(message.token, str) if message.type is MessageType.REPLAY else True)
    )
    if not valid:
        raise UndecodableMessage("a field is missing or of the wrong type")


@dataclass(frozen=True, slots=True)
class Delivery:
    """A received message. redelivered: it was delivered before and not acknowledged."""

    message: Message
    redelivered: bool = False
    headers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ack:
    """Acknowledge the message: its work is done, or there is nothing to do."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Publish `message` (None: the same body) to its queue after at least `delay` seconds, then acknowledge."""

    delay: float
    message: Message | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Move the message to the dead-letter queue, with the reason in a header."""

    reason: str


@dataclass(frozen=True, slots=True)
class DeadMessage:
    """A message in the dead-letter queue. Its headers contain the reason."""

    body: bytes
    headers: Mapping[str, Any]


Verdict = Ack | Retry | DeadLetter
Handler = Callable[[Delivery], Awaitable[Verdict]]


@dataclass(frozen=True, slots=True)
class QueueStats:
    """Statistics of a queue. ready: waiting; unacked: delivered, not acknowledged; consumers: subscriptions."""

    name: str
    ready: int
    unacked: int
    consumers: int


class Subscription(Protocol):
    """A running consumer of one queue."""

    async def failed(self) -> Exception:
        """Wait until the subscription fails and return the error.

        A lost connection is not a failure, since the subscription reconnects.
        """
        ...

    async def cancel(self) -> None:
        """Stop new deliveries; running handlers continue. Idempotent."""
        ...

    async def drain(self, grace: float) -> None:
        """Cancel, and wait up to `grace` seconds for running handlers. Then cancel these and requeue their messages."""
        ...


class Broker(Protocol):
    """A message broker. Every adapter passes tests/contract/test_broker.py and raises only BrokerUnavailable."""

    async def start(self) -> None:
        """Connect and declare the topology. Raises BrokerUnavailable."""
        ...

    async def stop(self) -> None:
        """Close the connections. Idempotent; allowed before `start`."""
        ...

    async def ping(self) -> None:
        """Check that the broker accepts messages. Raises BrokerUnavailable."""
        ...

    async def publish(self, message: Message, *, delay: float = 0.0, headers: Mapping[str, Any] | None = None) -> None:
        """Publish a durable message to `message.queue` after at least `delay` seconds and wait for its confirmation.

        Raises BrokerUnavailable if it is unroutable, rejected, blocked, or not confirmed within 2 s.
        """
        ...

    async def consume(self, queue: QueueName, handler: Handler, prefetch: int) -> Subscription:
        """Deliver messages to the handler, highest level first, each in its own task. Raises BrokerUnavailable.

        prefetch: unacknowledged messages at a time.
        """
        ...

    async def walk_dead_letters(self, remove: Callable[[DeadMessage], Awaitable[bool]]) -> int:
        """Call `remove` with every dead letter, oldest first, and remove those for which it returns True.

        Returns the number of dead letters. Raises BrokerUnavailable.
        """
        ...

    async def stats(self) -> list[QueueStats]:
        """Return one row per work queue, then one for `stt_jobs_dlq`. Raises BrokerUnavailable."""
        ...
