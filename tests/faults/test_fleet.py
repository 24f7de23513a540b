"""Many consumers and many readers at once; `make bench-scale` measures larger numbers of both."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.scale import fleet, streams
from tests.e2e.service import ROOT, stores_of
from tests.servers.minio import Minio
from tests.servers.postgres import Postgres
from tests.servers.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]


@pytest.fixture
def stores(shared_postgres: Postgres, shared_rabbitmq: RabbitMQ, shared_minio: Minio) -> dict[str, str]:
    more = {"ENGINE": "tests.benchmarks.instant_engine", "PYTHONPATH": str(ROOT), "LEASE_SECONDS": "3"}
    return stores_of(shared_postgres, shared_rabbitmq, shared_minio) | more


def test_half_of_the_consumers_are_killed_at_once(
    stores: dict[str, str], shared_rabbitmq: RabbitMQ, tmp_path: Path
) -> None:
    seen = fleet.measure(stores, shared_rabbitmq.management, tmp_path, consumers=4, jobs=40)
    assert seen.completed == 40
    assert seen.twice == 0, "jobs completed twice"


def test_many_readers_of_two_api_processes_receive_every_commit(stores: dict[str, str], tmp_path: Path) -> None:
    seen = streams.measure(stores, tmp_path, streams=300, processes=2, idle=0)
    assert seen.kilobytes < 500, "memory of the API for each stream"
