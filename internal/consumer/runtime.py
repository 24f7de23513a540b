"""The consumer process: subscriptions, heartbeat, recovery from machine faults, graceful shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import secrets
import socket
from functools import partial
from pathlib import Path

import structlog

from core import tracing
from core.config import Settings
from core.consumer_metrics import ENGINE_INFO, SLOTS
from core.database import Database
from core.domain.models import choose
from core.errors import InfrastructureError, MachineError, ModelMissingError, SettingsError, StorageUnavailable
from core.messaging.port import Broker, Delivery, Handler, MessageType, QueueName, Retry, Subscription, Verdict
from core.metrics import label
from core.outbound import Outbound
from core.storage.port import Storage
from core.tasks import cancel_and_wait
from internal.consumer import trial_progress
from internal.consumer.handlers.fetch import FetchHandler
from internal.consumer.handlers.finalise import FinaliseHandler
from internal.consumer.handlers.prepare import PrepareHandler, PrepareSettings
from internal.consumer.handlers.replay import ReplayHandler
from internal.consumer.handlers.transcribe import TranscribeHandler
from internal.consumer.leases import Leases
from internal.consumer.machine_health import MachineHealth, probe_machine
from internal.consumer.memory_check import check_memory
from internal.consumer.model_puller import ModelPuller
from internal.consumer.model_selector import ModelSelector
from internal.consumer.recordings import RecordingLimits, Recordings
from internal.consumer.retrying_database import RetryingDatabase
from internal.consumer.step_runner import RetryPolicy, StepRunner
from internal.consumer.working_audio import WorkingAudioReader
from internal.consumer.workspace import Workspace
from internal.outage_retry import OutageRetry
from internal.periodic_tasks import PeriodicTasks
from internal.services.dead_letters import DeadLetters
from internal.services.publishing import Publisher
from internal.services.retention import Retention
from repositories import model_wait, workers
from worker import ffmpeg
from worker.chunking import strategy
from worker.engine_variants import model_formats
from worker.models import ModelCatalogue
from worker.pool import Pool

log = structlog.get_logger(__name__)
FINALISE_PREFETCH = 4
GRACE = 25.0
"""Seconds that running work of all queues may take at shutdown before it is handed back."""
DEREGISTER_TIMEOUT = 3.0
"""Seconds that removing the consumer's row may take at shutdown."""
RECOVERY_PAUSE = 1.0
"""Seconds between a recovery of the machine and the wait for the next faults."""


