"""The basis of parallel tests: reserved ports, shared servers, and servers that never outlive their run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import psutil
import pytest

from tests.e2e.service import ROOT
from tests.parallel import group
from tests.servers import shared
from tests.servers.base import Unavailable, free_port, launch, wait_until
from tests.servers.postgres import ExternalPostgres
from tests.servers.shared import Keeper, ask


class FakeServer:
    """A fake server that counts its starts and stops."""

    def __init__(self) -> None:
        self.starts = self.ends = 0
        self.url = "postgresql://a@127.0.0.1:1/postgres"

    def find(self) -> FakeServer:
        self.starts += 1
        return self

    def remove(self) -> None:
        self.ends += 1


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    fake = FakeServer()
    monkeypatch.setitem(shared.FIND, "postgresql", (fake.find, lambda server: ExternalPostgres(server.url)))
    return fake


@pytest.fixture
def keeper(server: FakeServer) -> Iterator[Keeper]:
    fake = Keeper()
    yield fake
    fake.close()


def test_a_shared_server_starts_once_and_ends_with_the_run(keeper: Keeper, server: FakeServer) -> None:
    assert server.starts == 0
    assert [ask(keeper.address, "postgresql").url for _ in range(3)] == [server.url] * 3
    keeper.close()
    assert (server.starts, server.ends) == (1, 1)


def test_a_shared_server_cannot_be_stopped_by_a_test(keeper: Keeper) -> None:
    with pytest.raises(RuntimeError, match="cannot be controlled from here"):
        ask(keeper.address, "postgresql").stop()


def test_a_missing_server_is_reported_to_every_worker(keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    def find() -> None:
        raise Unavailable("no PostgreSQL: apt-get install postgresql")

    monkeypatch.setitem(shared.FIND, "postgresql", (find, ExternalPostgres))
    for _ in range(2):
        with pytest.raises(Unavailable, match="apt-get install"):
            ask(keeper.address, "postgresql")


def test_a_server_that_does_not_start_is_reported_with_its_message(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find() -> None:
        raise OSError("the disk is full")

    monkeypatch.setitem(shared.FIND, "postgresql", (find, ExternalPostgres))
    with pytest.raises(RuntimeError, match="the disk is full"):
        ask(keeper.address, "postgresql")


def run(script: str) -> subprocess.Popen[str]:
    """Run a script in another process of a test run and return its first line of output."""
    words = [sys.executable, "-c", textwrap.dedent(script)]
    return subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_port_is_given_to_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setattr("random.randint", lambda *_: port)
    with pytest.raises(RuntimeError, match="no free port"):
        free_port()
    other = run(
        f"import random; random.randint = lambda *_: {port}\nfrom tests.servers.base import free_port; free_port()"
    )
    other.communicate(timeout=60)
    assert other.returncode != 0


def test_the_ports_of_an_exited_process_are_free_again(monkeypatch: pytest.MonkeyPatch) -> None:
    exited = run("from tests.servers.base import free_port; print(free_port())")
    port = int(exited.communicate(timeout=60)[0])
    monkeypatch.setattr("random.randint", lambda *_: port)
    assert free_port() == port


def test_a_server_exits_with_the_process_that_started_it() -> None:
    run_ = run(
        """
        from tests.servers.base import launch
        print(launch(["sleep", "600"]).pid, flush=True)
        input()
        """
    )
    assert run_.stdout is not None
    child = psutil.Process(int(run_.stdout.readline()))
    # setpriv asks for the signal before it becomes the program
    wait_until(lambda: child.name() == "sleep", "the program runs", 60)
    run_.send_signal(signal.SIGKILL)
    # the child holds the pipe until it has exited, too
    run_.communicate(timeout=90)
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "the server exits", 90)


@pytest.mark.servers
def test_no_rabbitmq_process_outlives_a_killed_run() -> None:
    """This holds for the node, started by its script, and for the port mapper, started by the node."""
    run_ = run(
        """
        import os, psutil
        from tests.servers import rabbitmq
        server = rabbitmq.find()
        print(*(one.pid for one in psutil.Process().children(recursive=True)), flush=True)
        input()
        """
    )
    assert run_.stdout is not None
    children = [psutil.Process(int(word)) for word in run_.stdout.readline().split()]
    if not children:
        pytest.skip("an external RabbitMQ cannot be stopped")
    assert {"beam.smp", "epmd"} <= {child.name() for child in children}
    run_.send_signal(signal.SIGKILL)
    run_.communicate(timeout=20)
    wait_until(lambda: not any(child.is_running() for child in children), "all processes exit", 20)


def test_launch_runs_in_the_given_folder(tmp_path: Path) -> None:
    assert launch(["touch", "here"], cwd=tmp_path).wait(20) == 0
    assert (tmp_path / "here").exists()


@pytest.mark.parametrize(
    ("fixtures", "parameters", "expected"),
    [
        (["tmp_path", "postgres_url"], {}, None),
        (["harness", "clip"], {}, "faults test_x"),
        (["harness", "rabbitmq_server"], {}, "stops rabbitmq"),
        (["server"], {"server": "minio"}, "stops minio"),
        (["embedded_service"], {}, "embedded"),
        (["service"], {"service": "real"}, "real"),
    ],
)
def test_tests_with_the_same_fixtures_share_a_worker(
    fixtures: list[str], parameters: dict[str, str], expected: str | None
) -> None:
    item = SimpleNamespace(
        fixturenames=fixtures,
        callspec=SimpleNamespace(params=parameters),
        path=Path("test_x.py"),
        get_closest_marker=lambda _: None,
    )
    name = group(cast(pytest.Item, item))
    assert name == expected or (name or "").startswith(f"{expected} ")


PROJECT = {
    "conftest.py": """
        import os, pytest
        from tests.parallel import (
            pytest_collection_modifyitems, pytest_configure, pytest_configure_node,
            pytest_unconfigure, pytest_xdist_make_scheduler
        )
        @pytest.fixture
        def embedded_service(): ...
        @pytest.fixture
        def minio_server(): ...
    """,
    "test_x.py": """
        import os, pathlib, pytest
        def note(name):
            with open("order", "a") as file:
                file.write(name + " " + os.environ["PYTEST_XDIST_WORKER"] + chr(10))
        @pytest.mark.parametrize("n", range(4))
        def test_service(n, embedded_service): note("service")
        @pytest.mark.timeout(300)
        @pytest.mark.parametrize("n", range(4))
        def test_stops(n, minio_server): note("stops")
    """,
}


def test_a_group_runs_on_one_worker(tmp_path: Path) -> None:
    for name, text in PROJECT.items():
        (tmp_path / name).write_text(textwrap.dedent(text))
    call = [sys.executable, "-m", "pytest", "-n", "2", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", "."]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    completed = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    places = {tuple(line.split()) for line in (tmp_path / "order").read_text().splitlines()}
    assert len(places) == 2, "a group is spread over workers"
    assert len({worker for _, worker in places}) == 2, "two groups share a worker although another has none"
