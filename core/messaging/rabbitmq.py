"""RabbitMQ adapter, based on aio-pika.

Each process has one connection for publishing, which a memory alarm blocks, and one for consuming. They are opened when
needed and dropped at the first error, so that an outage costs one failed publish and leaves no state behind. Each
connection declares the topology.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import aio_pika
import structlog
from aio_pika.abc import AbstractConnection, AbstractIncomingMessage
from aio_pika.channel import Channel
from aio_pika.exceptions import CONNECTION_EXCEPTIONS, AMQPError
from aiormq.exceptions import AMQPError as WireError
from aiormq.exceptions import (
    AuthenticationError,
    ChannelAccessRefused,
    ConnectionNotAllowed,
    ProbableAuthenticationError,
)

from core import tracing
from core.call_metrics import BROKER_OPERATIONS, counted
from core.config import QueueType
from core.errors import BrokerUnavailable, SettingsError
from core.messaging.dispatch import handle_delivery, normalize_delays, pick_delay, wait_for_failure
from core.messaging.port import (
    Ack,
    DeadLetter,
    DeadMessage,
    Handler,
    Message,
    QueueName,
    QueueStats,
    Retry,
    Subscription,
    Verdict,
)
from core.messaging.topology import DEAD_EXCHANGE, EXCHANGE, AccessRefused, Topology, access_refused_text, check_quorum
from core.repeated_line import RepeatedLine
from core.tasks import cancel_and_wait, cancellation_as_connection_error

log = structlog.get_logger(__name__)
HEARTBEAT = 8
"""Seconds. The client drops a connection after three heartbeats and one second each, checked every half: 31 s."""
TIMEOUT = 2.0
"""Seconds for a publish or another call. The scheduler repeats failed publishes."""
CONNECT_TIMEOUT = 5.0
RECONNECT_PAUSE = 1.0
MAX_REFUSALS = 10
"""Consecutive refusals after which a subscription fails. A server that is starting may refuse valid users."""
_REFUSALS = (ChannelAccessRefused, AuthenticationError, ProbableAuthenticationError, ConnectionNotAllowed)
_ERRORS = (*CONNECTION_EXCEPTIONS, AMQPError, WireError, TimeoutError, OSError, RuntimeError)


class _Session:
    """A connection and a channel with the declared topology. `drop` closes both."""

    def __init__(self, url: str, topology: Topology, name: str) -> None:
        self._url, self._topology, self._name = url, topology, name
        self._lock = asyncio.Lock()
        self.connection: AbstractConnection | None = None
        self._channel: Channel | None = None

    async def channel(self) -> Channel:
        """Return the open channel; connect if there is none. Raises BrokerUnavailable, SettingsError."""
        if self._channel is not None and not self._channel.is_closed:
            return self._channel
        async with self._lock:
            if self._channel is None or self._channel.is_closed:
                self._channel = await self.fresh_channel()
            return self._channel

    async def fresh_channel(self) -> Channel:
        """Open another channel; connect if necessary. Raises BrokerUnavailable, SettingsError."""
        try:
            with cancellation_as_connection_error():
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    connection = await self._connected()
                    channel = connection.channel(publisher_confirms=True, on_return_raises=True)
                    await channel.initialize()
                    await self._topology.declare(channel)
        except _ERRORS as error:
            await self.drop()
            raise BrokerUnavailable(f"RabbitMQ does not respond: {error}"[:300]) from error
        assert isinstance(channel, Channel)
        return channel

    async def _connected(self) -> AbstractConnection:
        if self.connection is None or self.connection.is_closed:
            properties: dict[str, Any] = {"connection_name": f"async-stt {self._name}"}
            self.connection = await aio_pika.connect(self._url, heartbeat=HEARTBEAT, client_properties=properties)
            if self._topology.queue_type is QueueType.QUORUM:
                try:
                    check_quorum(_version(self.connection))
                except SettingsError:
                    await self.drop()  # a connection that is kept would pass the next time without the check
                    raise
        return self.connection

    async def drop(self) -> None:
        connection, self.connection, self._channel = self.connection, None, None
        if connection is not None:
            with contextlib.suppress(*_ERRORS), cancellation_as_connection_error():
                async with asyncio.timeout(TIMEOUT):
                    await connection.close()


def _version(connection: AbstractConnection) -> str:
    transport = connection.transport
    properties: Any = getattr(transport.connection, "server_properties", {}) if transport else {}
    return str(properties.get("version", "0"))


@counted("broker", BROKER_OPERATIONS)
class RabbitMQBroker:
    """A broker on a RabbitMQ server. retry_delays and dead_letter_ttl in seconds."""

    def __init__(
        self,
        url: str,
        *,
        retry_delays: Sequence[float],
        queue_type: QueueType = QueueType.CLASSIC,
        dead_letter_ttl: int = 604_800,
    ) -> None:
        self.topology = Topology(normalize_delays(tuple(retry_delays)), queue_type, dead_letter_ttl)
        self._publishing = _Session(url, self.topology, "publisher")
        self._consuming = _Session(url, self.topology, "consumer")
        self._subscriptions: list[_Subscription] = []
        self._stopped = True

    async def start(self) -> None:
        self._stopped = False
        await self._publishing.channel()

    async def stop(self) -> None:
        self._stopped = True
        subscriptions, self._subscriptions = self._subscriptions, []
        await asyncio.gather(*(subscription.drain(0) for subscription in subscriptions))
        await asyncio.gather(self._publishing.drop(), self._consuming.drop())

    async def ping(self) -> None:
        try:
            await self._find_exchange()
        except BrokerUnavailable:
            # a connection lost in an outage that has ended fails once, in each process at its own first call
            await self._find_exchange()
        connection = self._publishing.connection
        if connection is not None and await _is_blocked(connection):
            raise BrokerUnavailable("RabbitMQ is blocking publishers (memory or disk alarm).")

    async def _find_exchange(self) -> None:
        channel = await self._open_channel()
        await self._guarded(channel.declare_exchange(EXCHANGE, durable=True, passive=True))

    async def publish(self, message: Message, *, delay: float = 0.0, headers: Mapping[str, Any] | None = None) -> None:
        fields: dict[str, Any] = {"job_id": message.job_id, "attempts": message.failures}
        if message.chunk_index is not None:
            fields["chunk_index"] = message.chunk_index
        fields |= headers or {}
        await self.publish_raw(message.queue, message.encode(), level=message.level, delay=delay, headers=fields)

    async def publish_raw(
        self,
        queue: QueueName,
        body: bytes,
        *,
        level: int = 0,
        delay: float = 0.0,
        headers: Mapping[str, Any] | None = None,
    ) -> None:
        """Publish any bytes to any queue and wait for the confirmation. Raises BrokerUnavailable."""
        channel = await self._open_channel()
        exchange = DEAD_EXCHANGE if queue is QueueName.DEAD else EXCHANGE
        if queue is not QueueName.DEAD and delay > 0:
            exchange = self.topology.retry_name(pick_delay(self.topology.delays, delay))
        message = aio_pika.Message(
            body,
            headers=dict(headers or {}),
            content_type="application/json",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            priority=level,
            message_id=uuid.uuid4().hex,
            app_id="async-stt",
        )
        target = await channel.get_exchange(exchange, ensure=False)
        await self._guarded(target.publish(message, queue.value, mandatory=True, timeout=TIMEOUT))

    async def _open_channel(self) -> Channel:
        if self._stopped:
            raise BrokerUnavailable("The broker's client is stopped.")
        try:
            return await self._publishing.channel()
        except SettingsError as error:
            # at the start the process exits with this error; later the callers have committed and can only retry
            log.critical("RabbitMQ no longer matches the settings", action="topology_mismatch", reason=str(error))
            raise BrokerUnavailable(str(error)[:300]) from error

    async def _guarded(self, call: Any) -> Any:
        """Await the call with a timeout. After an error the next call reconnects."""
        try:
            with cancellation_as_connection_error():
                async with asyncio.timeout(TIMEOUT):
                    return await call
        except _ERRORS as error:
            await self._publishing.drop()
            raise BrokerUnavailable(f"RabbitMQ rejected the call or did not respond: {error!r}"[:300]) from error

    async def consume(self, queue: QueueName, handler: Handler, prefetch: int) -> Subscription:
        subscription = _Subscription(self, self._consuming, queue, handler, prefetch)
        await subscription.connect()
        self._subscriptions.append(subscription)
        return subscription

    async def walk_dead_letters(self, remove: Callable[[DeadMessage], Awaitable[bool]]) -> int:
        if self._stopped:
            raise BrokerUnavailable("The broker's client is stopped.")
        channel = await self._consuming.fresh_channel()
        count = 0
        try:
            queue = await _read(channel.declare_queue(QueueName.DEAD.value, durable=True, passive=True))
            for _ in range(queue.declaration_result.message_count or 0):
                message = await _read(queue.get(fail=False, timeout=TIMEOUT))
                if message is None:
                    break
                count += 1
                if await remove(DeadMessage(message.body, message.headers)):
                    await _read(message.ack())
        finally:
            # unacknowledged messages return to their place in the queue
            with contextlib.suppress(*_ERRORS):
                await channel.close()
        return count

    async def stats(self) -> list[QueueStats]:
        """Return the statistics. `unacked` counts messages of this process only; AMQP does not report others."""
        channel = await self._open_channel()
        rows = []
        for name in QueueName:
            queue = await self._guarded(channel.declare_queue(name.value, durable=True, passive=True))
            result = queue.declaration_result
            unacked = sum(len(each.running) for each in self._subscriptions if each.name is name)
            rows.append(QueueStats(name.value, result.message_count or 0, unacked, result.consumer_count or 0))
        return rows


async def _read(call: Awaitable[Any]) -> Any:
    try:
        return await call
    except _ERRORS as error:
        raise BrokerUnavailable(f"The dead letters cannot be read: {error!r}"[:300]) from error


async def _is_blocked(connection: AbstractConnection) -> bool:
    """Return True if a memory or disk alarm blocks the connection."""
    if connection.transport is None:
        return False
    try:
        async with asyncio.timeout(0):
            await connection.transport.connection.ready()  # returns without waiting unless blocked
    except TimeoutError:
        return True
    return False


class _Subscription:
    """A consumer that reconnects after a lost connection, a closed channel or a deleted queue.

    It fails if reconnecting cannot help: a queue has other arguments, or access is refused repeatedly.
    """

    def __init__(
        self, broker: RabbitMQBroker, session: _Session, name: QueueName, handler: Handler, prefetch: int
    ) -> None:
        self.name = name
        self.running: set[asyncio.Task[None]] = set()
        self._broker, self._session, self._handler, self._prefetch = broker, session, handler, prefetch
        self._lost = asyncio.Event()
        self._channel: Channel | None = None
        self._tag: str | None = None
        self._supervisor: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """Start consuming. Raises BrokerUnavailable, SettingsError."""
        await self._subscribe()
        self._supervisor = asyncio.create_task(self._supervise(), name=f"consume {self.name}")

    async def _subscribe(self) -> None:
        lost = self._lost = asyncio.Event()
        channel = await self._session.fresh_channel()
        try:
            with cancellation_as_connection_error():
                await channel.set_qos(self._prefetch)
                channel.close_callbacks.add(lambda *_: lost.set())
                underlay = await channel.get_underlay_channel()
                underlay.on_consumer_cancel_callbacks.add(lambda *_: lost.set())
                queue = await channel.get_queue(self.name.value, ensure=False)
                self._tag = await queue.consume(self._deliver, timeout=CONNECT_TIMEOUT)
        except _ERRORS as error:
            await self._close(channel)
            raise BrokerUnavailable(f"The queue cannot be consumed: {error}"[:300]) from error
        self._channel = channel

    async def _supervise(self) -> None:
        """Reconnect whenever the channel is lost. Raises SettingsError if reconnecting cannot help."""
        refusals, reason, lines = 0, "the broker closed it", RepeatedLine()
        while True:
            await self._lost.wait()
            if lines.due():
                log.warning("channel lost, reconnecting", action="reconnecting", queue=self.name.value, reason=reason)
            if self._channel is not None:
                await self._close(self._channel)
            try:
                await self._subscribe()
                log.info("consuming resumed", action="reconnected", queue=self.name.value, seconds=lines.end())
                refusals, reason = 0, "the broker closed it"
            except BrokerUnavailable as error:
                reason = str(error)
                refusals = refusals + 1 if isinstance(error.__cause__, _REFUSALS) else 0
                if refusals >= MAX_REFUSALS:
                    raise AccessRefused(access_refused_text(self.name.value, str(error))) from error
                self._lost.set()
                await asyncio.sleep(RECONNECT_PAUSE)

    async def failed(self) -> Exception:
        assert self._supervisor is not None
        return await wait_for_failure(self._supervisor)

    async def _close(self, channel: Channel) -> None:
        with contextlib.suppress(*_ERRORS), cancellation_as_connection_error():
            async with asyncio.timeout(TIMEOUT):
                await channel.close()

    async def cancel(self) -> None:
        await cancel_and_wait(self._supervisor)
        tag, self._tag = self._tag, None
        if tag is not None and self._channel is not None and not self._channel.is_closed:
            with contextlib.suppress(*_ERRORS), cancellation_as_connection_error():
                async with asyncio.timeout(TIMEOUT):
                    underlay = await self._channel.get_underlay_channel()
                    await underlay.basic_cancel(tag)

    async def drain(self, grace: float) -> None:
        await self.cancel()
        if self.running and grace > 0:
            await asyncio.wait(self.running, timeout=grace)
        unfinished = tuple(self.running)
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)
        if self._channel is not None:
            await self._close(self._channel)

    async def _deliver(self, message: AbstractIncomingMessage) -> None:
        """Handle the message in a new task, since the client cancels its own tasks when a channel closes."""
        task = asyncio.create_task(self._handle(message), name=f"handle {self.name}")
        self.running.add(task)
        task.add_done_callback(self.running.discard)

    async def _handle(self, message: AbstractIncomingMessage) -> None:
        try:
            verdict = await handle_delivery(message.body, bool(message.redelivered), message.headers, self._handler)
        except asyncio.CancelledError:
            await self._acknowledge(message.nack(requeue=True))
            raise
        try:
            await self._execute(message, verdict)
        except BrokerUnavailable as error:
            log.warning("verdict not published, message requeued", action="verdict_failed", reason=str(error))
            await asyncio.sleep(RECONNECT_PAUSE)
            await self._acknowledge(message.nack(requeue=True))
            return
        await self._acknowledge(message.ack())

    async def _execute(self, message: AbstractIncomingMessage, verdict: Verdict) -> None:
        match verdict:
            case Ack():
                return
            case DeadLetter(reason):
                await self._broker.publish_raw(QueueName.DEAD, message.body, headers={"reason": reason})
            case Retry(delay, successor):
                delay, headers, level = max(delay, 0.001), tracing.carried(message.headers), message.priority or 0
                if successor is not None:
                    await self._broker.publish(successor, delay=delay, headers=headers)
                else:
                    await self._broker.publish_raw(self.name, message.body, level=level, delay=delay, headers=headers)

    async def _acknowledge(self, call: Any) -> None:
        """Send an acknowledgement. If the channel is lost, the broker redelivers the message."""
        with contextlib.suppress(*_ERRORS), cancellation_as_connection_error():
            async with asyncio.timeout(TIMEOUT):
                await call
