"""Real servers, started at first use; a fresh database, virtual host and bucket for each test.

`shared_postgres`, `shared_rabbitmq` and `shared_minio` are one set for the whole run, and no test may stop them.
`postgres_server`, `rabbitmq_server` and `minio_server` are private to the worker (`pytest -n`) and may be stopped: a
test that asks for one gets its database, virtual host, bucket or service on it.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from core.database import Database
from tests import parallel
from tests.clients.external_server import ExternalServer, served
from tests.contract.databases import migrated
from tests.e2e import service as services
from tests.e2e.service import Service
from tests.parallel import (  # noqa: F401 - hooks of pytest
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_configure_node,
    pytest_unconfigure,
    pytest_xdist_make_scheduler,
)
from tests.servers import minio, postgres, rabbitmq, shared
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


def _shared(request: pytest.FixtureRequest, name: str) -> Any:
    """The run's one server of this name: a worker asks the process that started the run."""
    find, given = shared.FIND[name]
    if worker := getattr(request.config, "workerinput", None):
        return _found(lambda: shared.ask(worker["servers"], name))
    server = _found(find)
    request.addfinalizer(server.remove)
    return given(server)


@pytest.fixture(scope="session")
def shared_postgres(request: pytest.FixtureRequest) -> Postgres:
    found: Postgres = _shared(request, "postgresql")
    return found


@pytest.fixture(scope="session")
def shared_rabbitmq(request: pytest.FixtureRequest) -> RabbitMQ:
    found: RabbitMQ = _shared(request, "rabbitmq")
    return found


@pytest.fixture(scope="session")
def shared_minio(request: pytest.FixtureRequest) -> Minio:
    found: Minio = _shared(request, "minio")
    return found


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
def postgres_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh, empty database."""
    server: Postgres = request.getfixturevalue(parallel.server_for(request, "postgres"))
    url = postgres.create_database(server.url)
    yield url
    postgres.drop_database(server.url, url)


@pytest.fixture
def rabbitmq_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh virtual host."""
    server: RabbitMQ = request.getfixturevalue(parallel.server_for(request, "rabbitmq"))
    url = rabbitmq.create_vhost(server)
    yield url
    rabbitmq.delete_vhost(server, url)


@pytest.fixture
def minio_bucket(request: pytest.FixtureRequest) -> Bucket:
    """A bucket's name of its own; the program makes the bucket. Its content goes with the server."""
    server: Minio = request.getfixturevalue(parallel.server_for(request, "minio"))
    name = f"t{uuid.uuid4().hex[:16]}"
    return Bucket(server.endpoint, server.access_key, server.secret_key, name)


@pytest.fixture(scope="session")
def real_stores(shared_postgres: Postgres, shared_rabbitmq: RabbitMQ, shared_minio: Minio) -> dict[str, str]:
    """The settings of a fresh database, virtual host and bucket."""
    return services.stores_of(shared_postgres, shared_rabbitmq, shared_minio)


@pytest.fixture(scope="session")
def external_server() -> Iterator[ExternalServer]:
    """A server that is not ours: media to fetch, webhooks to receive."""
    with served() as found:
        yield found


@pytest.fixture(scope="session")
def embedded_service(tmp_path_factory: pytest.TempPathFactory, external_server: ExternalServer) -> Iterator[Service]:
    hosts = {"MEDIA_URL_ALLOWED_HOSTS": external_server.host, "WEBHOOK_ALLOWED_HOSTS": external_server.host}
    with services.embedded(tmp_path_factory.mktemp("embedded"), **hosts) as service:
        yield service


@pytest.fixture(scope="session")
def real_service(
    tmp_path_factory: pytest.TempPathFactory, real_stores: dict[str, str], external_server: ExternalServer
) -> Iterator[Service]:
    """MEDIA_URL_ALLOWED_HOSTS stays as it is by default: our own storage."""
    hosts = {"WEBHOOK_ALLOWED_HOSTS": external_server.host}
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
