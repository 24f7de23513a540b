"""Nobody makes us talk to ourselves or our neighbours, and nobody holds us up."""

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
"""Seconds: far above the limits of these tests, on a busy machine too, and far below what they would wait otherwise."""


@asynccontextmanager
async def serving(answer: Answer, certificate: Path | None = None) -> AsyncIterator[str]:
    """host:port of a server on loopback that answers and hangs up."""
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


def saying(data: bytes, heads: list[bytes] | None = None) -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if heads is not None:
            heads.append(head)
        writer.write(data)
        await writer.drain()

    return answer


def forever(data: bytes, part: bytes, pause: float) -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await saying(data)(reader, writer)
        while True:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)

    return answer


def named(**addresses: list[str]) -> Resolver:
    """A resolver that knows these names (`_` for `.`) and fails for others as the real one does."""

    def resolve(host: str, port: int) -> list[str]:
        found = addresses.get(host.replace(".", "_"))
        if found is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return found

    return resolve


def refusing(host: str, port: int) -> list[str]:
    raise AssertionError(f"{host} must not be looked up")


@asynccontextmanager
async def outbound(*allowed: str, resolve: Resolver | None = None) -> AsyncIterator[Outbound]:
    made = Outbound(allowed, resolve)
    try:
        yield made
    finally:
        await made.stop()


async def fetched(made: Outbound, url: str, limits: Limits = LIMITS) -> tuple[int, bytes]:
    async with made.get(url, limits) as response:
        return response.status, b"".join([part async for part in response.body()])


class Wire:
    """Stands for the internet: notes which addresses are connected to and leads each to a server on loopback."""

    def __init__(self) -> None:
        self.dialled: list[tuple[str, int]] = []
        self.leads: dict[str, str] = {}
        self.silent: set[str] = set()


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    made, real = Wire(), httpcore.AnyIOBackend.connect_tcp

    async def connect(self: httpcore.AnyIOBackend, host: str, port: int, *rest: Any) -> httpcore.AsyncNetworkStream:
        made.dialled.append((host, port))
        if host in made.silent:
            with suppress(TimeoutError):
                async with asyncio.timeout(rest[0]):
                    await asyncio.Event().wait()
            raise httpcore.ConnectTimeout("no answer")
        if host not in made.leads:
            raise httpcore.ConnectError("no route")
        address, _, number = made.leads[host].partition(":")
        return await real(self, address, int(number), *rest)

    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", connect)
    return made


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed one for media.example, with its key in the same file."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")
    path = tmp_path_factory.mktemp("tls") / "media.pem"
    asked = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=media.example -addext subjectAltName=DNS:media.example"
    made = subprocess.run(["openssl", *asked.split(), "-keyout", "-"], capture_output=True, check=True, timeout=60)
    path.write_bytes(made.stdout)
    return path


# -- what an address alone gives away ----------------------------------------------------------------------------------
@pytest.mark.parametrize("url", HOSTILE)
async def test_hostile_addresses_are_refused_without_a_lookup(url: str, wire: Wire) -> None:
    async with outbound(resolve=refusing) as made:
        with pytest.raises(Refused, match=r"^(the|only) "):
            made.check(url)
        with pytest.raises(Refused):
            await fetched(made, url)
        with pytest.raises(Refused):
            await made.post(url, b"{}", {}, LIMITS)
    assert not wire.dialled


@pytest.mark.parametrize(
    "url",
    [
        *("http://a.example", "HTTPS://A.Example:443/x?y=z#@127.0.0.1", "http://a.example:80/", "http://a_b.example./"),
        *("http://8.8.8.8/", "http://[2606:4700:4700::1111]/", "http://bücher.example/", "http://127.0.0.1.example/"),
    ],
)
async def test_ordinary_addresses_pass(url: str) -> None:
    async with outbound(resolve=refusing) as made:
        made.check(url)


@given(st.text(max_size=30), st.sampled_from(["", "http://", "https://[", "http://a.example/", "http://a.example:"]))
def test_whatever_is_typed_passes_or_is_refused(text: str, before: str) -> None:
    with suppress(Refused):
        CHECKED.check(before + text)


CHECKED = Outbound(resolve=refusing)


@pytest.mark.parametrize("address", ["", "a.example", "1.2.3", "01.2.3.4", "8.8.8.8%eth0", "2606:4700::1%eth0"])
def test_what_is_no_address_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "223.255.255.255", "2606:4700:4700::1111", "2a00:1450:4001::1"])
def test_public_addresses(address: str) -> None:
    assert is_public(address)


