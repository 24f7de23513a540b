"""One PostgreSQL, one RabbitMQ and one MinIO for all workers of a parallel run.

The controller owns them: each starts at the first request and stops with the run, even if a worker crashes. Workers
only get addresses, so no test can stop a server that others use.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Client, Connection, Listener
from typing import Any, cast

from tests.servers import minio, postgres, rabbitmq
from tests.servers.base import External, Unavailable

FIND: dict[str, tuple[Callable[[], Any], Callable[[Any], External]]] = {
    "postgresql": (postgres.find, postgres.by_address),
    "rabbitmq": (rabbitmq.find, rabbitmq.by_address),
    "minio": (minio.find, minio.by_address),
}


class Keeper:
    """The owner of the shared servers; `address` is the path of the socket that serves the workers' requests."""

    def __init__(self) -> None:
        self._servers: dict[str, Any] = {}
        self._locks = {name: threading.Lock() for name in FIND}
        self._listener = Listener(family="AF_UNIX", backlog=64)
        self.address = cast(str, self._listener.address)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop every server that was started."""
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

    def _address_of(self, name: str) -> External | Exception:
        """Return the server's address, or the reason why it is unavailable."""
        find, by_address = FIND[name]
        with self._locks[name]:
            try:
                self._servers[name] = self._servers.get(name) or find()
            except Unavailable as error:
                return error
            except Exception as error:  # noqa: BLE001 - raised again in the worker that asked
                return RuntimeError(str(error))
            return by_address(self._servers[name])


def ask(address: str, name: str) -> Any:
    """Request the shared server `name` from the keeper at `address`. Raise Unavailable."""
    with Client(address) as connection:
        connection.send(name)
        answer = connection.recv()
    if isinstance(answer, Exception):
        raise answer
    return answer
