"""Plans of PostgreSQL on a filled database: no statement costs more because the tables or the queue have grown.

The statements are those that the routes, a consumer and the scheduler send while each works once.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.config import load_settings
from internal import bootstrap
from internal.services.request_counter import RequestCounter
from tests.clients.external_server import ExternalServer
from tests.contract.filled import Size, filled_database
from tests.contract.plans import recorded_plans
from tests.contract.traffic import Client, use_a_consumer, use_the_queue, use_the_scheduler
from tests.servers.postgres import Postgres

pytestmark = [pytest.mark.servers, pytest.mark.timeout(400)]
SIZE = Size()
ACCEPTED: dict[str, str] = {}
"""Part of a statement whose plan grows, and the reason for which it may."""


@pytest.fixture(scope="module")
def filled_url(shared_postgres: Postgres) -> Iterator[str]:
    with filled_database(shared_postgres, SIZE) as url:
        yield url


async def test_no_plan_grows(filled_url: str, tmp_path: Path, sample: Path, external_server: ExternalServer) -> None:
    app = bootstrap.build(
        load_settings(
            _env_file=None,
            data_dir=tmp_path / "data",
            temp_dir=tmp_path / "tmp",
            database_url=filled_url,
            engine="tests.benchmarks.instant_engine",
            worker_concurrency=1,
            media_url_allowed_hosts=external_server.host,
            webhook_allowed_hosts=external_server.host,
        )
    )
    await app.storage.start()
    await app.broker.start()
    client = Client(app)
    with recorded_plans(app.database) as plans:
        await use_the_queue(client, SIZE)
        consumer = bootstrap.consumer(app)
        await consumer.start()
        await use_a_consumer(client, sample, external_server)
        await consumer.stop()
        await use_the_scheduler(app)
        await app.services.api_keys.ensure_configured()
        await RequestCounter(app.database).count("local", 10)
    await app.stop()
    grown = {
        statement: reasons
        for statement, reasons in plans.problems.items()
        if not any(part in statement for part in ACCEPTED)
    }
    text = "\n\n".join(f"{statement}\n  -- " + "\n  -- ".join(sorted(why)) for statement, why in grown.items())
    assert not grown, f"{len(grown)} of {len(plans.statements)} statements cost more as tables grow:\n{text}"
    assert client.missing == set(), "routes that were not called"
