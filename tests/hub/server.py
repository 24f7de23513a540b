"""A model hub on loopback: it redirects to a signed address on another port, and has bad days.

The hub answers `/{owner}/{repository}/resolve/{revision}/{file}` with a redirect that has `X-Linked-Etag` and
`X-Linked-Size`; the storage answers the signed address with the bytes, ranges and `If-Range` included. A test puts
misbehaviour into `hub_days` and `storage_days`: each request takes the next one, and the rest are answered well.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REPOSITORY = "/ggerganov/whisper.cpp/resolve/main/"


@dataclass
class StoredFile:
    """A file of the hub. etag: of the storage's response; None: the SHA-256."""

    content: bytes
    etag: str | None = None

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def storage_etag(self) -> str:
        return f'"{self.sha256}"' if self.etag is None else self.etag


@dataclass(frozen=True)
class Seen:
    """A request that arrived. where: `hub` or `storage`."""

    where: str
    path: str
    headers: dict[str, str]


Day = Callable[["Handler"], None]
"""Answers one request badly."""


@dataclass
class FakeHub:
    """The two servers. files: by path; gated: paths that require a token."""

    files: dict[str, StoredFile] = field(default_factory=dict)
    hub_days: list[Day] = field(default_factory=list)
    storage_days: list[Day] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    token: str = ""
    linked: bool = True
    release: threading.Event = field(default_factory=threading.Event)
    hub_port: int = 0
    storage_port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.hub_port}"

    @property
    def storage_url(self) -> str:
        return f"http://127.0.0.1:{self.storage_port}"

    def add(self, name: str, content: bytes, repository: str = REPOSITORY, etag: str | None = None) -> StoredFile:
        file = self.files[repository + name] = StoredFile(content, etag)
        return file

    def requests(self, where: str) -> list[Seen]:
        return [request for request in self.seen if request.where == where]


class Handler(BaseHTTPRequestHandler):
    """A request to either server."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        hub, where = self.server.hub, self.server.where
        hub.seen.append(Seen(where, self.path, {name.lower(): value for name, value in self.headers.items()}))
        days = hub.hub_days if where == "hub" else hub.storage_days
        if days:
            days.pop(0)(self)
        elif where == "hub":
            self.redirect()
        else:
            self.serve()

    @property
    def file(self) -> StoredFile | None:
        return self.server.hub.files.get(self.path.partition("?")[0])

    def redirect(self, location: str | None = None, status: int = 302) -> None:
        hub, file = self.server.hub, self.file
        if hub.token and self.headers.get("authorization") != f"Bearer {hub.token}":
            self.status(401)
        elif file is None and location is None:
            self.status(404)
        else:
            headers = {"Location": location or f"{hub.storage_url}{self.path}?Signature=secret"}
            if file is not None and hub.linked:
                headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.content))}
            self.answer(status, b"", headers)

    def serve(self, *, ranges: bool = True) -> None:
        file = self.file
        if file is None or "Signature=secret" not in self.path:
            self.status(403)
            return
        start = self.range_start(file) if ranges else 0
        if start > len(file.content) or (start and start == len(file.content)):
            self.answer(416, b"", {"Content-Range": f"bytes */{len(file.content)}"})
            return
        headers = {"ETag": file.storage_etag, "Accept-Ranges": "bytes"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(file.content) - 1}/{len(file.content)}"
        self.answer(206 if start else 200, file.content[start:], headers)

    def range_start(self, file: StoredFile) -> int:
        condition = self.headers.get("if-range")
        asked = self.headers.get("range", "")
        if not asked or (condition is not None and condition != file.storage_etag):
            return 0
        return int(asked.removeprefix("bytes=").removesuffix("-"))

    def status(self, code: int, **headers: str) -> None:
        self.answer(code, b"no", {name.replace("_", "-"): value for name, value in headers.items()})

    def answer(self, code: int, body: bytes, headers: dict[str, str], length: int | None = None) -> None:
        """Send a response; length: the Content-Length if it is not that of the body."""
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def drop(self) -> None:
        """Close the connection without a word more."""
        with contextlib.suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: FakeHub, where: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.hub, self.where = hub, where

    def handle_error(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def fake_hub() -> Iterator[FakeHub]:
    hub = FakeHub()
    servers = [Server(hub, "hub"), Server(hub, "storage")]
    hub.hub_port, hub.storage_port = (server.server_address[1] for server in servers)
    for server in servers:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield hub
    finally:
        hub.release.set()
        for server in servers:
            server.shutdown()
            server.server_close()


# -- bad days ---------------------------------------------------------------------------------------------------------
def cut(count: int) -> Day:
    """Send `count` bytes of what was asked for, then close the connection."""

    def day(handler: Handler) -> None:
        file = handler.file
        assert file is not None
        start = handler.range_start(file)
        headers = {"ETag": file.storage_etag}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(file.content) - 1}/{len(file.content)}"
        rest = file.content[start:]
        handler.answer(206 if start else 200, rest[:count], headers, length=len(rest))
        handler.drop()

    return day


def stall(count: int) -> Day:
    """Send `count` bytes, then nothing until the test is over."""

    def day(handler: Handler) -> None:
        file = handler.file
        assert file is not None
        handler.answer(200, file.content[:count], {"ETag": file.storage_etag}, length=len(file.content))
        handler.wfile.flush()
        handler.server.hub.release.wait(60)
        handler.drop()

    return day


def slow(handler: Handler) -> None:
    """Send the file in small blocks until the test is over, 20 of them a second."""
    file = handler.file
    assert file is not None
    with contextlib.suppress(OSError):
        handler.answer(200, file.content[:100_000], {"ETag": file.storage_etag}, length=len(file.content))
        for start in range(100_000, len(file.content), 2000):
            if handler.server.hub.release.wait(0.05):
                break
            handler.wfile.write(file.content[start : start + 2000])
    handler.drop()


def without_length(handler: Handler) -> None:
    """Send the file without its length: it ends with the connection."""
    file = handler.file
    assert file is not None
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    with contextlib.suppress(OSError):
        handler.wfile.write(file.content)
    handler.drop()


def respond(code: int, **headers: str) -> Day:
    return lambda handler: handler.status(code, **headers)


def ignore_ranges(handler: Handler) -> None:
    handler.serve(ranges=False)


def wrong_content_range(handler: Handler) -> None:
    """Claim to send another part of the file than was asked for."""
    file = handler.file
    assert file is not None
    body = file.content[7:]
    headers = {"ETag": file.storage_etag, "Content-Range": f"bytes 7-{len(file.content) - 1}/{len(file.content)}"}
    handler.answer(206, body, headers)


def body(content: bytes, **headers: str) -> Day:
    """Answer with other bytes than those of the file."""
    return lambda handler: handler.answer(
        200, content, {name.replace("_", "-"): value for name, value in headers.items()}
    )


def compressed(handler: Handler) -> None:
    file = handler.file
    assert file is not None
    handler.answer(200, gzip.compress(file.content), {"ETag": file.storage_etag, "Content-Encoding": "gzip"})


def redirect_to(location: str, status: int = 302) -> Day:
    return lambda handler: handler.redirect(location, status)


def close(handler: Handler) -> None:
    handler.drop()
