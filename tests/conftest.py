"""Real servers, started on first use, and a new database, virtual host and bucket for each test.

`shared_postgres`, `shared_rabbitmq` and `shared_minio` exist once per run; no test may stop them.
`postgres_server`, `rabbitmq_server` and `minio_server` are private to a worker (`pytest -n`) and may be stopped. A test
that requests one gets its database, virtual host, bucket or service on that server.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import structlog

from core.database import Database
from core.logging import RotatingLogFile
from tests import parallel
from tests.clients.external_server import ExternalServer, run_external_server
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
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import Postgres
from tests.servers.rabbitmq import RabbitMQ

S = TypeVar("S", Postgres, RabbitMQ, Minio, PgBouncer)
# every test of the service has the same engine, and none waits for a trial, unless it asks for one
os.environ.setdefault("ENGINE", "whisper_cpp_wheel")


def _available(find: Callable[[], S]) -> S:
    try:
        return find()
    except Unavailable as reason:
        if os.environ.get("CI"):
            pytest.fail(str(reason))
        pytest.skip(str(reason))


def _shared(request: pytest.FixtureRequest, name: str) -> Any:
    """Return the run's server with this name; an xdist worker requests it from the controller."""
    find, by_address = shared.FIND[name]
    if worker := getattr(request.config, "workerinput", None):
        return _available(lambda: shared.ask(worker["servers"], name))
    server = _available(find)
    request.addfinalizer(server.remove)
    return by_address(server)


@pytest.fixture(scope="session")
def shared_postgres(request: pytest.FixtureRequest) -> Postgres:
    server: Postgres = _shared(request, "postgresql")
    return server


@pytest.fixture(scope="session")
def shared_rabbitmq(request: pytest.FixtureRequest) -> RabbitMQ:
    server: RabbitMQ = _shared(request, "rabbitmq")
    return server


@pytest.fixture(scope="session")
def shared_minio(request: pytest.FixtureRequest) -> Minio:
    server: Minio = _shared(request, "minio")
    return server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    server = _available(postgres.find)
    yield server
    server.remove()


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[RabbitMQ]:
    server = _available(rabbitmq.find)
    yield server
    server.remove()


@pytest.fixture(scope="session")
def minio_server() -> Iterator[Minio]:
    server = _available(minio.find)
    yield server
    server.remove()


@pytest.fixture
def postgres_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A new, empty database."""
    server: Postgres = request.getfixturevalue(parallel.server_for(request, "postgres"))
    url = postgres.create_database(server.url)
    yield url
    postgres.drop_database(server.url, url)


@pytest.fixture
def pgbouncer_url(postgres_url: str) -> Iterator[str]:
    """The new database through PgBouncer in transaction mode."""
    server = _available(lambda: PgBouncer(postgres_url))
    server.start()
    yield server.url.replace("postgresql://", "postgresql+asyncpg://")
    server.remove()


@pytest.fixture
def rabbitmq_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A new virtual host."""
    server: RabbitMQ = request.getfixturevalue(parallel.server_for(request, "rabbitmq"))
    url = rabbitmq.create_vhost(server)
    yield url
    rabbitmq.delete_vhost(server, url)


@pytest.fixture
def minio_bucket(request: pytest.FixtureRequest) -> Bucket:
    """A unique bucket name. The code under test creates the bucket; its content is removed with the server."""
    server: Minio = request.getfixturevalue(parallel.server_for(request, "minio"))
    name = f"t{uuid.uuid4().hex[:16]}"
    return Bucket(server.endpoint, server.access_key, server.secret_key, name)


@pytest.fixture(scope="session")
def real_stores(shared_postgres: Postgres, shared_rabbitmq: RabbitMQ, shared_minio: Minio) -> dict[str, str]:
    """Settings for a new database, virtual host and bucket."""
    return services.stores_of(shared_postgres, shared_rabbitmq, shared_minio)


@pytest.fixture(scope="session")
def external_server() -> Iterator[ExternalServer]:
    """An external server: media to fetch, webhooks to receive."""
    with run_external_server() as server:
        yield server


@pytest.fixture(scope="session")
def embedded_service(tmp_path_factory: pytest.TempPathFactory, external_server: ExternalServer) -> Iterator[Service]:
    hosts = {"MEDIA_URL_ALLOWED_HOSTS": external_server.host, "WEBHOOK_ALLOWED_HOSTS": external_server.host}
    with services.embedded(tmp_path_factory.mktemp("embedded"), **hosts) as service:
        yield service


@pytest.fixture(scope="session")
def real_service(
    tmp_path_factory: pytest.TempPathFactory, real_stores: dict[str, str], external_server: ExternalServer
) -> Iterator[Service]:
    """Keep the default of MEDIA_URL_ALLOWED_HOSTS: only our own storage."""
    hosts = {"WEBHOOK_ALLOWED_HOSTS": external_server.host}
    with services.on_real_servers(tmp_path_factory.mktemp("real"), real_stores | hosts) as service:
        yield service


@pytest.fixture(params=["embedded", pytest.param("real", marks=pytest.mark.servers)])
def service(request: pytest.FixtureRequest) -> Service:
    selected: Service = request.getfixturevalue(f"{request.param}_service")
    return selected


@pytest.fixture
def restored_logging() -> Iterator[None]:
    """Undo what the test configures: its handlers write to a captured stream that later tests do not have."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in root.handlers:
        if isinstance(handler, RotatingLogFile):
            handler.close()
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


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
