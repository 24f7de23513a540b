"""One service on real servers for all fault tests: its API and two schedulers run throughout."""

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
    """Return a function that starts an API and two schedulers once for each set of servers requested."""
    running: dict[tuple[str, ...], Service] = {}
    with contextlib.ExitStack() as stack:

        def service_for(request: pytest.FixtureRequest) -> Service:
            servers = tuple(parallel.server_for(request, kind) for kind in parallel.KINDS)
            if servers not in running:
                stores = services.stores_of(*(request.getfixturevalue(name) for name in servers)) | SETTINGS
                folder = tmp_path_factory.mktemp("faults")
                running[servers] = stack.enter_context(services.on_real_servers(folder, stores, ("api", "scheduler")))
                running[servers].start("scheduler-2", "scheduler")
            return running[servers]

        yield service_for


@pytest.fixture
def harness(
    request: pytest.FixtureRequest, shared_service: Callable[[pytest.FixtureRequest], Service], tmp_path: Path
) -> Iterator[Harness]:
    """A harness on the shared servers, except for those that the test requests to stop."""
    with open_harness(shared_service(request), tmp_path) as harness:
        yield harness


@pytest.fixture(scope="session")
def long_recording(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A recording of a minute and a half in several chunks, and its text."""
    audio, reference = recording("en", 24, seed=71)
    return encode(audio, tmp_path_factory.mktemp("long") / "long.flac"), reference


@pytest.fixture(scope="session")
def three_minutes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A recording that is long enough for an instalment of 75 s, and its text."""
    audio, reference = recording("en", 48, seed=73)
    return encode(audio, tmp_path_factory.mktemp("three") / "three.flac"), reference


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of one sentence."""
    return encode(recording("en", 1, seed=72, pause=0.2)[0], tmp_path_factory.mktemp("clip") / "clip.flac")


@pytest.fixture
def database_server(postgres_server: Postgres) -> Server:
    return stoppable(postgres_server)


@pytest.fixture
def broker_server(rabbitmq_server: RabbitMQ) -> LocalRabbitMQ:
    if not isinstance(rabbitmq_server, LocalRabbitMQ):
        pytest.skip("an external server cannot be stopped")
    return rabbitmq_server


@pytest.fixture
def storage_server(minio_server: Minio) -> Server:
    return stoppable(minio_server)


def stoppable(server: object) -> Server:
    if not isinstance(server, Server):
        pytest.skip("an external server cannot be stopped")
    return server