def test_a_refusal_names_no_internal_address() -> None:
    with pytest.raises(Refused) as refused:
        CHECKED.check("http://2130706433/")
    assert "127" not in str(refused.value)


# -- what a look-up says -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "addresses",
    [
        *(["169.254.169.254"], ["127.0.0.1"], ["::1"], [PUBLIC, "10.0.0.7"], ["10.0.0.7", PUBLIC]),
        *([PUBLIC, "::ffff:10.0.0.7"], [PUBLIC, "fe80::1%2"], [PUBLIC, OTHER, OTHER, OTHER, "127.0.0.1"]),
    ],
)
async def test_one_internal_address_of_a_name_is_enough_to_refuse(addresses: list[str], wire: Wire) -> None:
    async with outbound(resolve=named(metadata_google_internal=addresses)) as made:
        with pytest.raises(Unresolved):
            await fetched(made, "http://metadata.google.internal/")
    assert not wire.dialled


@pytest.mark.parametrize("host", ["localhost", "localhost.", "LOCALHOST"])
async def test_localhost_is_refused_by_the_real_lookup(host: str) -> None:
    async with serving(saying(OK)), outbound() as made:
        with pytest.raises((Refused, Unreachable)):
            await fetched(made, f"http://{host}/")


async def test_an_answer_that_changes_between_check_and_connection_changes_nothing(wire: Wire) -> None:
    answers = [[PUBLIC], ["127.0.0.1"]]
    asked: list[str] = []

    def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return answers[len(asked) - 1]

    async with serving(saying(OK)) as server, outbound(resolve=rebinding) as made:
        wire.leads[PUBLIC] = server
        assert await fetched(made, "http://a.example/") == (200, b"hello")
        assert (asked, wire.dialled) == (["a.example"], [(PUBLIC, 80)])
        with pytest.raises((Refused, Unresolved)):
            await fetched(made, "http://a.example/")
    assert wire.dialled == [(PUBLIC, 80)]


async def test_the_next_checked_address_is_tried_when_one_is_dead(wire: Wire) -> None:
    async with serving(saying(OK)) as server, outbound(resolve=named(a_example=[PUBLIC, OTHER])) as made:
        wire.leads[OTHER] = server
        assert (await fetched(made, "http://a.example/"))[0] == 200
    assert wire.dialled == [(PUBLIC, 80), (OTHER, 80)]


async def test_a_silent_address_leaves_time_for_the_next(wire: Wire) -> None:
    async with serving(saying(OK)) as server, outbound(resolve=named(a_example=[PUBLIC, OTHER])) as made:
        wire.silent, wire.leads[OTHER] = {PUBLIC}, server
        assert (await fetched(made, "http://a.example/", Limits(total=20.0, connect=2.0)))[0] == 200


async def test_no_more_than_three_addresses_are_tried(wire: Wire) -> None:
    async with outbound(resolve=named(a_example=[PUBLIC] * 9)) as made:
        with pytest.raises(Unreachable):
            await fetched(made, "http://a.example/")
    assert len(wire.dialled) == 3


async def test_names_that_are_not_known_are_unreachable(wire: Wire) -> None:
    async with outbound(resolve=named(empty_example=[])) as made:
        for host in ("a.example", "empty.example"):
            with pytest.raises(Unreachable):
                await fetched(made, f"http://{host}/")


async def test_an_internal_name_cannot_be_told_from_a_missing_one(wire: Wire) -> None:
    """The sender would learn which names an internal name server knows."""

    def resolve(host: str, port: int) -> list[str]:
        if host == "inside.example":
            return ["10.0.0.7"]
        if host == "mixed.example":
            return [PUBLIC, "fd00::1"]
        if host == "empty.example":
            return []
        raise socket.gaierror(socket.EAI_AGAIN if host == "later.example" else socket.EAI_NONAME, host)

    errors = []
    async with outbound(resolve=resolve) as made:
        for name in ("inside", "mixed", "empty", "later", "missing"):
            with pytest.raises(Exception) as caught:
                await fetched(made, f"http://{name}.example/")
            errors.append((type(caught.value), str(caught.value)))
    assert len(set(errors)) == 1
    assert not wire.dialled


