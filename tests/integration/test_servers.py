"""The server fixtures: each server can be killed, paused and restarted, and keeps its data."""

from __future__ import annotations

import httpx
import pytest

from tests.servers import minio, postgres, rabbitmq
from tests.servers.base import Server, wait_until

pytestmark = pytest.mark.servers


@pytest.fixture(params=["postgres", "rabbitmq", "minio"])
def server(request: pytest.FixtureRequest) -> Server:
    server = request.getfixturevalue(f"{request.param}_server")
    if not isinstance(server, Server):
        pytest.skip("an external server cannot be stopped")
    return server


def test_a_killed_server_starts_again(server: Server) -> None:
    server.kill()
    with pytest.raises((OSError, httpx.TransportError)):
        server.is_ready()
    server.start()
    assert server.is_ready()


def test_start_and_stop_are_idempotent(server: Server) -> None:
    server.stop()
    server.stop()
    server.start()
    server.start()
    assert server.is_ready()


def test_a_paused_server_resumes(server: Server) -> None:
    def times_out() -> bool:
        try:
            server.is_ready()
        except (TimeoutError, httpx.TimeoutException):
            return True
        return False

    server.pause()
    try:
        wait_until(times_out, "a thread that was running has stopped, too", 20)
    finally:
        server.resume()
    wait_until(server.is_ready, "the server responds again", 20)


def test_a_database_survives_a_kill(postgres_server: postgres.Postgres, postgres_url: str) -> None:
    postgres.run(postgres_url, "CREATE TABLE kept (n int)")
    if not isinstance(postgres_server, Server):
        pytest.skip("an external server cannot be stopped")
    postgres_server.kill()
    postgres_server.start()
    postgres.run(postgres_url, "INSERT INTO kept VALUES (1)")


def test_virtual_hosts_are_separate(rabbitmq_server: rabbitmq.RabbitMQ, rabbitmq_url: str) -> None:
    other = rabbitmq.create_vhost(rabbitmq_server)
    assert rabbitmq.vhost_of(other) != rabbitmq.vhost_of(rabbitmq_url)
    rabbitmq.delete_vhost(rabbitmq_server, other)


def test_buckets_are_separate(minio_bucket: minio.Bucket) -> None:
    assert minio_bucket.bucket.startswith("t")
    assert minio_bucket.endpoint.startswith(("127.0.0.1", "localhost"))
