"""A TCP proxy between a client and a server that can go silent or break at a chosen moment."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.servers.base import free_port

BLOCK = 65_536


@dataclass(frozen=True, slots=True)
class Cut:
    """A rule that breaks a connection at the first client bytes that contain `at`, after some that contain `after`.

    delivered: those bytes still reach the server, so that only its answer is lost.
    """

    after: bytes
    at: bytes
    delivered: bool


@dataclass(slots=True)
class _Connection:
    client: socket.socket
    server: socket.socket
    silent: bool = False
    armed: bool = False
    answer_lost: bool = False

    def close(self) -> None:
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@dataclass(slots=True)
class Proxy:
    """A proxy that listens on `port` of loopback once started; `cuts` counts the connections it broke."""

    host: str
    target: int
    port: int = field(default_factory=free_port)
    cut: Cut | None = None
    cuts: int = 0
    _connections: list[_Connection] = field(default_factory=list)
    _listener: socket.socket | None = None

    def start(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stop(self) -> None:
        if self._listener is not None:
            # shutdown wakes the thread blocked in accept
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        for connection in self._connections:
            connection.close()

    def go_silent(self) -> None:
        """Silently drop all traffic of the open connections; new ones work."""
        for connection in self._connections:
            connection.silent = True

    def break_connections(self) -> None:
        """Close the open connections; new ones work."""
        for connection in self._connections:
            connection.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
                connection = _Connection(client, socket.create_connection((self.host, self.target)))
            except OSError:
                return
            self._connections.append(connection)
            for pump in (self._to_server, self._to_client):
                threading.Thread(target=pump, args=(connection,), daemon=True).start()

    def _to_server(self, connection: _Connection) -> None:
        for data in _received(connection.client):
            if connection.silent:
                continue
            cut = self.cut
            connection.armed = connection.armed or (cut is not None and cut.after in data)
            if cut is not None and connection.armed and cut.at in data:
                self.cut, self.cuts = None, self.cuts + 1
                if not cut.delivered:
                    break
                connection.answer_lost = True
            _send(connection.server, data)
        connection.close()

    def _to_client(self, connection: _Connection) -> None:
        for data in _received(connection.server):
            if connection.answer_lost:
                break
            if not connection.silent:
                _send(connection.client, data)
        if not connection.silent:
            connection.close()


def _received(end: socket.socket) -> Iterator[bytes]:
    """Yield the received bytes until EOF or an error."""
    while True:
        try:
            data = end.recv(BLOCK)
        except OSError:
            return
        if not data:
            return
        yield data


def _send(end: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):
        end.sendall(data)
