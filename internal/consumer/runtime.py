"""The consumer process: its parts started in order, its subscriptions, its signs of life, its orderly end."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from pathlib import Path

import structlog

from core.errors import InfrastructureError
from core.messaging.port import Delivery, Handler, MessageType, QueueName, Retry, Subscription, Verdict
from internal.bootstrap import VERSION, Parts
from internal.consumer.context import Context, bound
from internal.consumer.handlers.fetch import FetchHandler
from internal.consumer.handlers.finalise import FinaliseHandler
from internal.consumer.handlers.prepare import PrepareHandler
from internal.consumer.handlers.replay import ReplayHandler
from internal.consumer.handlers.transcribe import TranscribeHandler
from internal.consumer.leases import Leases
from internal.consumer.workspace import Workspace
from internal.patience import Patience
from internal.side_tasks import SideTasks
from repositories import model_wait, workers
from worker import ffmpeg
from worker.chunking import strategy
from worker.engine import adapter
from worker.models import ModelCatalogue
from worker.pool import Pool

log = structlog.get_logger(__name__)
FINALISE_PREFETCH = 4
GRACE = 25.0
"""Seconds that running work gets at shutdown before it is handed back."""


class Consumer:
    """`start`, then `stop`; both are harmless when repeated."""

    def __init__(self, parts: Parts, worker_id: str | None = None) -> None:
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
            patience=Patience(),
            leases=Leases(self.parts.database, settings.lease_seconds, settings.job_timeout),
        )
        self._handlers: dict[MessageType, Handler] = {
            MessageType.FETCH: FetchHandler(self.context),
            MessageType.PREPARE: PrepareHandler(self.context),
            MessageType.TRANSCRIBE: TranscribeHandler(self.context),
            MessageType.FINALISE: FinaliseHandler(self.context),
            MessageType.REPLAY: ReplayHandler(self.context),
        }
        self._side_tasks = SideTasks()
        self._subscriptions: list[Subscription] = []
        self._announced: tuple[object, object] | None = None

    async def start(self) -> None:
        """Returns once deliveries are being taken. Waits for parts that are not up yet."""
        self.context.workspace.open()
        if not await asyncio.to_thread(ffmpeg.network_isolated):
            log.warning("the kernel gives decoders no network namespace of their own", action="decoder_has_network")
        await self.context.pool.start()
        patience = Patience(longest=float("inf"))
        await patience.run(self.parts.storage.start)
        await patience.run(self.parts.broker.start)
        await patience.run(self._announce)
        self._side_tasks.start(workers.HEARTBEAT, self._announce, "heartbeat")
        self.context.leases.start()
        self._side_tasks.start(workers.HEARTBEAT, self._checksums, "checksums of models")
        await patience.run(self._subscribe)
        log.info(
            "consumer is ready",
            action="consumer_started",
            worker_id=self.worker_id,
            slots=self.context.pool.slots,
            models=self.context.catalogue.names(),
        )

    async def _subscribe(self) -> None:
        settings = self.parts.settings
        wanted = (
            (QueueName.JOBS, settings.prepare_concurrency),
            (QueueName.FETCH, settings.fetch_concurrency),
            (QueueName.FINALISE, FINALISE_PREFETCH),
            (QueueName.CHUNKS, self.context.pool.slots),
        )
        for queue, prefetch in wanted[len(self._subscriptions) :]:
            self._subscriptions.append(await self.parts.broker.consume(queue, self.handle, prefetch))

    async def stop(self, grace: float = GRACE) -> None:
        """Take no more messages, let what runs finish within `grace` seconds, hand back the rest."""
        subscriptions, self._subscriptions = self._subscriptions, []
        for subscription in subscriptions:
            await subscription.cancel()
        for subscription in subscriptions:
            await subscription.drain(grace)
        # only now: what was drained has renewed its claims to the end
        await self.context.leases.stop()
        await self._side_tasks.stop()
        await self.context.pool.stop()
        self.context.workspace.close()
        await self._leave()

    async def handle(self, delivery: Delivery) -> Verdict:
        """Dispatch by type, not by queue. An outage outlasting our patience hands the message back."""
        await self.context.patience.ready()
        async with bound(delivery):
            try:
                return await self._handlers[delivery.message.type](delivery)
            except InfrastructureError as error:
                log.error("part still down, message handed back", action="handed_back", code=error.code)  # noqa: TRY400
                return Retry(self.context.retry_delay(99))

    async def _announce(self) -> None:
        catalogue = self.context.catalogue
        who = workers.Presence(
            worker_id=self.worker_id,
            kind=workers.CONSUMER,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=VERSION,
            slots=self.context.pool.slots,
            models=tuple(await asyncio.to_thread(catalogue.names)),
            checksums=await asyncio.to_thread(catalogue.checksums, compute=False),
        )
        async with self.parts.database.write() as session:
            announced = await workers.announce(session, who)
            if (who.models, who.checksums) != self._announced:
                await model_wait.found(session, announced, self.parts.settings.default_model)
        self._announced = (who.models, who.checksums)

    async def _checksums(self) -> None:
        """Read the model files whose checksums are not known yet: gigabytes, so never before a sign of life."""
        await asyncio.to_thread(self.context.catalogue.checksums)

    async def _leave(self) -> None:
        try:
            async with self.parts.database.write() as session:
                await workers.leave(session, self.worker_id)
        except InfrastructureError:
            log.warning("could not sign off, the heartbeat will lapse", action="leave_failed")
