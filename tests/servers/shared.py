"""One PostgreSQL, one RabbitMQ and one MinIO for all workers of a parallel run.

The process that started the run owns them: each starts at the first request for it and ends with the run, also where a
worker crashes. Workers get addresses only, so no test can stop a server that others use.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Client, Connection, Listener
from typing import Any, cast

from tests.servers import minio, postgres, rabbitmq
from tests.servers.base import Given, Unavailable

FIND: dict[str, tuple[Callable[[], Any], Callable[[Any], Given]]] = {
    "postgresql": (postgres.find, postgres.given),
    "rabbitmq": (rabbitmq.find, rabbitmq.given),
    "minio": (minio.find, minio.given),
}


class Keeper:
    """Owns the shared servers; `address` is the path of the socket at which workers ask for them."""

    def __init__(self) -> None:
        self._servers: dict[str, Any] = {}
        self._locks = {name: threading.Lock() for name in FIND}
        self._listener = Listener(family="AF_UNIX", backlog=64)
        self.address = cast(str, self._listener.address)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """End every server that was started."""
        self._listener.close()
        with ThreadPoolExecutor(len(FIND)) as threads:
            list(threads.map(lambda server: server.remove(), self._servers.values()))
        self._servers.clear()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._answer, args=(self._listener.accept(),), daemon=True).start()

    def _answer(self, connection: Connection) -> None:
        with connection, contextlib.suppress(EOFError):
            connection.send(self._address_of(connection.recv()))

    def _address_of(self, name: str) -> Given | Exception:
        """The server's address, or the reason why there is none."""
        find, given = FIND[name]
        with self._locks[name]:
            try:
                self._servers[name] = self._servers.get(name) or find()
            except Unavailable as error:
                return error
            except Exception as error:  # noqa: BLE001 - raised again in the worker that asked
                return RuntimeError(str(error))
            return given(self._servers[name])


def ask(address: str, name: str) -> Any:
    """The shared server called `name`, from the keeper at `address`. Raises Unavailable."""
    with Client(address) as connection:
        connection.send(name)
        answer = connection.recv()
    if isinstance(answer, Exception):
        raise answer
    return answer
