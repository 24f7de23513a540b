"""Private real servers for the run, started at first use; a fresh database, virtual host and bucket for each test."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from core.database import Database
from tests.clients.elsewhere import Elsewhere, served
from tests.contract.databases import migrated
from tests.e2e import service as services
from tests.e2e.service import Service
from tests.servers import minio, postgres, rabbitmq
from tests.servers.base import Unavailable
from tests.servers.minio import Bucket, Minio
from tests.servers.postgres import Postgres
from tests.servers.rabbitmq import RabbitMQ

S = TypeVar("S", Postgres, RabbitMQ, Minio)


def _found(find: Callable[[], S]) -> S:
    try:
        return find()
    except Unavailable as reason:
        if os.environ.get("CI"):
            pytest.fail(str(reason))
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    server = _found(postgres.find)
    yield server
    server.remove()


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[RabbitMQ]:
    server = _found(rabbitmq.find)
    yield server
    server.remove()


@pytest.fixture(scope="session")
def minio_server() -> Iterator[Minio]:
    server = _found(minio.find)
    yield server
    server.remove()


@pytest.fixture
def postgres_url(postgres_server: Postgres) -> Iterator[str]:
    """A fresh, empty database."""
    url = postgres.create_database(postgres_server.url)
    yield url
    postgres.drop_database(postgres_server.url, url)


@pytest.fixture
def rabbitmq_url(rabbitmq_server: RabbitMQ) -> Iterator[str]:
    """A fresh virtual host."""
    url = rabbitmq.create_vhost(rabbitmq_server)
    yield url
    rabbitmq.delete_vhost(rabbitmq_server, url)


@pytest.fixture
def minio_bucket(minio_server: Minio) -> Bucket:
    """A bucket's name of its own; the program makes the bucket. Its content goes with the server."""
    name = f"t{uuid.uuid4().hex[:16]}"
    return Bucket(minio_server.endpoint, minio_server.access_key, minio_server.secret_key, name)


@pytest.fixture(scope="session")
def real_stores(postgres_server: Postgres, rabbitmq_server: RabbitMQ, minio_server: Minio) -> dict[str, str]:
    """The settings of a fresh database, virtual host and bucket."""
    return services.stores_of(postgres_server, rabbitmq_server, minio_server)


@pytest.fixture(scope="session")
def elsewhere() -> Iterator[Elsewhere]:
    """A server that is not ours: media to fetch, webhooks to receive."""
    with served() as found:
        yield found


@pytest.fixture(scope="session")
def embedded_service(tmp_path_factory: pytest.TempPathFactory, elsewhere: Elsewhere) -> Iterator[Service]:
    hosts = {"MEDIA_URL_ALLOWED_HOSTS": elsewhere.host, "WEBHOOK_ALLOWED_HOSTS": elsewhere.host}
    with services.embedded(tmp_path_factory.mktemp("embedded"), **hosts) as service:
        yield service


@pytest.fixture(scope="session")
def real_service(
    tmp_path_factory: pytest.TempPathFactory, real_stores: dict[str, str], elsewhere: Elsewhere
) -> Iterator[Service]:
    """MEDIA_URL_ALLOWED_HOSTS stays as it is by default: our own storage."""
    hosts = {"WEBHOOK_ALLOWED_HOSTS": elsewhere.host}
    with services.on_real_parts(tmp_path_factory.mktemp("real"), real_stores | hosts) as service:
        yield service


@pytest.fixture(params=["embedded", pytest.param("real", marks=pytest.mark.servers)])
def service(request: pytest.FixtureRequest) -> Service:
    found: Service = request.getfixturevalue(f"{request.param}_service")
    return found


@pytest.fixture
def sample() -> Path:
    return services.ROOT / "assets" / "samples" / "hello.en.mp3"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.servers)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/stt.db"
    url: str = request.getfixturevalue("postgres_url")
    return url.replace("postgresql://", "postgresql+asyncpg://")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with migrated(database_url) as database:
        yield database
