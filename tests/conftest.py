"""Private real servers for the run, started at first use; a fresh database, virtual host and bucket for each test."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from tests.servers import minio, postgres, rabbitmq
from tests.servers.base import Unavailable
from tests.servers.minio import Bucket, Minio
from tests.servers.postgres import Postgres
from tests.servers.rabbitmq import RabbitMQ

S = TypeVar("S", Postgres, RabbitMQ, Minio)


def _found(find: Callable[[], S]) -> S:
    try:
        return find()
    except Unavailable as reason:
        if os.environ.get("CI"):
            pytest.fail(str(reason))
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    server = _found(postgres.find)
    yield server
    server.remove()


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[RabbitMQ]:
    server = _found(rabbitmq.find)
    yield server
    server.remove()


@pytest.fixture(scope="session")
def minio_server() -> Iterator[Minio]:
    server = _found(minio.find)
    yield server
    server.remove()


@pytest.fixture
def postgres_url(postgres_server: Postgres) -> Iterator[str]:
    """A fresh, empty database."""
    url = postgres.create_database(postgres_server.url)
    yield url
    postgres.drop_database(postgres_server.url, url)


@pytest.fixture
def rabbitmq_url(rabbitmq_server: RabbitMQ) -> Iterator[str]:
    """A fresh virtual host."""
    url = rabbitmq.create_vhost(rabbitmq_server)
    yield url
    rabbitmq.delete_vhost(rabbitmq_server, url)


@pytest.fixture
def minio_bucket(minio_server: Minio) -> Bucket:
    """A bucket's name of its own; the program makes the bucket. Its content goes with the server."""
    name = f"t{uuid.uuid4().hex[:16]}"
    return Bucket(minio_server.endpoint, minio_server.access_key, minio_server.secret_key, name)
