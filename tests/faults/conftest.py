"""One service for all fault tests, on the real servers: its API and two schedulers live through everything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import service as services
from tests.e2e.service import ROOT, Service
from tests.faults.stage import Stage, stage
from tests.servers.base import Server
from tests.servers.minio import Minio
from tests.servers.postgres import Postgres
from tests.servers.rabbitmq import LocalRabbitMQ, RabbitMQ
from tests.speech import encode, recording

SETTINGS = {
    "WORKER_CONCURRENCY": "1",
    "RETRY_DELAY": "0.2",
    "RETRY_BACKOFF_MULTIPLIER": "1.5",
    "RETRY_JITTER": "false",
    "PYTHONPATH": str(ROOT),
}


@pytest.fixture(scope="session")
def standing(
    tmp_path_factory: pytest.TempPathFactory,
    postgres_server: Postgres,
    rabbitmq_server: RabbitMQ,
    minio_server: Minio,
) -> Iterator[Service]:
    """api and scheduler, and no consumer."""
    stores = services.stores_of(postgres_server, rabbitmq_server, minio_server) | SETTINGS
    folder = tmp_path_factory.mktemp("faults")
    with services.on_real_parts(folder, stores, ("api", "scheduler")) as service:
        service.start("scheduler-2", "scheduler")
        yield service


@pytest.fixture
def here(standing: Service, tmp_path: Path) -> Iterator[Stage]:
    with stage(standing, tmp_path) as made:
        yield made


@pytest.fixture(scope="session")
def long(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A minute and a half in several chunks, and what is said in it."""
    sound, reference = recording("en", 24, seed=71)
    return encode(sound, tmp_path_factory.mktemp("long") / "long.flac"), reference


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One sentence."""
    return encode(recording("en", 1, seed=72, pause=0.2)[0], tmp_path_factory.mktemp("clip") / "clip.flac")


@pytest.fixture
def database_server(postgres_server: Postgres) -> Server:
    return ours(postgres_server)


@pytest.fixture
def broker_server(rabbitmq_server: RabbitMQ) -> LocalRabbitMQ:
    if not isinstance(rabbitmq_server, LocalRabbitMQ):
        pytest.skip("not ours to stop")
    return rabbitmq_server


@pytest.fixture
def storage_server(minio_server: Minio) -> Server:
    return ours(minio_server)


def ours(server: object) -> Server:
    if not isinstance(server, Server):
        pytest.skip("not ours to stop")
    return server
