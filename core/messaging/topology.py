"""Exchanges and queues on RabbitMQ 3.10 to 4.x."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aio_pika import ExchangeType
from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import ChannelPreconditionFailed

from core.config import QueueType
from core.errors import SettingsError
from core.messaging.port import WORK_QUEUES, QueueName

EXCHANGE = "stt"
DEAD_EXCHANGE = "stt_dlx"
MIN_QUORUM_VERSION = (4, 3)


class TopologyMismatch(SettingsError):
    """A queue exists with other arguments. The text names the queue and the remedy."""


class AccessRefused(SettingsError):
    """The user of RABBITMQ_URL has no access to a queue. The text names the queue and the remedy."""


@dataclass(frozen=True, slots=True)
class Topology:
    """The declared exchanges and queues. delays and dead_letter_ttl in seconds."""

    delays: tuple[float, ...]
    queue_type: QueueType
    dead_letter_ttl: int

    def retry_name(self, delay: float) -> str:
        return f"stt_retry_{delay:g}s"

    def queues(self) -> dict[str, dict[str, Any]]:
        """Return the names and arguments of all queues."""
        work: dict[str, Any] = {"x-dead-letter-exchange": DEAD_EXCHANGE, "x-max-priority": 10}
        if self.queue_type is QueueType.QUORUM:
            work = {"x-dead-letter-exchange": DEAD_EXCHANGE, "x-queue-type": "quorum", "x-delivery-limit": -1}
        retries = {
            self.retry_name(delay): {"x-message-ttl": round(delay * 1000), "x-dead-letter-exchange": EXCHANGE}
            for delay in self.delays
        }
        dead = {QueueName.DEAD.value: {"x-message-ttl": self.dead_letter_ttl * 1000}}
        return {**{name.value: work for name in WORK_QUEUES}, **dead, **retries}

    async def declare(self, channel: AbstractChannel) -> None:
        """Declare all exchanges and queues. Raises TopologyMismatch; connection errors pass through."""
        work_exchange = await channel.declare_exchange(EXCHANGE, ExchangeType.DIRECT, durable=True)
        dead_exchange = await channel.declare_exchange(DEAD_EXCHANGE, ExchangeType.FANOUT, durable=True)
        for name, arguments in self.queues().items():
            try:
                queue = await channel.declare_queue(name, durable=True, arguments=arguments)
            except ChannelPreconditionFailed as error:
                raise TopologyMismatch(mismatch_text(name, str(error))) from error
            if name in WORK_QUEUES:
                await queue.bind(work_exchange, name)
            elif name == QueueName.DEAD:
                await queue.bind(dead_exchange)
            else:
                # a fanout exchange per delay keeps the routing key, so that the message returns to its queue
                retry_exchange = await channel.declare_exchange(name, ExchangeType.FANOUT, durable=True)
                await queue.bind(retry_exchange)


def mismatch_text(queue: str, reason: str) -> str:
    return (
        f"RabbitMQ: the queue {queue!r} exists with other arguments ({reason}). "
        "Drain it, delete it in the management UI, and start again; or restore the setting it was declared with."
    )


def access_refused_text(queue: str, reason: str) -> str:
    return (
        f"RabbitMQ: no access to the queue {queue!r} ({reason}). Check the password and virtual host of RABBITMQ_URL, "
        "grant its user the permissions configure, write and read, and start again."
    )


def check_quorum(version: str) -> None:
    """Raise SettingsError unless this version supports priorities on quorum queues."""
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < MIN_QUORUM_VERSION:
        raise SettingsError(
            f"QUEUE_TYPE: quorum requires RabbitMQ 4.3 or later, and this server is {version}; use classic"
        )
