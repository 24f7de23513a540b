"""One service for all fault tests, on the real servers: its API and two schedulers live through everything."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import parallel
from tests.e2e import service as services
from tests.e2e.service import ROOT, Service
from tests.faults.harness import Harness, open_harness
from tests.servers.base import Server
from tests.servers.minio import Minio
from tests.servers.postgres import Postgres
from tests.servers.rabbitmq import LocalRabbitMQ, RabbitMQ
from tests.speech import encode, recording

SETTINGS = {
    "WORKER_CONCURRENCY": "1",
    "RETRY_DELAY_SECONDS": "0.2",
    "RETRY_BACKOFF_MULTIPLIER": "1.5",
    "RETRY_JITTER": "false",
    "LEASE_SECONDS": "3",
    "PYTHONPATH": str(ROOT),
}


@pytest.fixture(scope="session")
def shared_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[pytest.FixtureRequest], Service]]:
    """api and two schedulers without a consumer, one such service for each set of servers that tests ask for."""
    made: dict[tuple[str, ...], Service] = {}
    with contextlib.ExitStack() as stack:

        def find(request: pytest.FixtureRequest) -> Service:
            servers = tuple(parallel.server_for(request, kind) for kind in parallel.KINDS)
            if servers not in made:
                stores = services.stores_of(*(request.getfixturevalue(name) for name in servers)) | SETTINGS
                folder = tmp_path_factory.mktemp("faults")
                made[servers] = stack.enter_context(services.on_real_servers(folder, stores, ("api", "scheduler")))
                made[servers].start("scheduler-2", "scheduler")
            return made[servers]

        yield find


@pytest.fixture
def harness(
    request: pytest.FixtureRequest, shared_service: Callable[[pytest.FixtureRequest], Service], tmp_path: Path
) -> Iterator[Harness]:
    """On shared servers, but for those that the test asks for to stop them."""
    with open_harness(shared_service(request), tmp_path) as made:
        yield made


@pytest.fixture(scope="session")
def long_recording(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
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