async def test_a_slow_lookup_ends_at_the_connect_limit() -> None:
    answered = threading.Event()

    def slow(host: str, port: int) -> list[str]:
        answered.wait(60)
        return [PUBLIC]

    async with outbound(resolve=slow) as made:
        started = time.monotonic()
        try:
            with pytest.raises(Unreachable):
                await fetched(made, "http://a.example/", Limits(total=60.0, connect=0.2))
            assert time.monotonic() - started < SOON
        finally:
            answered.set()


async def test_the_name_stays_in_tls_and_the_host_header(wire: Wire) -> None:
    hellos: list[bytes] = []
    heads: list[bytes] = []

    async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hellos.append(await reader.read(4096))

    async with (
        serving(hello) as tls,
        serving(saying(OK, heads)) as plain,
        outbound(resolve=lambda *_: [PUBLIC]) as made,
    ):
        wire.leads[PUBLIC] = tls
        with pytest.raises(Unreachable):
            await fetched(made, "https://media.example/")
        wire.leads[PUBLIC] = plain
        await fetched(made, "http://media.example/a%20b?c=d#e")
    assert b"media.example" in hellos[0]
    assert heads[0].startswith(b"GET /a%20b?c=d HTTP/1.1\r\n")
    assert b"Host: media.example\r\n" in heads[0]
    assert b"Accept-Encoding: identity\r\n" in heads[0]


