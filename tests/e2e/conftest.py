"""One running service per mode for the whole run: starting it is the slow part."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import service as services
from tests.e2e.service import Service
from tests.servers.minio import Minio
from tests.servers.postgres import Postgres
from tests.servers.rabbitmq import RabbitMQ


@pytest.fixture(scope="session")
def real_stores(postgres_server: Postgres, rabbitmq_server: RabbitMQ, minio_server: Minio) -> dict[str, str]:
    """The settings of a fresh database, virtual host and bucket."""
    return services.stores_of(postgres_server, rabbitmq_server, minio_server)


@pytest.fixture(scope="session")
def embedded_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with services.embedded(tmp_path_factory.mktemp("embedded")) as service:
        yield service


@pytest.fixture(scope="session")
def real_service(tmp_path_factory: pytest.TempPathFactory, real_stores: dict[str, str]) -> Iterator[Service]:
    with services.on_real_parts(tmp_path_factory.mktemp("real"), real_stores) as service:
        yield service


@pytest.fixture(params=["embedded", pytest.param("real", marks=pytest.mark.servers)])
def service(request: pytest.FixtureRequest) -> Service:
    found: Service = request.getfixturevalue(f"{request.param}_service")
    return found


@pytest.fixture
def sample() -> Path:
    return services.ROOT / "assets" / "samples" / "hello.en.mp3"
