"""The consumer process: its parts started in order, its subscriptions, its signs of life, its orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from pathlib import Path

import structlog

from core.errors import InfrastructureError, MachineError, SettingsError, StorageUnavailable
from core.messaging.port import Delivery, Handler, MessageType, QueueName, Retry, Subscription, Verdict
from core.tasks import cancel_and_wait
from internal.bootstrap import VERSION, Application
from internal.consumer.context import Context, bound
from internal.consumer.handlers.fetch import FetchHandler
from internal.consumer.handlers.finalise import FinaliseHandler
from internal.consumer.handlers.prepare import PrepareHandler
from internal.consumer.handlers.replay import ReplayHandler
from internal.consumer.handlers.transcribe import TranscribeHandler
from internal.consumer.leases import Leases
from internal.consumer.machine_health import probe_machine
from internal.consumer.workspace import Workspace
from internal.outage_retry import OutageRetry
from internal.periodic_tasks import PeriodicTasks
from repositories import model_wait, workers
from worker import ffmpeg
from worker.chunking import strategy
from worker.engine import adapter
from worker.models import ModelCatalogue
from worker.pool import Pool

log = structlog.get_logger(__name__)
FINALISE_PREFETCH = 4
GRACE = 25.0
"""Seconds that running work gets at shutdown before it is handed back, all queues together."""
LEAVE_SECONDS = 3.0
SPELL_PAUSE = 1.0


class Consumer:
    """`start`, then `stop`; both are harmless when repeated."""

    def __init__(self, parts: Application, worker_id: str | None = None) -> None:
        """Raises SettingsError for a chunking strategy or an engine that does not exist."""
        settings = parts.settings
        strategy(settings.chunk_strategy)
        adapter(settings.engine)
        self.parts = parts
        self.worker_id = worker_id or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.context = Context(
            parts=parts,
            worker_id=self.worker_id,
            workspace=Workspace(Path(settings.temp_dir), self.worker_id),
            pool=Pool(settings.worker_concurrency, settings.engine, settings.engine_threads),
            catalogue=ModelCatalogue(settings.model_dirs),
            outage_retry=OutageRetry(
                pings={StorageUnavailable: parts.storage.ping}, hopeless=lambda error: self.context.machine_fault(error)
            ),
            leases=Leases(self.parts.database, settings.lease_seconds, settings.job_timeout_seconds),
        )
        self._handlers: dict[MessageType, Handler] = {
            MessageType.FETCH: FetchHandler(self.context),
            MessageType.PREPARE: PrepareHandler(self.context),
            MessageType.TRANSCRIBE: TranscribeHandler(self.context),
            MessageType.FINALISE: FinaliseHandler(self.context),
            MessageType.REPLAY: ReplayHandler(self.context),
        }
        self._periodic_tasks = PeriodicTasks()
        self._care = PeriodicTasks()
        self._subscriptions: list[Subscription] = []
        self._watchers: list[asyncio.Task[None]] = []
        self._failure: Exception | None = None
        self._failed = asyncio.Event()
        self._announced: tuple[object, object] | None = None

    async def start(self) -> None:
        """Returns once deliveries are being taken. Waits for parts that are not up yet.

        A machine that is sick already is a started one too: it takes deliveries once it is well.
        """
        await self._prepare_machine()
        outage_retry = OutageRetry(longest=float("inf"))
        await outage_retry.run(self.parts.storage.start)
        await outage_retry.run(self.parts.broker.start)
        await outage_retry.run(self._announce)
        self._periodic_tasks.start(workers.HEARTBEAT_INTERVAL, self._announce, "heartbeat")
        self.context.leases.start()
        self._periodic_tasks.start(workers.HEARTBEAT_INTERVAL, self._checksums, "checksums of models")
        if self.context.health.reason is None:
            await outage_retry.run(self._subscribe)
        self._care.start(SPELL_PAUSE, self._nurse_machine, "machine health")
        log.info(
            "consumer is ready",
            action="consumer_started",
            worker_id=self.worker_id,
            slots=self.context.pool.slots,
            models=self.context.catalogue.names(),
            sick=self.context.health.reason,
        )

    async def _prepare_machine(self) -> None:
        async def open_workspace() -> None:
            self.context.workspace.open()

        for step in (open_workspace, self.context.pool.start, _check_decoder):
            try:
                await step()
            except (OSError, MachineError) as error:
                self.context.health.declare_sick(self.context.machine_fault(error) or error)

    async def _subscribe(self) -> None:
        settings = self.parts.settings
        wanted = (
            (QueueName.JOBS, settings.prepare_concurrency),
            (QueueName.FETCH, settings.fetch_concurrency),
            (QueueName.FINALISE, FINALISE_PREFETCH),
            (QueueName.CHUNKS, self.context.pool.slots),
        )
        for queue, prefetch in wanted[len(self._subscriptions) :]:
            subscription = await self.parts.broker.consume(queue, self.handle, prefetch)
            self._subscriptions.append(subscription)
            self._watchers.append(asyncio.create_task(self._watch(subscription), name=f"watch {queue}"))

    async def _unsubscribe(self, grace: float) -> None:
        """Takes no more messages; what runs may finish within `grace` seconds, the rest is handed back."""
        subscriptions, self._subscriptions = self._subscriptions, []
        watchers, self._watchers = self._watchers, []
        await cancel_and_wait(*watchers)
        await asyncio.gather(*(subscription.cancel() for subscription in subscriptions))
        await asyncio.gather(*(subscription.drain(grace) for subscription in subscriptions))

    async def _watch(self, subscription: Subscription) -> None:
        self._fail(await subscription.failed())

    def _fail(self, error: Exception) -> None:
        """This process cannot go on: without its subscription it would be alive and deaf."""
        if self._failure is None:
            log.critical("consumer cannot go on and ends", action="consumer_failed", reason=str(error), exc_info=error)
            self._failure = error
            self._failed.set()

    async def failed(self) -> Exception:
        """Return when the consumer cannot go on by itself, with the reason; its process has to be started again."""
        await self._failed.wait()
        assert self._failure is not None
        return self._failure

    async def _nurse_machine(self) -> None:
        """One spell of sickness: stop consuming, say so, repair and probe until it is well, go on."""
        health = self.context.health
        await health.wait_sick()
        await self._unsubscribe(GRACE)
        await self._say_so()
        await health.recover(lambda: probe_machine(self.context.workspace, self.context.pool))
        health.well()
        try:
            await OutageRetry(longest=float("inf")).run(self._subscribe)
        except SettingsError as error:
            self._fail(error)
        await self._say_so()

    async def _say_so(self) -> None:
        """The next heartbeat says it again."""
        with contextlib.suppress(InfrastructureError, TimeoutError):
            async with asyncio.timeout(workers.HEARTBEAT_INTERVAL):
                await self._announce()

    async def stop(self, grace: float = GRACE) -> None:
        """Take no more messages, let what runs finish within `grace` seconds, hand back the rest."""
        await self._care.stop()
        await self._unsubscribe(grace)
        # only now: what was drained has renewed its claims to the end
        await self.context.leases.stop()
        await self._periodic_tasks.stop()
        await self.context.pool.stop()
        self.context.workspace.close()
        await self._leave()

    async def handle(self, delivery: Delivery) -> Verdict:
        """Dispatch by type, not by queue. What fails outside of a claim hands the message back."""
        await self.context.outage_retry.ready()
        async with bound(delivery):
            try:
                return await self._handlers[delivery.message.type](delivery)
            except Exception as error:  # noqa: BLE001
                code = self.context.classify(error).code
                log.warning("message handed back", action="handed_back", code=code, reason=str(error))
                return Retry(self.context.retry_delay(99))

    async def _announce(self) -> None:
        catalogue = self.context.catalogue
        who = workers.WorkerInfo(
            worker_id=self.worker_id,
            kind=workers.CONSUMER,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=VERSION,
            slots=self.context.pool.slots,
            models=tuple(await asyncio.to_thread(catalogue.names)),
            checksums=await asyncio.to_thread(catalogue.checksums, compute=False),
            sick=self.context.health.reason,
        )
        async with self.parts.database.write() as session:
            announced = await workers.heartbeat(session, who)
            if (who.models, who.checksums) != self._announced:
                await model_wait.mark_available(session, announced, self.parts.settings.default_model)
        self._announced = (who.models, who.checksums)

    async def _checksums(self) -> None:
        """Read the model files whose checksums are not known yet: gigabytes, so never before a sign of life."""
        await asyncio.to_thread(self.context.catalogue.checksums)

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(LEAVE_SECONDS), self.parts.database.write() as session:
                await workers.remove(session, self.worker_id)
        except (InfrastructureError, TimeoutError):
            log.warning("could not sign off, the heartbeat will lapse", action="leave_failed")


async def _check_decoder() -> None:
    if not await asyncio.to_thread(ffmpeg.network_isolated):
        log.warning("the kernel gives decoders no network namespace of their own", action="decoder_has_network")
