"""Outbound requests: no access to internal addresses, limits on time and size."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpcore
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.outbound import Limits, Outbound, Refused, Resolver, TooLarge, Unreachable, Unresolved, is_public
from tests.servers.base import free_port

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
PUBLIC = "93.184.215.14"
OTHER = "151.101.1.69"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
LIMITS = Limits(total=5.0, connect=2.0)

HOSTILE = (
    *("http://127.0.0.1/", "http://127.1/", "http://2130706433/", "http://0x7f000001/", "http://0x7f.1/"),
    *("http://0177.0.0.1/", "http://017700000001/", "http://127.0.0.1./", "http://0/", "http://0.0.0.0/"),
    *("http://10.0.0.1/", "http://172.16.0.1/", "http://192.168.1.1/", "http://100.64.0.1/", "http://198.18.0.1/"),
    *("http://169.254.169.254/latest/meta-data/", "http://0xa9fea9fe/", "http://168.63.129.16/"),
    *("http://192.0.0.192/", "http://192.88.99.1/", "http://203.0.113.7/", "http://224.0.0.1/", "http://240.0.0.1/"),
    *("http://255.255.255.255/", "http://[::]/", "http://[::1]/", "http://[::127.0.0.1]/", "http://[fe80::1]/"),
    *("http://[fe80::1%25eth0]/", "http://[2606:4700::1%25eth0]/", "http://[fd00:ec2::254]/", "http://[fec0::1]/"),
    *("http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/", "http://[::ffff:8.8.8.8]/", "http://[ff02::1]/"),
    *("http://[64:ff9b::7f00:1]/", "http://[64:ff9b:1::7f00:1]/", "http://[2002:7f00:1::]/", "http://[2001::1]/"),
    *("http://[2001:db8::1]/", "http://[3fff::1]/", "http://[5f00::1]/", "http://[2001:1ff::1]/"),
    *("http://a.example:22/", "https://a.example:8443/", "http://a.example:0/", "http://a.example:99999/"),
    *("ftp://a.example/", "file:///etc/passwd", "gopher://a.example/", "data:,x", "a.example", "//a.example/", ""),
    *("http://user:pass@a.example/", "http://user@a.example/", "http://:@a.example/", "http://8.8.8.8@127.0.0.1/"),
    *("http://a.example#@127.0.0.1:80/@x:y@127.0.0.1\\", "http://a.example\\@127.0.0.1/", "http://127.0.0.1#a.example"),
    *("http:///path", "http://", "http:a.example", "http://:80/", "http://./", "http://a..example/", "http://[/"),
    *(
        " http://a.example/",
        "http://a.example/ x",
        "http://a.example\t/",
        "http://a.example/\r\nX: y",
        "http://a\x00b/",
    ),
    *("http://127。0。0。1/", "http://①②⑦.0.0.1/", "http://%31%32%37.0.0.1/", "http://a.example%2f@127.0.0.1/"),
    *("http://[127.0.0.1]/", "http://[v1.x]/", f"http://{'a' * 64}.example/", f"http://{'a.' * 127}example/"),
)


SOON = 20.0
"""Seconds far above the limits of these tests, even on a busy machine, and far below the timeouts without them."""


@asynccontextmanager
async def run_server(answer: Answer, certificate: Path | None = None) -> AsyncIterator[str]:
    """Run a server on loopback that answers and disconnects; yield its host:port."""
    context = None
    if certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)

    handlers: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if task := asyncio.current_task():
            handlers.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await answer(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", port := free_port(), ssl=context)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.close()
        for task in handlers:
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)


def reply(data: bytes, heads: list[bytes] | None = None) -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if heads is not None:
            heads.append(head)
        writer.write(data)
        await writer.drain()

    return answer


def reply_forever(data: bytes, part: bytes, pause: float) -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reply(data)(reader, writer)
        while True:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)

    return answer


def resolver(**addresses: list[str]) -> Resolver:
    """Return a resolver for these names (`_` for `.`) that fails for others like the real one."""

    def resolve(host: str, port: int) -> list[str]:
        result = addresses.get(host.replace(".", "_"))
        if result is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return result

    return resolve


def forbid_lookup(host: str, port: int) -> list[str]:
    raise AssertionError(f"{host} must not be looked up")


@asynccontextmanager
async def open_client(*allowed: str, resolve: Resolver | None = None) -> AsyncIterator[Outbound]:
    client = Outbound(allowed, resolve)
    try:
        yield client
    finally:
        await client.stop()


async def fetch(client: Outbound, url: str, limits: Limits = LIMITS) -> tuple[int, bytes]:
    async with client.get(url, limits) as response:
        return response.status, b"".join([part async for part in response.body()])


class FakeInternet:
    """A fake internet: records the addresses connected to and routes each to a server on loopback."""

    def __init__(self) -> None:
        self.connections: list[tuple[str, int]] = []
        self.routes: dict[str, str] = {}
        self.silent: set[str] = set()


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch) -> FakeInternet:
    fake, real = FakeInternet(), httpcore.AnyIOBackend.connect_tcp

    async def connect(self: httpcore.AnyIOBackend, host: str, port: int, *rest: Any) -> httpcore.AsyncNetworkStream:
        fake.connections.append((host, port))
        if host in fake.silent:
            with suppress(TimeoutError):
                async with asyncio.timeout(rest[0]):
                    await asyncio.Event().wait()
            raise httpcore.ConnectTimeout("no answer")
        if host not in fake.routes:
            raise httpcore.ConnectError("no route")
        address, _, number = fake.routes[host].partition(":")
        return await real(self, address, int(number), *rest)

    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", connect)
    return fake


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for media.example, in one file with its key."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")
    path = tmp_path_factory.mktemp("tls") / "media.pem"
    arguments = (
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=media.example -addext subjectAltName=DNS:media.example"
    )
    completed = subprocess.run(
        ["openssl", *arguments.split(), "-keyout", "-"], capture_output=True, check=True, timeout=60
    )
    path.write_bytes(completed.stdout)
    return path


# -- addresses ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("url", HOSTILE)
async def test_hostile_urls_are_refused_without_a_lookup(url: str, internet: FakeInternet) -> None:
    async with open_client(resolve=forbid_lookup) as client:
        with pytest.raises(Refused, match=r"^(the|only) "):
            client.check(url)
        with pytest.raises(Refused):
            await fetch(client, url)
        with pytest.raises(Refused):
            await client.post(url, b"{}", {}, LIMITS)
    assert not internet.connections


@pytest.mark.parametrize(
    "url",
    [
        *("http://a.example", "HTTPS://A.Example:443/x?y=z#@127.0.0.1", "http://a.example:80/", "http://a_b.example./"),
        *("http://8.8.8.8/", "http://[2606:4700:4700::1111]/", "http://bücher.example/", "http://127.0.0.1.example/"),
    ],
)
async def test_ordinary_urls_are_allowed(url: str) -> None:
    async with open_client(resolve=forbid_lookup) as client:
        client.check(url)


@given(st.text(max_size=30), st.sampled_from(["", "http://", "https://[", "http://a.example/", "http://a.example:"]))
def test_arbitrary_text_is_allowed_or_refused(text: str, before: str) -> None:
    with suppress(Refused):
        CHECKED.check(before + text)


CHECKED = Outbound(resolve=forbid_lookup)


@pytest.mark.parametrize("address", ["", "a.example", "1.2.3", "01.2.3.4", "8.8.8.8%eth0", "2606:4700::1%eth0"])
def test_invalid_addresses_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "223.255.255.255", "2606:4700:4700::1111", "2a00:1450:4001::1"])
def test_public_addresses(address: str) -> None:
    assert is_public(address)


def test_a_refusal_reveals_no_internal_address() -> None:
    with pytest.raises(Refused) as refused:
        CHECKED.check("http://2130706433/")
    assert "127" not in str(refused.value)


# -- look-ups ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "addresses",
    [
        *(["169.254.169.254"], ["127.0.0.1"], ["::1"], [PUBLIC, "10.0.0.7"], ["10.0.0.7", PUBLIC]),
        *([PUBLIC, "::ffff:10.0.0.7"], [PUBLIC, "fe80::1%2"], [PUBLIC, OTHER, OTHER, OTHER, "127.0.0.1"]),
    ],
)
async def test_a_name_with_one_internal_address_is_refused(addresses: list[str], internet: FakeInternet) -> None:
    async with open_client(resolve=resolver(metadata_google_internal=addresses)) as client:
        with pytest.raises(Unresolved):
            await fetch(client, "http://metadata.google.internal/")
    assert not internet.connections


@pytest.mark.parametrize("host", ["localhost", "localhost.", "LOCALHOST"])
async def test_localhost_is_refused_by_the_real_lookup(host: str) -> None:
    async with run_server(reply(OK)), open_client() as client:
        with pytest.raises((Refused, Unreachable)):
            await fetch(client, f"http://{host}/")


async def test_connections_use_the_checked_address_despite_dns_rebinding(internet: FakeInternet) -> None:
    answers = [[PUBLIC], ["127.0.0.1"]]
    resolved: list[str] = []

    def resolve_once(host: str, port: int) -> list[str]:
        resolved.append(host)
        return answers[len(resolved) - 1]

    async with run_server(reply(OK)) as server, open_client(resolve=resolve_once) as client:
        internet.routes[PUBLIC] = server
        assert await fetch(client, "http://a.example/") == (200, b"hello")
        assert (resolved, internet.connections) == (["a.example"], [(PUBLIC, 80)])
        with pytest.raises((Refused, Unresolved)):
            await fetch(client, "http://a.example/")
    assert internet.connections == [(PUBLIC, 80)]


async def test_the_next_address_is_tried_if_one_fails(internet: FakeInternet) -> None:
    async with run_server(reply(OK)) as server, open_client(resolve=resolver(a_example=[PUBLIC, OTHER])) as client:
        internet.routes[OTHER] = server
        assert (await fetch(client, "http://a.example/"))[0] == 200
    assert internet.connections == [(PUBLIC, 80), (OTHER, 80)]


async def test_a_silent_address_leaves_time_for_the_next(internet: FakeInternet) -> None:
    async with run_server(reply(OK)) as server, open_client(resolve=resolver(a_example=[PUBLIC, OTHER])) as client:
        internet.silent, internet.routes[OTHER] = {PUBLIC}, server
        assert (await fetch(client, "http://a.example/", Limits(total=20.0, connect=2.0)))[0] == 200


async def test_no_more_than_three_addresses_are_tried(internet: FakeInternet) -> None:
    async with open_client(resolve=resolver(a_example=[PUBLIC] * 9)) as client:
        with pytest.raises(Unreachable):
            await fetch(client, "http://a.example/")
    assert len(internet.connections) == 3


async def test_unknown_names_are_unreachable(internet: FakeInternet) -> None:
    async with open_client(resolve=resolver(empty_example=[])) as client:
        for host in ("a.example", "empty.example"):
            with pytest.raises(Unreachable):
                await fetch(client, f"http://{host}/")


async def test_internal_and_missing_names_have_the_same_error(internet: FakeInternet) -> None:
    """A different error would reveal the names that an internal name server resolves."""

    def resolve(host: str, port: int) -> list[str]:
        if host == "inside.example":
            return ["10.0.0.7"]
        if host == "mixed.example":
            return [PUBLIC, "fd00::1"]
        if host == "empty.example":
            return []
        raise socket.gaierror(socket.EAI_AGAIN if host == "later.example" else socket.EAI_NONAME, host)

    errors = []
    async with open_client(resolve=resolve) as client:
        for name in ("inside", "mixed", "empty", "later", "missing"):
            with pytest.raises(Exception) as caught:
                await fetch(client, f"http://{name}.example/")
            errors.append((type(caught.value), str(caught.value)))
    assert len(set(errors)) == 1
    assert not internet.connections


async def test_a_slow_lookup_ends_at_the_connect_timeout() -> None:
    release = threading.Event()

    def slow(host: str, port: int) -> list[str]:
        release.wait(60)
        return [PUBLIC]

    async with open_client(resolve=slow) as client:
        started = time.monotonic()
        try:
            with pytest.raises(Unreachable):
                await fetch(client, "http://a.example/", Limits(total=60.0, connect=0.2))
            assert time.monotonic() - started < SOON
        finally:
            release.set()


async def test_tls_and_the_host_header_use_the_name(internet: FakeInternet) -> None:
    hellos: list[bytes] = []
    heads: list[bytes] = []

    async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hellos.append(await reader.read(4096))

    async with (
        run_server(hello) as tls,
        run_server(reply(OK, heads)) as plain,
        open_client(resolve=lambda *_: [PUBLIC]) as client,
    ):
        internet.routes[PUBLIC] = tls
        with pytest.raises(Unreachable):
            await fetch(client, "https://media.example/")
        internet.routes[PUBLIC] = plain
        await fetch(client, "http://media.example/a%20b?c=d#e")
    assert b"media.example" in hellos[0]
    assert heads[0].startswith(b"GET /a%20b?c=d HTTP/1.1\r\n")
    assert b"Host: media.example\r\n" in heads[0]
    assert b"Accept-Encoding: identity\r\n" in heads[0]


@pytest.mark.parametrize("name", ["media.example", "other.example"])
@pytest.mark.parametrize("trusted", [True, False])
async def test_certificates_are_checked_against_the_name(
    name: str, trusted: bool, certificate: Path, internet: FakeInternet, monkeypatch: pytest.MonkeyPatch
) -> None:
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with run_server(reply(OK), certificate) as server, open_client(resolve=lambda *_: [PUBLIC]) as client:
        internet.routes[PUBLIC] = server
        if trusted and name == "media.example":
            assert await fetch(client, f"https://{name}/") == (200, b"hello")
        else:
            with pytest.raises(Unreachable, match="trusted TLS"):
                await fetch(client, f"https://{name}/")


# -- allowed internal hosts --------------------------------------------------------------------------------------------
async def test_only_the_listed_host_and_port_are_allowed() -> None:
    async with run_server(reply(OK)) as server, run_server(reply(OK)) as other_server:
        port = server.rpartition(":")[2]
        async with open_client(server, f"MinIO:{port}", "[::1]:9000", resolve=lambda *_: ["127.0.0.1"]) as client:
            assert await fetch(client, f"http://{server}/") == (200, b"hello")
            assert await fetch(client, f"http://MINIO:{port}/") == (200, b"hello")
            client.check("http://[::1]:9000/")
            for url in (
                other_server,
                f"localhost:{port}",
                f"127.1:{port}",
                f"minio.:{port}",
                "minio",
                "[::1]",
                f"u@{server}",
            ):
                with pytest.raises((Refused, Unresolved)):
                    await fetch(client, f"http://{url}/")


async def test_the_port_defaults_to_the_one_of_the_scheme() -> None:
    async with open_client("minio:443", "127.0.0.1:80") as client:
        client.check("https://minio/")
        client.check("http://127.0.0.1/")
        with pytest.raises(Refused):
            client.check("https://127.0.0.1/")


# -- redirects ---------------------------------------------------------------------------------------------------------
def redirect_to(*locations: str, status: int = 302) -> Answer:
    """Answer each request with the next location; repeat the last one."""
    remaining = list(locations)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        location = remaining.pop(0) if len(remaining) > 1 else remaining[0]
        head = f"HTTP/1.1 {status} Found\r\nContent-Length: 0\r\n"
        await reply(f"{head}Location: {location}\r\n\r\n".encode() if location else OK)(reader, writer)

    return answer


@pytest.mark.parametrize(
    "location",
    [
        *("http://127.0.0.1/", "//169.254.169.254/", "http://inside.example/", "http://a.example:22/", "file:///x"),
        *("http://u:p@a.example/", "http://[", "http://a.example:x/", "http://[::ffff:127.0.0.1]/"),
    ],
)
async def test_redirects_are_checked_like_any_url(location: str, internet: FakeInternet) -> None:
    names = resolver(a_example=[PUBLIC], inside_example=["10.0.0.7"])
    async with run_server(redirect_to(location)) as server, open_client(resolve=names) as client:
        internet.routes[PUBLIC] = server
        with pytest.raises((Refused, Unresolved)):
            await fetch(client, "http://a.example/")
    assert internet.connections == [(PUBLIC, 80)]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_each_redirect_has_its_own_lookup(status: int, internet: FakeInternet) -> None:
    names = resolver(a_example=[PUBLIC], b_example=[OTHER])
    server_answer = redirect_to("/x y", "http://b.example/z", "", status=status)
    async with run_server(server_answer) as server, open_client(resolve=names) as client:
        internet.routes = {PUBLIC: server, OTHER: server}
        assert await fetch(client, "http://a.example/") == (200, b"hello")
    assert internet.connections == [(PUBLIC, 80), (PUBLIC, 80), (OTHER, 80)]


async def test_a_redirect_loop_ends_after_five_redirects() -> None:
    heads: list[bytes] = []
    loop = reply(b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", heads)
    async with run_server(loop) as server, open_client(server) as client:
        with pytest.raises(Refused, match="too many redirects"):
            await fetch(client, f"http://{server}/")
    assert len(heads) == 6


async def test_five_redirects_are_followed() -> None:
    async with run_server(redirect_to(*("/",) * 5, "")) as server, open_client(server) as client:
        assert await fetch(client, f"http://{server}/") == (200, b"hello")


async def test_a_redirect_without_a_location_is_returned() -> None:
    async with (
        run_server(reply(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n")) as server,
        open_client(server) as client,
    ):
        assert await fetch(client, f"http://{server}/") == (302, b"")


# -- answers -----------------------------------------------------------------------------------------------------------
async def test_error_statuses_are_returned_to_the_caller() -> None:
    answer = b"HTTP/1.1 403 Go Away\r\nContent-Length: 2\r\nX-Why: no\r\nContent-Encoding: identity\r\n\r\nno"
    async with (
        run_server(reply(answer)) as server,
        open_client(server) as client,
        client.get(f"http://{server}/", LIMITS) as response,
    ):
        assert (response.status, response.reason, response.headers["x-why"]) == (403, "Go Away", "no")
        assert [part async for part in response.body()] == [b"no"]


async def test_an_undecodable_reason_phrase_is_replaced() -> None:
    answer = b"HTTP/1.1 404 \xe9\xff\r\nContent-Length: 0\r\n\r\n"
    async with (
        run_server(reply(answer)) as server,
        open_client(server) as client,
        client.get(f"http://{server}/", LIMITS) as response,
    ):
        assert (response.status, response.reason) == (404, "\ufffd\ufffd")


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip", "unheard-of"])
async def test_encoded_answers_are_refused(encoding: str) -> None:
    answer = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: 5\r\n\r\nhello"
    async with run_server(reply(answer.encode())) as server, open_client(server) as client:
        with pytest.raises(Refused, match="compressed"):
            await fetch(client, f"http://{server}/")


@pytest.mark.parametrize(
    "answer",
    [
        *(b"", b"HTTP/1.1 200 OK\r\nContent-Le", b"220 smtp.example ESMTP\r\n", b"\x16\x03\x01\x00\x05hello"),
        *(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello"),
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000,
    ],
)
async def test_broken_answers_are_unreachable(answer: bytes) -> None:
    async with run_server(reply(answer)) as server, open_client(server) as client:
        with pytest.raises(Unreachable):
            await fetch(client, f"http://{server}/")


async def test_a_closed_port_is_unreachable() -> None:
    async with open_client(f"127.0.0.1:{(port := free_port())}") as client:
        with pytest.raises(Unreachable, match=r"^the host ") as unreachable:
            await fetch(client, f"http://127.0.0.1:{port}/")
    assert "127" not in str(unreachable.value)


# -- limits ------------------------------------------------------------------------------------------------------------
HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
SLOW_ANSWERS = {
    "body": reply_forever(HEAD, b"x", 0.1),
    "head": reply_forever(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", 0.1),
    "interim": reply_forever(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n", 0.1),
    "silence": reply_forever(b"", b"", 0.1),
    "flood": reply_forever(HEAD, b"x" * 65536, 0.0),
}


@pytest.mark.parametrize("what", SLOW_ANSWERS)
async def test_no_answer_exceeds_the_total_timeout(what: str) -> None:
    async with run_server(SLOW_ANSWERS[what]) as server, open_client(server) as client:
        started = time.monotonic()
        with pytest.raises(Unreachable):
            await fetch(client, f"http://{server}/", Limits(total=0.6))
        assert 0.5 < time.monotonic() - started < SOON


async def test_redirects_share_one_total_timeout() -> None:
    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.25)
        await redirect_to("/")(reader, writer)

    async with run_server(slowly) as server, open_client(server) as client:
        with pytest.raises(Unreachable):
            await fetch(client, f"http://{server}/", Limits(total=0.6))


async def test_a_silent_server_ends_at_the_read_timeout() -> None:
    async with run_server(SLOW_ANSWERS["silence"]) as server, open_client(server) as client:
        started = time.monotonic()
        with pytest.raises(Unreachable):
            await fetch(client, f"http://{server}/", Limits(total=60.0, read=0.3))
        assert time.monotonic() - started < SOON


async def test_an_endless_body_ends_at_the_size_limit() -> None:
    received = 0
    async with run_server(SLOW_ANSWERS["flood"]) as server, open_client(server) as client:
        with pytest.raises(TooLarge):
            async with client.get(f"http://{server}/", Limits(total=5.0, max_bytes=100_000)) as response:
                async for part in response.body():
                    received += len(part)
    assert received <= 100_000


async def test_a_content_length_above_the_limit_is_refused_at_once() -> None:
    answer, limits = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhel", Limits(total=1.0, max_bytes=8)
    async with run_server(reply_forever(answer, b"", 0.1)) as server, open_client(server) as client:
        with pytest.raises(TooLarge):
            async with client.get(f"http://{server}/", limits) as response:
                await anext(response.body())


async def test_a_body_of_exactly_the_limit_is_accepted() -> None:
    async with run_server(reply(OK)) as server, open_client(server) as client:
        assert await fetch(client, f"http://{server}/", Limits(total=5.0, max_bytes=5)) == (200, b"hello")


async def test_errors_of_the_caller_pass_through() -> None:
    async with run_server(reply(OK)) as server, open_client(server) as client:
        with pytest.raises(OSError, match="disk full"):
            async with client.get(f"http://{server}/", LIMITS):
                raise OSError("disk full")


async def test_every_connection_is_closed() -> None:
    ends: list[bytes] = []
    closed = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reply(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: keep-alive\r\n\r\nhello")(reader, writer)
        ends.append(await reader.read())
        closed.set()

    async with run_server(answer) as server, open_client(server) as client:
        async with client.get(f"http://{server}/", LIMITS):
            pass
        await asyncio.wait_for(closed.wait(), 5.0)
    assert ends == [b""]


async def test_proxy_settings_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    heads: list[bytes] = []
    async with run_server(reply(OK.replace(b"hello", b"proxy"))) as proxy, run_server(reply(OK, heads)) as server:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://{proxy}")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        async with open_client(server) as client:
            assert await fetch(client, f"http://{server}/") == (200, b"hello")
    assert b"authorization" not in heads[0].lower()


# -- webhooks ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("status", [200, 302, 410, 503])
async def test_a_webhook_is_sent_once_and_returns_the_status(status: int) -> None:
    got: list[bytes] = []

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await reader.readuntil(b"\r\n\r\n") + await reader.readexactly(7))
        writer.write(f"HTTP/1.1 {status} So\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n".encode())

    async with run_server(receive) as server, open_client(server) as client:
        headers = {"content-type": "application/json", "X-Signature": "abc", "user-agent": "hook"}
        assert await client.post(f"http://{server}/hook", b'{"a":1}', headers, LIMITS) == status
    head = got[0].lower()
    assert len(got) == 1
    assert got[0].startswith(b"POST /hook HTTP/1.1\r\n")
    assert got[0].endswith(b'\r\n\r\n{"a":1}')
    assert b"content-length: 7\r\n" in head
    assert b"x-signature: abc\r\n" in head
    assert head.count(b"user-agent: hook\r\n") == head.count(b"user-agent:") == 1


@pytest.mark.parametrize(("what", "total"), [("body", 0.6), ("flood", 60.0)])
async def test_a_webhooks_status_counts_even_if_its_body_fails(what: str, total: float) -> None:
    async with run_server(SLOW_ANSWERS[what]) as server, open_client(server) as client:
        started = time.monotonic()
        assert await client.post(f"http://{server}/", b"{}", {}, Limits(total=total)) == 200
        assert time.monotonic() - started < SOON


async def test_a_webhook_cannot_override_the_host_header() -> None:
    heads: list[bytes] = []
    async with run_server(reply(OK, heads)) as server, open_client(server) as client:
        await client.post(f"http://{server}/", b"{}", {"host": "inside.example", "content-length": "1"}, LIMITS)
    assert b"inside.example" not in heads[0]
    assert b"Content-Length: 2\r\n" in heads[0]


@pytest.mark.parametrize("headers", [{"X": "a\r\nY: b"}, {"X": "\ud800"}, {"X Y": "a"}, {"": "a"}])
async def test_invalid_headers_are_refused(headers: dict[str, str]) -> None:
    heads: list[bytes] = []
    async with run_server(reply(OK, heads)) as server, open_client(server) as client:
        with pytest.raises(Refused):
            await client.post(f"http://{server}/", b"{}", headers, LIMITS)
    assert not heads


# -- shutdown ----------------------------------------------------------------------------------------------------------
async def test_stop_is_idempotent_and_ends_requests() -> None:
    client = Outbound(resolve=forbid_lookup)
    await client.stop()
    await client.stop()
    with pytest.raises(Unreachable):
        await fetch(client, "http://a.example/")
