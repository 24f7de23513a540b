"""Connections of the HTTP server, with deadlines and limits that uvicorn lacks.

A connection is closed if the headers of a request take too long, if it is idle, if its client does not read the
response, or if an unread body keeps arriving after the response. Connections over the limit get a 503 and are closed.
"""

from __future__ import annotations

import asyncio
import ipaddress
import resource
import socket
import time
from collections import Counter
from typing import Any, cast

import h11
import structlog
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from core.config import Settings

log = structlog.get_logger(__name__)
HEADER_SECONDS = 10.0
"""Seconds for the headers of a request, from the start of the connection or the first byte of a later request."""
IDLE_SECONDS = 15
"""Seconds that a connection may be idle between two requests."""
STALL_SECONDS = 60.0
"""Seconds after which a client that does not read the response counts as gone."""
LINGER_SECONDS, LINGER_BYTES = 2.0, 1024 * 1024
"""Limits of reading on after the last response, so that a client that is still sending sees the response."""
BACKLOG = 128
"""Listen backlog. asyncio accepts up to this many connections at a time, regardless of the limits."""
MAX_CONNECTIONS, MIN_CONNECTIONS = 2000, 8
RESERVED_FILES = 64
"""File descriptors reserved for purposes other than connections; a quarter of the limit if that is more."""
LOG_INTERVAL = 60.0
"""Minimum seconds between two log lines about the same shortage."""
NO_FILES = "socket.accept() out of system resource"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
SLOW = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Config(uvicorn.Config):
    """uvicorn's configuration for the API and embedded processes. Each worker process gets a copy."""

    def __init__(self, app: Any, settings: Settings, **options: Any) -> None:
        super().__init__(
            app,
            http=Connection,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=IDLE_SECONDS,
            proxy_headers=bool(settings.forwarded_allow_ips),
            forwarded_allow_ips=list(settings.forwarded_allow_ips),
            **options,
        )
        self.max_connections = max_connections(settings.max_connections)
        self.proxies = [ipaddress.ip_network(address) for address in settings.forwarded_allow_ips]
        self.peers: Counter[str] = Counter()
        self.shortage = Throttle(LOG_INTERVAL)

    def room_for(self, peer: str, taken: int) -> bool:
        """Return whether the newest connection from `peer` may stay open.

        One address may use half of the connections, a trusted proxy all. taken: open connections, including this one.
        """
        return taken <= self.max_connections and (
            self.peers[peer] <= max(1, self.max_connections // 2) or self._is_proxy(peer)
        )

    def _is_proxy(self, peer: str) -> bool:
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return False
        return any(address in network for network in self.proxies)


def max_connections(setting: int) -> int:
    """Return the number of connections to accept, at most what open files allow. setting: 0 for MAX_CONNECTIONS."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    available = MAX_CONNECTIONS if files == resource.RLIM_INFINITY else files - max(RESERVED_FILES, files // 4)
    return max(MIN_CONNECTIONS, min(setting or MAX_CONNECTIONS, available))


class Throttle:
    """Lets one event through every `seconds` and counts those it suppresses."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._next, self._suppressed = seconds, float("-inf"), 0

    def suppressed(self) -> int | None:
        """Return the number of events suppressed since the last one let through; None if this one is suppressed."""
        if time.monotonic() < self._next:
            self._suppressed += 1
            return None
        self._next = time.monotonic() + self._seconds
        count, self._suppressed = self._suppressed, 0
        return count


def throttle_accept_errors(loop: asyncio.AbstractEventLoop) -> None:
    """Log asyncio's reports of failed accepts once a minute; without free descriptors there are thousands a second."""
    previous_handler, shortage = loop.get_exception_handler(), Throttle(LOG_INTERVAL)

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if context.get("message") == NO_FILES:
            missed = shortage.suppressed()
            if missed is not None:
                hint = "cannot accept connections: raise `ulimit -n`, or set a lower MAX_CONNECTIONS"
                log.error(hint, action="accept_failed", reason=str(context.get("exception")), suppressed=missed)
        elif previous_handler is not None:
            previous_handler(loop, context)
        else:
            loop.default_exception_handler(context)

    loop.set_exception_handler(handle)


class Connection(H11Protocol):
    """One connection of a client. `config` is a `Config`."""

    _peer = ""
    _left: int | None = None  # bytes still accepted after the last response; None: not closing
    _deadline: asyncio.TimerHandle | None = None
    _stall: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._socket = transport
        super().connection_made(cast(asyncio.Transport, _Closing(self, transport)))
        _enable_keep_alive(transport)
        config = cast(Config, self.config)
        self._peer = self.client[0] if self.client else ""
        config.peers[self._peer] += 1
        if config.room_for(self._peer, len(self.connections)):
            self._deadline = self.loop.call_later(HEADER_SECONDS, self._too_slow)
            return
        missed = config.shortage.suppressed()
        if missed is not None:
            limits = {"connections": len(self.connections), "of_this_peer": config.peers[self._peer]}
            log.warning("connection refused", action="connection_refused", peer=self._peer, suppressed=missed, **limits)
        if len(self.connections) > config.max_connections + config.max_connections // 8:
            transport.abort()
        else:
            transport.write(BUSY)
            self._linger()

    def connection_lost(self, exc: Exception | None) -> None:
        peers = cast(Config, self.config).peers
        peers[self._peer] -= 1
        if peers[self._peer] <= 0:
            del peers[self._peer]
        for timer in (self._deadline, self._stall):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                self._socket.abort()
            return
        super().data_received(data)
        self._watch()

    def _watch(self) -> None:
        """Set a fixed deadline for the headers of a request, or for the rest of a body whose response was sent."""
        if self._left is not None:
            return
        client_state = self.conn.their_state
        incomplete = client_state is h11.IDLE or (client_state is h11.SEND_BODY and self.conn.our_state is h11.DONE)
        if incomplete and self._deadline is None:
            self._deadline = self.loop.call_later(HEADER_SECONDS, self._too_slow)
        elif not incomplete and self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        if self.conn.our_state is h11.IDLE and not self._socket.is_closing():
            self._socket.write(SLOW)
        self._finish()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start_stall_timer()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _start_stall_timer(self) -> None:
        if self._stall is None:
            self._stall = self.loop.call_later(STALL_SECONDS, self._socket.abort)

    def close_after_response(self) -> None:
        """Close the connection; if the client is still sending, only after LINGER_SECONDS to read the response."""
        sending = self.conn.their_state in (h11.SEND_BODY, h11.ERROR)
        if sending and self._left is None and not self._socket.is_closing():
            self._linger()
        else:
            self._finish()

    def _linger(self) -> None:
        self._left = LINGER_BYTES
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self.loop.call_later(LINGER_SECONDS, self._finish)
        self._socket.write_eof()
        self.flow.resume_reading()

    def _finish(self) -> None:
        self._socket.close()
        if self._socket.get_write_buffer_size():
            self._start_stall_timer()


class _Closing:
    """A transport whose `close` goes through `Connection.close_after_response`."""

    def __init__(self, connection: Connection, transport: asyncio.Transport) -> None:
        self._connection, self._transport = connection, transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        self._connection.close_after_response()


def _enable_keep_alive(transport: asyncio.Transport) -> None:
    """Detect a peer that has vanished within a minute, even on an idle event stream."""
    peer = transport.get_extra_info("socket")
    if peer is None or peer.family not in (socket.AF_INET, socket.AF_INET6):
        return
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", 30),
        ("TCP_KEEPINTVL", 10),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", 60_000),
    ):
        if hasattr(socket, option):
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