@pytest.mark.parametrize("name", ["media.example", "other.example"])
@pytest.mark.parametrize("trusted", [True, False])
async def test_certificates_are_checked_against_the_name(
    name: str, trusted: bool, certificate: Path, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with serving(saying(OK), certificate) as server, outbound(resolve=lambda *_: [PUBLIC]) as made:
        wire.leads[PUBLIC] = server
        if trusted and name == "media.example":
            assert await fetched(made, f"https://{name}/") == (200, b"hello")
        else:
            with pytest.raises(Unreachable, match="trusted TLS"):
                await fetched(made, f"https://{name}/")


# -- the list of what may be internal ----------------------------------------------------------------------------------
async def test_only_the_exact_host_and_port_on_the_list_are_allowed() -> None:
    async with serving(saying(OK)) as server, serving(saying(OK)) as other:
        port = server.rpartition(":")[2]
        async with outbound(server, f"MinIO:{port}", "[::1]:9000", resolve=lambda *_: ["127.0.0.1"]) as made:
            assert await fetched(made, f"http://{server}/") == (200, b"hello")
            assert await fetched(made, f"http://MINIO:{port}/") == (200, b"hello")
            made.check("http://[::1]:9000/")
            for url in (other, f"localhost:{port}", f"127.1:{port}", f"minio.:{port}", "minio", "[::1]", f"u@{server}"):
                with pytest.raises((Refused, Unresolved)):
                    await fetched(made, f"http://{url}/")


async def test_the_scheme_fills_in_the_port_that_the_list_names() -> None:
    async with outbound("minio:443", "127.0.0.1:80") as made:
        made.check("https://minio/")
        made.check("http://127.0.0.1/")
        with pytest.raises(Refused):
            made.check("https://127.0.0.1/")


# -- redirects ---------------------------------------------------------------------------------------------------------
def redirecting(*locations: str, status: int = 302) -> Answer:
    """Each request gets the next location, the last one for ever."""
    left = list(locations)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        location = left.pop(0) if len(left) > 1 else left[0]
        head = f"HTTP/1.1 {status} Found\r\nContent-Length: 0\r\n"
        await saying(f"{head}Location: {location}\r\n\r\n".encode() if location else OK)(reader, writer)

    return answer


@pytest.mark.parametrize(
    "location",
    [
        *("http://127.0.0.1/", "//169.254.169.254/", "http://inside.example/", "http://a.example:22/", "file:///x"),
        *("http://u:p@a.example/", "http://[", "http://a.example:x/", "http://[::ffff:127.0.0.1]/"),
    ],
)
async def test_redirects_are_checked_like_any_address(location: str, wire: Wire) -> None:
    names = named(a_example=[PUBLIC], inside_example=["10.0.0.7"])
    async with serving(redirecting(location)) as server, outbound(resolve=names) as made:
        wire.leads[PUBLIC] = server
        with pytest.raises((Refused, Unresolved)):
            await fetched(made, "http://a.example/")
    assert wire.dialled == [(PUBLIC, 80)]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_followed_each_with_its_own_lookup(status: int, wire: Wire) -> None:
    names = named(a_example=[PUBLIC], b_example=[OTHER])
    there = redirecting("/x y", "http://b.example/z", "", status=status)
    async with serving(there) as server, outbound(resolve=names) as made:
        wire.leads = {PUBLIC: server, OTHER: server}
        assert await fetched(made, "http://a.example/") == (200, b"hello")
    assert wire.dialled == [(PUBLIC, 80), (PUBLIC, 80), (OTHER, 80)]


async def test_a_redirect_loop_ends_after_five() -> None:
    heads: list[bytes] = []
    loop = saying(b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", heads)
    async with serving(loop) as server, outbound(server) as made:
        with pytest.raises(Refused, match="too many redirects"):
            await fetched(made, f"http://{server}/")
    assert len(heads) == 6


async def test_five_redirects_are_followed() -> None:
    async with serving(redirecting(*("/",) * 5, "")) as server, outbound(server) as made:
        assert await fetched(made, f"http://{server}/") == (200, b"hello")


async def test_a_redirect_that_leads_nowhere_is_an_answer() -> None:
    async with serving(saying(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n")) as server, outbound(server) as made:
        assert await fetched(made, f"http://{server}/") == (302, b"")


# -- answers -----------------------------------------------------------------------------------------------------------
async def test_statuses_and_headers_are_the_callers_to_judge() -> None:
    answer = b"HTTP/1.1 403 Go Away\r\nContent-Length: 2\r\nX-Why: no\r\nContent-Encoding: identity\r\n\r\nno"
    async with (
        serving(saying(answer)) as server,
        outbound(server) as made,
        made.get(f"http://{server}/", LIMITS) as response,
    ):
        assert (response.status, response.reason, response.headers["x-why"]) == (403, "Go Away", "no")
        assert [part async for part in response.body()] == [b"no"]


async def test_a_reason_in_no_known_letters_is_an_answer() -> None:
    answer = b"HTTP/1.1 404 \xe9\xff\r\nContent-Length: 0\r\n\r\n"
    async with (
        serving(saying(answer)) as server,
        outbound(server) as made,
        made.get(f"http://{server}/", LIMITS) as response,
    ):
        assert (response.status, response.reason) == (404, "\ufffd\ufffd")


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip", "unheard-of"])
async def test_encoded_answers_are_refused(encoding: str) -> None:
    answer = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: 5\r\n\r\nhello"
    async with serving(saying(answer.encode())) as server, outbound(server) as made:
        with pytest.raises(Refused, match="compressed"):
            await fetched(made, f"http://{server}/")


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
    async with serving(saying(answer)) as server, outbound(server) as made:
        with pytest.raises(Unreachable):
            await fetched(made, f"http://{server}/")


async def test_a_closed_port_is_unreachable() -> None:
    async with outbound(f"127.0.0.1:{(port := free_port())}") as made:
        with pytest.raises(Unreachable, match=r"^the host ") as unreachable:
            await fetched(made, f"http://127.0.0.1:{port}/")
    assert "127" not in str(unreachable.value)


# -- limits ------------------------------------------------------------------------------------------------------------
HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
BY_THE_DROP = {
    "body": forever(HEAD, b"x", 0.1),
    "head": forever(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", 0.1),
    "interim": forever(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n", 0.1),
    "silence": forever(b"", b"", 0.1),
    "flood": forever(HEAD, b"x" * 65536, 0.0),
}


@pytest.mark.parametrize("what", BY_THE_DROP)
async def test_nothing_outlasts_the_total(what: str) -> None:
    async with serving(BY_THE_DROP[what]) as server, outbound(server) as made:
        started = time.monotonic()
        with pytest.raises(Unreachable):
            await fetched(made, f"http://{server}/", Limits(total=0.6))
        assert 0.5 < time.monotonic() - started < SOON


async def test_redirects_share_one_total() -> None:
    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.25)
        await redirecting("/")(reader, writer)

    async with serving(slowly) as server, outbound(server) as made:
        with pytest.raises(Unreachable):
            await fetched(made, f"http://{server}/", Limits(total=0.6))


async def test_silence_ends_at_the_read_limit() -> None:
    async with serving(BY_THE_DROP["silence"]) as server, outbound(server) as made:
        started = time.monotonic()
        with pytest.raises(Unreachable):
            await fetched(made, f"http://{server}/", Limits(total=60.0, read=0.3))
        assert time.monotonic() - started < SOON


async def test_an_endless_body_ends_at_its_limit() -> None:
    taken = 0
    async with serving(BY_THE_DROP["flood"]) as server, outbound(server) as made:
        with pytest.raises(TooLarge):
            async with made.get(f"http://{server}/", Limits(total=5.0, max_bytes=100_000)) as response:
                async for part in response.body():
                    taken += len(part)
    assert taken <= 100_000


async def test_a_length_above_the_limit_is_too_large_before_any_byte() -> None:
    answer, limits = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhel", Limits(total=1.0, max_bytes=8)
    async with serving(forever(answer, b"", 0.1)) as server, outbound(server) as made:
        with pytest.raises(TooLarge):
            async with made.get(f"http://{server}/", limits) as response:
                await anext(response.body())


async def test_a_body_of_exactly_the_limit_is_taken() -> None:
    async with serving(saying(OK)) as server, outbound(server) as made:
        assert await fetched(made, f"http://{server}/", Limits(total=5.0, max_bytes=5)) == (200, b"hello")


async def test_the_callers_own_errors_stay_what_they_are() -> None:
    async with serving(saying(OK)) as server, outbound(server) as made:
        with pytest.raises(OSError, match="disk full"):
            async with made.get(f"http://{server}/", LIMITS):
                raise OSError("disk full")


async def test_every_connection_is_closed() -> None:
    ends: list[bytes] = []
    ended = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await saying(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: keep-alive\r\n\r\nhello")(reader, writer)
        ends.append(await reader.read())
        ended.set()

    async with serving(answer) as server, outbound(server) as made:
        async with made.get(f"http://{server}/", LIMITS):
            pass
        await asyncio.wait_for(ended.wait(), 5.0)
    assert ends == [b""]


async def test_the_environment_has_no_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    heads: list[bytes] = []
    async with serving(saying(OK.replace(b"hello", b"proxy"))) as proxy, serving(saying(OK, heads)) as server:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://{proxy}")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        async with outbound(server) as made:
            assert await fetched(made, f"http://{server}/") == (200, b"hello")
    assert b"authorization" not in heads[0].lower()


# -- webhooks ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("status", [200, 302, 410, 503])
async def test_a_webhook_is_sent_once_and_its_status_told(status: int) -> None:
    got: list[bytes] = []

    async def hook(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await reader.readuntil(b"\r\n\r\n") + await reader.readexactly(7))
        writer.write(f"HTTP/1.1 {status} So\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n".encode())

    async with serving(hook) as server, outbound(server) as made:
        headers = {"content-type": "application/json", "X-Signature": "abc", "user-agent": "hook"}
        assert await made.post(f"http://{server}/hook", b'{"a":1}', headers, LIMITS) == status
    head = got[0].lower()
    assert len(got) == 1
    assert got[0].startswith(b"POST /hook HTTP/1.1\r\n")
    assert got[0].endswith(b'\r\n\r\n{"a":1}')
    assert b"content-length: 7\r\n" in head
    assert b"x-signature: abc\r\n" in head
    assert head.count(b"user-agent: hook\r\n") == head.count(b"user-agent:") == 1


@pytest.mark.parametrize(("what", "total"), [("body", 0.6), ("flood", 60.0)])
async def test_a_webhooks_status_counts_whatever_comes_after_it(what: str, total: float) -> None:
    async with serving(BY_THE_DROP[what]) as server, outbound(server) as made:
        started = time.monotonic()
        assert await made.post(f"http://{server}/", b"{}", {}, Limits(total=total)) == 200
        assert time.monotonic() - started < SOON


async def test_a_webhook_cannot_name_another_host() -> None:
    heads: list[bytes] = []
    async with serving(saying(OK, heads)) as server, outbound(server) as made:
        await made.post(f"http://{server}/", b"{}", {"host": "inside.example", "content-length": "1"}, LIMITS)
    assert b"inside.example" not in heads[0]
    assert b"Content-Length: 2\r\n" in heads[0]


@pytest.mark.parametrize("headers", [{"X": "a\r\nY: b"}, {"X": "\ud800"}, {"X Y": "a"}, {"": "a"}])
async def test_headers_that_cannot_be_sent_are_refused(headers: dict[str, str]) -> None:
    heads: list[bytes] = []
    async with serving(saying(OK, heads)) as server, outbound(server) as made:
        with pytest.raises(Refused):
            await made.post(f"http://{server}/", b"{}", headers, LIMITS)
    assert not heads


# -- the end -----------------------------------------------------------------------------------------------------------
async def test_stopping_twice_and_asking_afterwards() -> None:
    made = Outbound(resolve=refusing)
    await made.stop()
    await made.stop()
    with pytest.raises(Unreachable):
        await fetched(made, "http://a.example/")