class Consumer:
    """Consumer of the four work queues. `start` and `stop` are idempotent."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        broker: Broker,
        storage: Storage,
        media: Outbound,
        publisher: Publisher,
        dead_letters: DeadLetters,
        retention: Retention,
        *,
        version: str,
        worker_id: str | None = None,
    ) -> None:
        """Raises SettingsError if the chunking strategy, the engine, or a model of MODELS is unknown."""
        strategy(settings.chunk_strategy)
        self.worker_id = worker_id or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._version = version
        self._settings, self._database, self._broker, self._storage = settings, database, broker, storage
        temp_dir = Path(settings.temp_dir)
        self.workspace = Workspace(temp_dir, self.worker_id)
        self.pool = Pool(
            settings.worker_concurrency,
            settings.engine,
            threads=settings.engine_threads,
            batch_size=settings.batch_size,
        )
        self.catalogue = ModelCatalogue(settings.model_dirs, formats := model_formats(settings.engine))
        self.puller = ModelPuller.from_settings(settings, database, self.announce, formats)
        self.trial_progress = trial_progress.TrialProgress(self.pool.engines, self.announce)
        self.health = MachineHealth(temp_dir)
        self.leases = Leases(database, settings.lease_seconds, settings.job_timeout_seconds)
        self.outage_retry = OutageRetry(
            pings={StorageUnavailable: storage.ping}, unrecoverable=self.health.fault_behind
        )
        retrying = RetryingDatabase(database, self.outage_retry)
        self.steps = StepRunner(
            self.worker_id, retrying, self.leases, self.health, dead_letters, RetryPolicy.from_settings(settings)
        )
        self.handlers = self._create_handlers(retrying, media, publisher, retention)
        self._periodic_tasks = PeriodicTasks()
        self._recovery = PeriodicTasks()
        self._subscriptions: list[Subscription] = []
        self._watchers: list[asyncio.Task[None]] = []
        self._trial: asyncio.Task[None] | None = None
        self._failure: Exception | None = None
        self._failed = asyncio.Event()
        self._announced: tuple[object, object] | None = None

    def _create_handlers(
        self, database: RetryingDatabase, media: Outbound, publisher: Publisher, retention: Retention
    ) -> dict[MessageType, Handler]:
        settings, storage, outage_retry = self._settings, self._storage, self.outage_retry
        limits = RecordingLimits.from_settings(settings)
        recordings = Recordings(self._database, storage, media, outage_retry, limits)
        models = ModelSelector(
            self.catalogue, database, settings.default_model, settings.model_wait_seconds, self.puller.pending
        )
        fetch = FetchHandler(
            self.steps, database, recordings, self.workspace, publisher, max_per_owner=settings.fetch_per_owner
        )
        prepare = PrepareHandler(
            self.steps,
            database,
            recordings,
            models,
            self.workspace,
            storage,
            outage_retry,
            publisher,
            PrepareSettings.from_settings(settings),
        )
        transcribe = TranscribeHandler(
            self.steps,
            database,
            self.pool,
            models,
            WorkingAudioReader(storage, outage_retry),
            publisher,
            languages=settings.languages,
            chunk_timeout=settings.chunk_timeout_seconds,
        )
        finalise = FinaliseHandler(
            self.steps,
            database,
            storage,
            outage_retry,
            publisher,
            retention,
            result_ttl=settings.result_ttl_seconds,
        )
        return {
            MessageType.FETCH: fetch,
            MessageType.PREPARE: prepare,
            MessageType.TRANSCRIBE: transcribe,
            MessageType.FINALISE: finalise,
            MessageType.REPLAY: ReplayHandler(database, publisher),
        }

    async def start(self) -> None:
        """Wait for the dependencies, subscribe to the queues, and return once all subscriptions are active.

        If an engine has to be chosen by trial, that of the chunks follows after the trial.

        If the machine is sick from the start, return without subscriptions; they follow once it has recovered.
        Raises SettingsError if the engine processes do not fit into memory.
        """
        await asyncio.to_thread(check_memory, self._settings, self.catalogue)
        await self._start_engine()
        for state in self.pool.usage:
            SLOTS.labels(state).set_function(partial(self._count_slots, state))
        outage_retry = OutageRetry(math.inf)
        await outage_retry.run(self._storage.start)
        await outage_retry.run(self._broker.start)
        await outage_retry.run(self.announce)
        self._periodic_tasks.start(workers.HEARTBEAT_INTERVAL, self.announce, "heartbeat")
        self._periodic_tasks.start(trial_progress.INTERVAL, self.trial_progress.report, "engine trial")
        self.leases.start()
        self._periodic_tasks.start(workers.HEARTBEAT_INTERVAL, self.compute_checksums, "model checksums")
        self.puller.start()
        if self.health.reason is None:
            await outage_retry.run(self._subscribe)
        self._recovery.start(RECOVERY_PAUSE, self._recover_when_sick, "machine health")
        log.info(
            "consumer is ready",
            action="consumer_started",
            worker_id=self.worker_id,
            slots=self.pool.slots,
            models=self.catalogue.names(),
            engines=self.pool.engines.descriptions(),
            sick=self.health.reason,
        )

    def _count_slots(self, state: str) -> float:
        return self.pool.usage[state]

    async def _start_engine(self) -> None:
        """Open the workspace, start the pool and check the decoder. Mark the machine as sick if that fails."""

        async def open_workspace() -> None:
            self.workspace.open()

        async def prepare_known_engine() -> None:
            if self._known_engine():
                await self._prepare_engine()

        for step in (open_workspace, self.pool.start, prepare_known_engine, _check_decoder):
            try:
                await step()
            except (OSError, MachineError) as error:
                self.health.mark_sick(self.health.fault_behind(error) or error)

    async def _subscribe(self) -> None:
        prefetches = (
            (QueueName.JOBS, self._settings.prepare_concurrency),
            (QueueName.FETCH, self._settings.fetch_concurrency),
            (QueueName.FINALISE, FINALISE_PREFETCH),
        )
        for queue, prefetch in prefetches[len(self._subscriptions) :]:
            await self._consume(queue, prefetch)
        if len(self._subscriptions) > len(prefetches):
            return
        if self._known_engine():
            await self._consume(QueueName.CHUNKS, self.pool.slots)
        elif self._trial is None:
            self._trial = asyncio.create_task(self._consume_chunks_after_trial(), name="engine trial")

    def _default_model(self) -> Path | None:
        """Return the file of the model that most jobs use; None if there is no model."""
        settings = self._settings
        name = choose(None, settings.default_language, self.catalogue.names(), settings.default_model)
        return None if name is None else self.catalogue.path(name)

    def _known_engine(self) -> bool:
        """Return True if the engine of the default model is known, so that no trial is needed before chunks."""
        try:
            model = self._default_model()
            return model is None or self.pool.engines.known(model) is not None
        except ModelMissingError:  # removed at this moment
            return True

    async def _prepare_engine(self) -> None:
        """Choose the engine of the default model and start its processes. Raises EngineUnavailableError."""
        with contextlib.suppress(ModelMissingError):
            model = self._default_model()
            if model is not None:
                await self.pool.prepare(model)

    async def _consume_chunks_after_trial(self) -> None:
        """Choose the engine, then take chunks: how many at a time depends on the engine. Other steps run meanwhile."""
        try:
            await self._prepare_engine()
            await self._announce_health()
            await OutageRetry(math.inf).run(lambda: self._consume(QueueName.CHUNKS, self.pool.slots))
        except (OSError, MachineError) as error:
            self.health.mark_sick(self.health.fault_behind(error) or error)
        except Exception as error:  # noqa: BLE001
            self._fail(error)

    async def _consume(self, queue: QueueName, prefetch: int) -> None:
        subscription = await self._broker.consume(queue, self.handle, prefetch)
        self._subscriptions.append(subscription)
        self._watchers.append(asyncio.create_task(self._watch(subscription), name=f"watch {queue}"))

    async def _unsubscribe(self, grace: float) -> None:
        """Stop consuming, let running work finish within `grace` seconds, and hand back the rest."""
        if self._trial is not None:
            await cancel_and_wait(self._trial)
            self._trial = None
        subscriptions, self._subscriptions = self._subscriptions, []
        watchers, self._watchers = self._watchers, []
        await cancel_and_wait(*watchers)
        await asyncio.gather(*(subscription.cancel() for subscription in subscriptions))
        await asyncio.gather(*(subscription.drain(grace) for subscription in subscriptions))

    async def _watch(self, subscription: Subscription) -> None:
        self._fail(await subscription.failed())

    def _fail(self, error: Exception) -> None:
        """Make `failed` return: without its subscription, this process would send heartbeats but do no work."""
        if self._failure is None:
            log.critical("consumer failed, exiting", action="consumer_failed", reason=str(error), exc_info=error)
            self._failure = error
            self._failed.set()

    async def failed(self) -> Exception:
        """Wait until the consumer cannot continue; return the reason. Its process has to be restarted."""
        await self._failed.wait()
        assert self._failure is not None
        return self._failure

    async def _recover_when_sick(self) -> None:
        """Wait until the machine is sick, stop consuming, repair and probe it until it works, and resume."""
        await self.health.wait_until_sick()
        await self._unsubscribe(GRACE)
        await self._announce_health()
        await self.health.wait_for_recovery(lambda: probe_machine(self.workspace, self.pool))
        self.health.mark_recovered()
        try:
            await OutageRetry(math.inf).run(self._subscribe)
        except SettingsError as error:
            self._fail(error)
        await self._announce_health()

    async def _announce_health(self) -> None:
        # if this fails, the next heartbeat announces it
        with contextlib.suppress(InfrastructureError, TimeoutError):
            async with asyncio.timeout(workers.HEARTBEAT_INTERVAL):
                await self.announce()

    async def stop(self, grace: float = GRACE) -> None:
        """Stop consuming, let running work finish within `grace` seconds, hand back the rest, and deregister."""
        await self._recovery.stop()
        await self.puller.stop()
        await self._unsubscribe(grace)
        # only after the drain: draining work needs its claims renewed
        await self.leases.stop()
        await self._periodic_tasks.stop()
        await self.pool.stop()
        self.workspace.close()
        await self._deregister()

    async def handle(self, delivery: Delivery) -> Verdict:
        """Run the handler of the message's type, whatever its queue. An error outside of a claim delays the message."""
        await self.outage_retry.ready()
        message = delivery.message
        chunk = {} if message.chunk_index is None else {"chunk_index": message.chunk_index}
        context = structlog.contextvars.bound_contextvars(job_id=message.job_id, **chunk)
        span = tracing.span(
            message.type.value,
            message.job_id,
            delivery.headers,
            chunk_index=message.chunk_index,
            failures=message.failures,
        )
        with context, span:
            try:
                return await self.handlers[message.type](delivery)
            except Exception as error:  # noqa: BLE001
                code = self.health.classify(error).code
                tracing.record_error(code)
                log.warning("message handed back", action="handed_back", code=code, reason=str(error))
                return Retry(self.steps.retries.max_delay)

    async def announce(self) -> None:
        """Write the consumer's heartbeat, with its models, their known checksums, and its health."""
        states = await asyncio.to_thread(self.puller.states)
        info = workers.WorkerInfo(
            worker_id=self.worker_id,
            kind=workers.CONSUMER,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=self._version,
            slots=self.pool.slots,
            models=tuple(await asyncio.to_thread(self.catalogue.names)),
            checksums=await asyncio.to_thread(self.catalogue.checksums, compute=False),
            sick=self.health.reason,
            engines=self.pool.engines.descriptions(),
            model_states=tuple(state.to_json() for state in self.trial_progress.added_to(states)),
        )
        ENGINE_INFO.clear()
        for model, engine in info.engines.items():
            ENGINE_INFO.labels(label(model), label(engine)).set(1)
        async with self._database.write() as session:
            worker = await workers.heartbeat(session, info)
            if (info.models, info.checksums) != self._announced:
                await model_wait.mark_available(session, worker, self._settings.default_model)
        self._announced = (info.models, info.checksums)

    async def compute_checksums(self) -> None:
        """Hash model files whose checksums are unknown. Files of gigabytes must not delay the heartbeat."""
        await asyncio.to_thread(self.catalogue.checksums)

    async def _deregister(self) -> None:
        try:
            async with asyncio.timeout(DEREGISTER_TIMEOUT), self._database.write() as session:
                await workers.remove(session, self.worker_id)
        except (InfrastructureError, TimeoutError):
            log.warning("could not deregister, the heartbeat will expire", action="leave_failed")


async def _check_decoder() -> None:
    if not await asyncio.to_thread(ffmpeg.network_isolated):
        log.warning("decoders run without a network namespace of their own", action="decoder_has_network")
