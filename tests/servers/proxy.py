"""A line between a client and a server that can go silent, or break at a chosen moment."""

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
    """Break a line at the first bytes from the client that hold `at`, once they have sent `after`.

    delivered: whether those bytes still reach the server, so that only its answer is lost.
    """

    after: bytes
    at: bytes
    delivered: bool


@dataclass(slots=True)
class _Line:
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
    """Listens on `port` of loopback once started; `cuts` counts the lines it broke."""

    host: str
    target: int
    port: int = field(default_factory=free_port)
    cut: Cut | None = None
    cuts: int = 0
    _lines: list[_Line] = field(default_factory=list)
    _listener: socket.socket | None = None

    def start(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stop(self) -> None:
        if self._listener is not None:
            # shutdown wakes the thread that waits in accept
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        for line in self._lines:
            line.close()

    def go_silent(self) -> None:
        """The lines there are carry nothing any more and say nothing about it; new ones work."""
        for line in self._lines:
            line.silent = True

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
                line = _Line(client, socket.create_connection((self.host, self.target)))
            except OSError:
                return
            self._lines.append(line)
            for work in (self._forth, self._back):
                threading.Thread(target=work, args=(line,), daemon=True).start()

    def _forth(self, line: _Line) -> None:
        for data in _received(line.client):
            if line.silent:
                continue
            cut = self.cut
            line.armed = line.armed or (cut is not None and cut.after in data)
            if cut is not None and line.armed and cut.at in data:
                self.cut, self.cuts = None, self.cuts + 1
                if not cut.delivered:
                    break
                line.answer_lost = True
            _send(line.server, data)
        line.close()

    def _back(self, line: _Line) -> None:
        for data in _received(line.server):
            if line.answer_lost:
                break
            if not line.silent:
                _send(line.client, data)
        if not line.silent:
            line.close()


def _received(end: socket.socket) -> Iterator[bytes]:
    """What arrives, until the end or an error."""
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
