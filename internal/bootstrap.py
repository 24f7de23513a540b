"""The composition root: builds the adapters and services from the settings.

DATABASE_URL, BROKER and STORAGE, which choose the adapters, are resolved only here. Functions import what they build,
so that a process loads only the libraries it uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from core.config import BrokerKind, Settings, StorageKind
from core.database import Database
from core.messaging.port import Broker
from core.outbound import Outbound
from core.secret import Secret
from core.storage.port import Storage
from core.version import VERSION
from internal.services.dead_letters import DeadLetters
from internal.services.publishing import Publisher
from internal.services.retention import Retention

if TYPE_CHECKING:
    from internal.consumer.runtime import Consumer
    from internal.scheduler.maintenance import Maintenance
    from internal.scheduler.runtime import Scheduler
    from internal.scheduler.webhooks import WebhookDeliverer
    from internal.services.registry import Services

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
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
    media: Outbound
    webhooks: Outbound
    retention: Retention
    dead_letters: DeadLetters

    @cached_property
    def services(self) -> Services:
        """The services of the API and the commands, which a consumer and a scheduler do not load."""
        from internal.services.registry import build_services

        return build_services(
            self.settings,
            self.database,
            self.broker,
            self.storage,
            self.publisher,
            self.secret,
            self.media,
            self.webhooks,
            self.retention,
            self.dead_letters,
        )

    async def stop(self) -> None:
        await self.publisher.stop()
        await self.broker.stop()
        await self.storage.stop()
        await self.database.stop()
        await self.media.stop()
        await self.webhooks.stop()


def build(settings: Settings) -> Application:
    """Build the adapters and services without connecting them."""
    database = Database(
        settings.database_url,
        connections=settings.database_connections,
        prepared_statements=settings.database_prepared_statements,
    )
    broker = make_broker(settings)
    storage = make_storage(settings)
    if settings.broker is not BrokerKind.MEMORY and not settings.secret_key:
        log.warning("SECRET_KEY is not set: keys and signatures are valid on this machine only", action="own_secret")
    secret = Secret(settings.secret_key, Path(settings.data_dir))
    publisher = Publisher(database, broker)
    return Application(
        settings=settings,
        database=database,
        broker=broker,
        storage=storage,
        publisher=publisher,
        secret=secret,
        media=Outbound(settings.media_hosts),
        webhooks=Outbound(settings.webhook_allowed_hosts),
        retention=Retention(database, storage, settings.metric_ttl_seconds),
        dead_letters=DeadLetters(database, broker, publisher),
    )


def make_broker(settings: Settings) -> Broker:
    if settings.broker is BrokerKind.MEMORY:
        from core.messaging.memory import MemoryBroker

        return MemoryBroker(retry_delays=settings.retry_delays, dead_letter_ttl=settings.dead_letter_ttl_seconds)
    from core.messaging.rabbitmq import RabbitMQBroker

    return RabbitMQBroker(
        settings.rabbitmq_url,
        retry_delays=settings.retry_delays,
        queue_type=settings.queue_type,
        dead_letter_ttl=settings.dead_letter_ttl_seconds,
    )


def make_storage(settings: Settings) -> Storage:
    if settings.storage is StorageKind.LOCAL:
        from core.storage.local import LocalStorage

        return LocalStorage(Path(settings.data_dir) / "objects", max_uploads=settings.max_concurrent_uploads)
    from core.storage.minio import MinioStorage

    return MinioStorage(
        settings.minio_endpoint,
        settings.minio_access_key,
        settings.minio_secret_key,
        settings.minio_bucket,
        secure=settings.minio_use_ssl,
        max_uploads=settings.max_concurrent_uploads,
        public_endpoint=settings.minio_public_endpoint or None,
        public_secure=settings.minio_public_use_ssl,
    )


def consumer(app: Application, worker_id: str | None = None) -> Consumer:
    """Build the consumer of a process. Raises SettingsError for an unknown chunking strategy or engine."""
    from internal.consumer.runtime import Consumer

    return Consumer(
        app.settings,
        app.database,
        app.broker,
        app.storage,
        app.media,
        app.publisher,
        app.dead_letters,
        app.retention,
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
        app.dead_letters,
        app.retention,
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
    from internal.scheduler.sampler import Sampler

    sampler = Sampler(app.database, app.broker, app.storage)
    return Scheduler(app.broker, maintenance(app), webhook_deliverer(app), sampler)
