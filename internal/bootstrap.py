"""The composition root: builds the adapters and services from the settings.

DATABASE_URL, BROKER and STORAGE, which choose the adapters, are resolved only here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from core.config import BrokerKind, Settings, StorageKind
from core.database import Database
from core.messaging.memory import MemoryBroker
from core.messaging.port import Broker
from core.messaging.rabbitmq import RabbitMQBroker
from core.outbound import Outbound
from core.secret import Secret
from core.storage.local import LocalStorage
from core.storage.minio import MinioStorage
from core.storage.port import Storage
from core.version import VERSION
from internal.services.api_keys import ApiKeys
from internal.services.authentication import Authenticator
from internal.services.dead_letters import DeadLetters
from internal.services.estimates import Estimator
from internal.services.health import HealthCheck
from internal.services.idempotency import IdempotentRequests
from internal.services.job_events import JobEvents
from internal.services.job_views import JobViews
from internal.services.job_watcher import JobWatcher
from internal.services.jobs import Jobs
from internal.services.limiting import Limiter
from internal.services.models import Models
from internal.services.publishing import Publisher
from internal.services.registry import Services
from internal.services.results import Results
from internal.services.retention import Retention
from internal.services.statistics import Statistics
from internal.services.stream_limiter import StreamLimiter
from internal.services.submissions import Submissions
from internal.services.submit_options import SubmitOptionsValidator
from internal.services.transcriptions import Transcriptions
from internal.services.upload_links import UploadLinks
from internal.services.url_submissions import UrlSubmissions

if TYPE_CHECKING:
    from internal.consumer.runtime import Consumer
    from internal.scheduler.maintenance import Maintenance
    from internal.scheduler.runtime import Scheduler
    from internal.scheduler.webhooks import WebhookDeliverer

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Application:
    """The adapters and services of one process.

    Start the adapters that the process needs; `stop` is idempotent and may be called before any start.
    """

    settings: Settings
    database: Database
    broker: Broker
    storage: Storage
    publisher: Publisher
    secret: Secret
    limiter: Limiter
    media: Outbound
    webhooks: Outbound
    services: Services

    async def stop(self) -> None:
        await self.publisher.stop()
        await self.broker.stop()
        await self.storage.stop()
        await self.database.stop()
        await self.media.stop()
        await self.webhooks.stop()


def build(settings: Settings) -> Application:
    """Build the adapters and services without connecting them."""
    database = Database(settings.database_url)
    broker = make_broker(settings)
    storage = make_storage(settings)
    if settings.broker is not BrokerKind.MEMORY and not settings.secret_key:
        log.warning("SECRET_KEY is not set: keys and signatures are valid on this machine only", action="own_secret")
    secret = Secret(settings.secret_key, Path(settings.data_dir))
    media, webhooks = Outbound(settings.media_hosts), Outbound(settings.webhook_allowed_hosts)
    publisher = Publisher(database, broker)
    # with BROKER=memory there is only this process, which counts requests in memory
    limiter = Limiter(settings, database, shared=settings.broker is not BrokerKind.MEMORY)
    return Application(
        settings=settings,
        database=database,
        broker=broker,
        storage=storage,
        publisher=publisher,
        secret=secret,
        limiter=limiter,
        media=media,
        webhooks=webhooks,
        services=_services(settings, database, broker, storage, publisher, secret, limiter, media, webhooks),
    )


def _services(
    settings: Settings,
    database: Database,
    broker: Broker,
    storage: Storage,
    publisher: Publisher,
    secret: Secret,
    limiter: Limiter,
    media: Outbound,
    webhooks: Outbound,
) -> Services:
    idempotent_requests = IdempotentRequests(database)
    models = Models(database)
    retention = Retention(database, storage)
    watcher = JobWatcher(database)
    jobs = Jobs(database, storage, publisher, limiter, settings.failure_ttl_seconds)
    submissions = Submissions(database, storage, publisher, limiter, idempotent_requests, settings.max_upload_bytes)
    return Services(
        api_keys=ApiKeys(settings, database, secret),
        authenticator=Authenticator(settings, database, secret, limiter),
        dead_letters=DeadLetters(database, broker, publisher),
        health_check=HealthCheck(database, broker, storage, settings.written_folders),
        job_events=JobEvents(database, watcher),
        job_views=JobViews(Estimator(database)),
        jobs=jobs,
        models=models,
        results=Results(database, storage),
        retention=retention,
        statistics=Statistics(database, broker),
        stream_limiter=StreamLimiter(settings.max_event_streams, settings.max_event_streams_per_owner),
        submissions=submissions,
        submit_options=SubmitOptionsValidator(
            models, webhooks, settings.languages, settings.default_language, settings.default_model
        ),
        transcriptions=Transcriptions(database, idempotent_requests, submissions, watcher),
        upload_links=UploadLinks(
            database,
            storage,
            secret,
            limiter,
            idempotent_requests,
            submissions,
            jobs,
            retention,
            settings.upload_link_ttl_seconds,
        ),
        url_submissions=UrlSubmissions(
            database, media, idempotent_requests, submissions, settings.minio_bucket, settings.job_ttl_seconds
        ),
    )


def make_broker(settings: Settings) -> Broker:
    if settings.broker is BrokerKind.MEMORY:
        return MemoryBroker(retry_delays=settings.retry_delays, dead_letter_ttl=settings.dead_letter_ttl_seconds)
    return RabbitMQBroker(
        settings.rabbitmq_url,
        retry_delays=settings.retry_delays,
        queue_type=settings.queue_type,
        dead_letter_ttl=settings.dead_letter_ttl_seconds,
    )


def make_storage(settings: Settings) -> Storage:
    if settings.storage is StorageKind.LOCAL:
        return LocalStorage(Path(settings.data_dir) / "objects", max_uploads=settings.max_concurrent_uploads)
    return MinioStorage(
        settings.minio_endpoint,
        settings.minio_access_key,
        settings.minio_secret_key,
        settings.minio_bucket,
        secure=settings.minio_use_ssl,
        max_uploads=settings.max_concurrent_uploads,
        public_endpoint=settings.minio_public_endpoint or None,
    )


def consumer(app: Application, worker_id: str | None = None) -> Consumer:
    """Build the consumer of a process. Raises SettingsError for an unknown chunking strategy or engine."""
    # imported here, so that other processes do not load the engine and its pool
    from internal.consumer.runtime import Consumer

    return Consumer(
        app.settings,
        app.database,
        app.broker,
        app.storage,
        app.media,
        app.publisher,
        app.services.dead_letters,
        app.services.retention,
        version=VERSION,
        worker_id=worker_id,
    )


def maintenance(app: Application) -> Maintenance:
    """Build the maintenance steps of the scheduler."""
    from internal.scheduler.maintenance import Maintenance

    return Maintenance(
        app.database,
        app.broker,
        app.publisher,
        app.services.dead_letters,
        app.services.retention,
        app.settings.lease_seconds,
        app.settings.starvation_seconds,
    )


def webhook_deliverer(app: Application) -> WebhookDeliverer:
    """Build the deliverer of webhooks."""
    from internal.scheduler.webhooks import WebhookDeliverer

    return WebhookDeliverer(app.database, app.webhooks, app.secret)


def scheduler(app: Application) -> Scheduler:
    """Build the scheduler of a process."""
    from internal.scheduler.runtime import Scheduler

    return Scheduler(app.broker, maintenance(app), webhook_deliverer(app))
