"""An upgrade while clients submit: the previous version's processes run on the new schema, beside the new ones."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests import history
from tests.e2e import service as services
from tests.e2e.service import ROOT, Service
from tests.faults.conftest import SETTINGS
from tests.servers import postgres
from tests.servers.base import free_port, wait_until
from tests.servers.minio import Minio
from tests.servers.postgres import Postgres
from tests.servers.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.servers, pytest.mark.speech, pytest.mark.timeout(600)]
PROCESSES = ("api", "scheduler", "consumer")


@pytest.fixture(scope="module")
def previous_version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the program as it was before the newest migration."""
    commit = history.before_newest_migration()
    if commit is None:
        pytest.skip("the history of the repository is not here")
    folder = tmp_path_factory.mktemp("previous")
    history.unpack(commit, folder)
    return folder


class Load:
    """A client that submits a recording again and again, to whichever API answers."""

    def __init__(self, urls: list[str], recording: Path) -> None:
        self.urls = urls
        self.job_ids: list[str] = []
        self.refused = 0
        self._audio = recording.read_bytes()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(0.2):
            for url in list(self.urls):
                form = {"files": {"file": ("a.flac", self._audio)}, "data": {"language": "en"}}
                try:
                    answer = httpx.post(f"{url}/api/v1/upload", timeout=30, verify=False, **form)  # type: ignore[arg-type]
                except httpx.TransportError:
                    continue  # this API is not there yet, or not any more
                if answer.status_code == 200:
                    self.job_ids.append(answer.json()["job_id"])
                else:
                    self.refused += 1

    def wait_for_more(self, count: int) -> None:
        """Wait until `count` further jobs were accepted."""
        target = len(self.job_ids) + count
        wait_until(lambda: len(self.job_ids) >= target, f"{count} more jobs are accepted", 60)


@pytest.fixture
def service(
    tmp_path: Path, shared_postgres: Postgres, shared_rabbitmq: RabbitMQ, shared_minio: Minio
) -> Iterator[Service]:
    stores = services.stores_of(shared_postgres, shared_rabbitmq, shared_minio) | SETTINGS
    port = free_port()
    service = Service(f"http://127.0.0.1:{port}", tmp_path, services.settings(tmp_path, port, **stores))
    yield service
    service.stop()
    postgres.drop_database(shared_postgres.url, stores["DATABASE_URL"])


def migrate(service: Service, program: Path) -> None:
    call = [sys.executable, "-m", "internal.cli", "migrate"]
    environment = {**service.environment, "PYTHONPATH": str(program)}
    done = subprocess.run(call, env=environment, cwd=program, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_rolling_upgrade_under_load_fails_no_job(service: Service, previous_version: Path, clip: Path) -> None:
    """First the schema, then process by process; every accepted job completes and no request is refused."""
    migrate(service, previous_version)
    for kind in PROCESSES:
        program = str(previous_version / "cmd" / kind / "main.py")
        service.start(f"old-{kind}", None, sys.executable, program, PYTHONPATH=str(previous_version))
    service.wait_ready()
    new_port = free_port()
    with Load([service.url], clip) as load:
        load.wait_for_more(3)
        migrate(service, ROOT)
        load.wait_for_more(5)  # the old processes alone, on the new schema
        load.urls.append(f"http://127.0.0.1:{new_port}")
        service.start("new-api", "api", API_PORT=str(new_port))
        for kind in ("scheduler", "consumer"):
            service.start(f"new-{kind}", kind)
        load.wait_for_more(10)  # side by side
        for kind in PROCESSES:
            process = service.processes.pop(f"old-{kind}")
            load.urls[:] = [f"http://127.0.0.1:{new_port}"]
            process.terminate()
            process.wait(60)
        load.wait_for_more(3)
    service.client.close()
    service.client = httpx.Client(base_url=load.urls[0], timeout=30, verify=False)
    states = {job_id: service.wait(job_id)["status"] for job_id in load.job_ids}
    assert set(states.values()) == {"COMPLETED"}, (states, service.logs())
    assert load.refused == 0, service.logs()
