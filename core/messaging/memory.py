"""In-memory broker of the embedded mode: priorities, prefetch, delays, redelivery and dead letters.

Its messages are lost when the process exits. The next start republishes them from the database.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core import tracing
from core.call_metrics import BROKER_OPERATIONS, counted
from core.errors import BrokerUnavailable
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
from core.tasks import cancel_and_wait


@dataclass(slots=True)
class _Envelope:
    body: bytes
    level: int
    headers: Mapping[str, Any]
    redelivered: bool = False
    arrived: float = field(default_factory=time.monotonic)


class _Queue:
    """A priority queue, FIFO within a level. Returned messages go to the front of their level."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, _Envelope]] = []
        self._after, self._before = itertools.count(), itertools.count(-1, -1)
        self.changed = asyncio.Condition()

    def __len__(self) -> int:
        return len(self._heap)

    async def put(self, envelope: _Envelope, *, front: bool = False) -> None:
        async with self.changed:
            number = next(self._before if front else self._after)
            heapq.heappush(self._heap, (-envelope.level, number, envelope))
            self.changed.notify()

    async def get(self) -> _Envelope:
        async with self.changed:
            await self.changed.wait_for(lambda: self._heap)
            return heapq.heappop(self._heap)[2]

    def peek(self) -> list[_Envelope]:
        return [envelope for _, _, envelope in sorted(self._heap, key=lambda item: item[:2])]

    def drop_older(self, seconds: float) -> None:
        limit = time.monotonic() - seconds
        self._heap = [item for item in self._heap if item[2].arrived > limit]
        heapq.heapify(self._heap)


@counted("broker", BROKER_OPERATIONS)
class MemoryBroker:
    """A broker within one process. retry_delays and dead_letter_ttl in seconds."""

    def __init__(self, *, retry_delays: Sequence[float], dead_letter_ttl: float = 604_800) -> None:
        self._delays = normalize_delays(tuple(retry_delays))
        self._ttl = dead_letter_ttl
        self._queues = {name: _Queue() for name in QueueName}
        self._subscriptions: list[_Subscription] = []
        self._timers: set[asyncio.Task[None]] = set()
        self._running = False

    async def start(self) -> None:
        self._running = True

    async def stop(self) -> None:
        self._running = False
        subscriptions, self._subscriptions = self._subscriptions, []
        await asyncio.gather(*(subscription.drain(0) for subscription in subscriptions))
        for timer in tuple(self._timers):
            timer.cancel()

    async def ping(self) -> None:
        if not self._running:
            raise BrokerUnavailable("The broker is stopped.")

    async def publish(self, message: Message, *, delay: float = 0.0, headers: Mapping[str, Any] | None = None) -> None:
        await self.publish_raw(message.queue, message.encode(), level=message.level, delay=delay, headers=headers)

    async def publish_raw(
        self,
        queue: QueueName,
        body: bytes,
        *,
        level: int = 0,
        delay: float = 0.0,
        headers: Mapping[str, Any] | None = None,
    ) -> None:
        """Publish any bytes to any queue."""
        await self.ping()
        await self.put(queue, _Envelope(body, level, dict(headers or {})), delay)

    async def put(self, queue: QueueName, envelope: _Envelope, delay: float) -> None:
        if delay <= 0:
            await self._queues[queue].put(envelope)
            return
        timer = asyncio.create_task(self._put_later(queue, envelope, pick_delay(self._delays, delay)), name="delay")
        self._timers.add(timer)
        timer.add_done_callback(self._timers.discard)

    async def _put_later(self, queue: QueueName, envelope: _Envelope, delay: float) -> None:
        await asyncio.sleep(delay)
        await self._queues[queue].put(envelope)

    async def dead_letter(self, envelope: _Envelope, reason: str) -> None:
        await self._queues[QueueName.DEAD].put(_Envelope(envelope.body, 0, {**envelope.headers, "reason": reason}))

    async def consume(self, queue: QueueName, handler: Handler, prefetch: int) -> Subscription:
        await self.ping()
        subscription = _Subscription(self, queue, self._queues[queue], handler, prefetch)
        self._subscriptions.append(subscription)
        return subscription

    async def walk_dead_letters(self, remove: Callable[[DeadMessage], Awaitable[bool]]) -> int:
        await self.ping()
        queue = self._queues[QueueName.DEAD]
        waiting = [await queue.get() for _ in range(len(queue))]
        count, remaining = len(waiting), []
        try:
            while waiting:
                envelope = waiting[0]
                if not await remove(DeadMessage(envelope.body, envelope.headers)):
                    remaining.append(envelope)
                del waiting[0]
        finally:
            # the other messages return to their place, also if `remove` raises
            for envelope in reversed([*remaining, *waiting]):
                await queue.put(envelope, front=True)
        return count

    async def stats(self) -> list[QueueStats]:
        await self.ping()
        self._queues[QueueName.DEAD].drop_older(self._ttl)
        rows = []
        for name, queue in self._queues.items():
            subscriptions = [subscription for subscription in self._subscriptions if subscription.name is name]
            unacked = sum(len(subscription.running) for subscription in subscriptions)
            consumers = sum(1 for subscription in subscriptions if subscription.active)
            rows.append(QueueStats(name.value, len(queue), unacked, consumers))
        return rows

    def waiting(self, name: QueueName) -> list[tuple[bytes, Mapping[str, Any]]]:
        """Return bodies and headers of the waiting messages in order of delivery."""
        return [(envelope.body, envelope.headers) for envelope in self._queues[name].peek()]


class _Subscription:
    """A consumer of one queue, with a task per message."""

    def __init__(self, broker: MemoryBroker, name: QueueName, queue: _Queue, handler: Handler, prefetch: int) -> None:
        self.name = name
        self.running: set[asyncio.Task[None]] = set()
        self._broker, self._queue, self._handler = broker, queue, handler
        self._permits = asyncio.Semaphore(prefetch)
        self._pump = asyncio.create_task(self._deliver(), name=f"deliver {name}")

    @property
    def active(self) -> bool:
        return not self._pump.done()

    async def failed(self) -> Exception:
        return await wait_for_failure(self._pump)

    async def cancel(self) -> None:
        await cancel_and_wait(self._pump)

    async def drain(self, grace: float) -> None:
        await self.cancel()
        if self.running and grace > 0:
            await asyncio.wait(self.running, timeout=grace)
        unfinished = tuple(self.running)
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)

    async def _deliver(self) -> None:
        while True:
            await self._permits.acquire()
            try:
                envelope = await self._queue.get()
            except asyncio.CancelledError:
                self._permits.release()
                raise
            task = asyncio.create_task(self._handle(envelope), name=f"handle {self.name}")
            self.running.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self.running.discard(task)
        self._permits.release()

    async def _handle(self, envelope: _Envelope) -> None:
        try:
            verdict = await handle_delivery(envelope.body, envelope.redelivered, envelope.headers, self._handler)
        except asyncio.CancelledError:
            envelope.redelivered = True
            await self._queue.put(envelope, front=True)
            raise
        await self._execute(envelope, verdict)

    async def _execute(self, envelope: _Envelope, verdict: Verdict) -> None:
        match verdict:
            case Ack():
                return
            case DeadLetter(reason):
                await self._broker.dead_letter(envelope, reason)
            case Retry(delay, None):
                copy = _Envelope(envelope.body, envelope.level, envelope.headers)
                await self._broker.put(self.name, copy, max(delay, 0.001))
            case Retry(delay, Message() as message):
                successor = _Envelope(message.encode(), message.level, tracing.carried(envelope.headers))
                await self._broker.put(message.queue, successor, max(delay, 0.001))
