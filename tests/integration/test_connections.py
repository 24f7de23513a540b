"""The HTTP server under clients that hold connections: raw sockets on a real listener, shortened timeouts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from core.config import load_settings
from internal import bootstrap
from internal.api import connections, middleware
from internal.api.app import create_app
from internal.api.connections import Config, Throttle, max_connections, throttle_accept_errors
from tests.contract.databases import upgrade
from tests.integration.test_access import FIRST

WAIT_SECONDS = 30.0
"""Seconds until a test gives up; the timeouts under test are fractions of a second."""


class Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


@contextlib.asynccontextmanager
async def listening(folder: Path, **settings: Any) -> AsyncIterator[tuple[int, Config]]:
    """Serve the whole application on a free loopback port."""
    app = bootstrap.build(load_settings(_env_file=None, data_dir=folder / "data", **settings))
    await upgrade(app.database)
    await app.storage.start()
    await app.broker.start()
    await app.services.api_keys.ensure_configured()
    listener = socket.create_server(("127.0.0.1", 0))
    config = Config(create_app(app.settings, app.services), app.settings, lifespan="off", timeout_graceful_shutdown=1)
    server = Server(config)
    serve_api = asyncio.create_task(server.serve(sockets=[listener]))
    async with asyncio.timeout(WAIT_SECONDS):
        while not server.started:
            await asyncio.sleep(0.01)
    try:
        yield listener.getsockname()[1], config
    finally:
        server.should_exit = True
        await serve_api
        await app.stop()


Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(port: int, data: bytes = b"") -> Ends:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    return reader, writer


async def read_rest(ends: Ends) -> bytes:
    """Read until the server closes."""
    async with asyncio.timeout(WAIT_SECONDS):
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while data := await ends[0].read(65536):
                received += data
        ends[1].close()
        return received


async def trickle(ends: Ends, piece: bytes) -> bytes:
    """Write the piece repeatedly until the server closes."""

    async def write() -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                ends[1].write(piece)
                await ends[1].drain()
                await asyncio.sleep(0.02)

    writing = asyncio.create_task(write())
    try:
        return await read_rest(ends)
    finally:
        writing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writing


HEAD = b"Host: localhost\r\n"


async def test_silent_and_half_open_connections_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.3)
    async with listening(tmp_path) as (port, config):
        silent = [await connect(port, data) for data in (b"", b"GET", b"GET / HTTP/1.1\r\n" + HEAD) for _ in range(5)]
        answers = await asyncio.gather(*map(read_rest, silent))
        assert all(answer.startswith(b"HTTP/1.1 408 ") for answer in answers)
        async with asyncio.timeout(WAIT_SECONDS):
            while config.peers:
                await asyncio.sleep(0.01)


async def test_trickled_headers_do_not_extend_the_timeout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.3)
    async with listening(tmp_path) as (port, _):
        for start, piece in ((b"GET / HTTP/1.1\r\n" + HEAD, b"X: y\r\n"), (b"", b"\r\n")):
            assert (await trickle(await connect(port, start), piece)).startswith(b"HTTP/1.1 4")
        ends = await connect(port, b"GET /live HTTP/1.1\r\n" + HEAD + b"\r\n")
        assert b"200 OK" in await ends[0].readuntil(b"\r\n")
        assert b"408" in await trickle(ends, b"G")


async def test_idle_connections_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "IDLE_SECONDS", 0.2)
    async with listening(tmp_path) as (port, _):
        answer = await read_rest(await connect(port, b"GET /live HTTP/1.1\r\n" + HEAD + b"\r\n"))
        assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("framing", [b"Content-Length: 60000", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize(
    "target", [b"POST /api/v1/transcribe", b"POST /api/v1/nowhere", b"GET /api/v1/jobs", b"GET /live"]
)
async def test_a_connection_with_an_endless_body_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: bytes, framing: bytes
) -> None:
    monkeypatch.setattr(middleware, "BODY_SECONDS", 0.3)
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.3)
    async with listening(tmp_path) as (port, _):
        head = target + b" HTTP/1.1\r\n" + HEAD + b"Content-Type: application/json\r\n" + framing + b"\r\n\r\n"
        piece = b"1\r\n \r\n" if b"chunked" in framing else b" "
        assert (await trickle(await connect(port, head), piece)).startswith(b"HTTP/1.1 ")


@pytest.mark.parametrize(
    "target",
    [
        *("/api/v1/upload", "/api/transcribe", "/v1/audio/transcriptions", "/api/v1/transcribe", "/api/v1/uploads"),
        *("/api/v1/jobs/x/cancel", "/api/v1/jobs/x/start"),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
async def test_without_a_key_the_answer_precedes_the_body(tmp_path: Path, target: str, chunked: bool) -> None:
    framing = "Transfer-Encoding: chunked" if chunked else "Content-Length: 60000"
    async with listening(tmp_path, api_key=FIRST) as (port, _):
        head = f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{framing}\r\n\r\n"
        answer = await read_rest(await connect(port, head.encode()))
        assert answer.startswith(b"HTTP/1.1 401 ")
        assert b"connection: close" in answer.lower()
        assert b"UNAUTHORIZED" in answer or b"invalid_api_key" in answer


async def test_a_client_that_is_still_writing_receives_the_refusal(tmp_path: Path) -> None:
    async with listening(tmp_path, api_key=FIRST) as (port, _):
        head = b"POST /api/v1/upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        answer = await trickle(await connect(port, head), b"400\r\n" + b"x" * 1024 + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 401 ")
        assert answer.endswith(b"}")


async def test_a_client_that_reads_nothing_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "STALL_SECONDS", 0.3)

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(10_000):
            await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
            if not config.peers:
                return

    async with listening(tmp_path) as (port, config):
        config.loaded_app = endless
        _, writer = await connect(port, b"GET / HTTP/1.1\r\n" + HEAD + b"\r\n")
        async with asyncio.timeout(WAIT_SECONDS):
            while not config.peers:
                await asyncio.sleep(0.01)
            while config.peers:
                await asyncio.sleep(0.01)
        writer.close()


async def test_connections_beyond_the_limit_are_answered_and_closed(tmp_path: Path) -> None:
    async with listening(tmp_path, max_connections=16) as (port, config):
        config.proxies = []
        open_connections = [await connect(port) for _ in range(8)]
        async with asyncio.timeout(WAIT_SECONDS):
            while config.peers["127.0.0.1"] < 8:
                await asyncio.sleep(0.01)
        answer = await read_rest(await connect(port, b"GET /live HTTP/1.1\r\n" + HEAD + b"\r\n"))
        assert answer.startswith(b"HTTP/1.1 503 ")
        for _, writer in open_connections:
            writer.close()
        async with asyncio.timeout(WAIT_SECONDS):
            while config.peers["127.0.0.1"]:
                await asyncio.sleep(0.01)
        ends = await connect(port, b"GET /live HTTP/1.1\r\nConnection: close\r\n" + HEAD + b"\r\n")
        assert (await read_rest(ends)).startswith(b"HTTP/1.1 200 ")


def test_connections_are_shared_among_peers_except_proxies() -> None:
    config = Config(object(), load_settings(_env_file=None, max_connections=8, forwarded_allow_ips="10.0.0.0/8"))
    config.peers.update({"192.0.2.1": 5, "192.0.2.2": 4, "10.1.2.3": 8})
    assert not config.room_for("192.0.2.1", 8)
    assert config.room_for("192.0.2.2", 8)
    assert config.room_for("10.1.2.3", 8)
    assert not config.room_for("10.1.2.3", 9)


def test_the_limit_of_open_files_bounds_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    for files, wanted, most in ((1024, 0, 768), (1024, 100, 100), (256, 2000, 192), (64, 0, 8), (10**6, 0, 2000)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, files=files: (files, files))
        assert max_connections(wanted) == most


async def test_running_out_of_files_logs_one_line_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    loop = asyncio.get_running_loop()
    throttle_accept_errors(loop)
    try:
        for _ in range(10_000):
            loop.call_exception_handler(
                {"message": connections.NO_FILES, "exception": OSError(24, "Too many open files")}
            )
    finally:
        loop.set_exception_handler(None)
    shown = "".join(capsys.readouterr())
    assert shown.count("cannot accept connections") == 1


def test_other_errors_of_the_loop_are_still_reported(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.new_event_loop()
    throttle_accept_errors(loop)
    with caplog.at_level(logging.ERROR):
        loop.call_exception_handler({"message": "something else"})
    loop.close()
    assert "something else" in caplog.text


def test_suppressed_events_are_counted() -> None:
    throttle = Throttle(60)
    assert [throttle.suppressed() for _ in range(3)] == [0, None, None]
    throttle._next = 0.0
    assert throttle.suppressed() == 2


async def test_dead_peers_are_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    notice = connections._enable_keep_alive

    def noticing(transport: asyncio.Transport) -> None:
        notice(transport)
        seen.append(transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    monkeypatch.setattr(connections, "_enable_keep_alive", noticing)
    async with listening(tmp_path) as (port, _):
        await read_rest(await connect(port, b"GET /live HTTP/1.1\r\nConnection: close\r\n" + HEAD + b"\r\n"))
    assert seen == [1]
