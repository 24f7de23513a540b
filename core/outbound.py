"""The one guard against server-side request forgery: every request made on somebody's behalf goes through here.

A name is looked up once, all its addresses are checked, and one of exactly these is connected to: no second look-up
could answer otherwise. Of httpx we use the parser and the certificates, not the client, which logs whole addresses
with the signatures in their queries. Nothing is read from the environment but SSL_CERT_FILE and SSL_CERT_DIR.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import httpcore
import httpx

Resolver = Callable[[str, int], list[str]]  # (host, port) -> addresses; runs in a thread, raises OSError

PORTS = {"http": 80, "https": 443}
REDIRECTS = (301, 302, 303, 307, 308)
HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity", "Connection": "close", "User-Agent": "async-stt"}

_HOST = re.compile(r"(?=.{1,253}\Z)(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?")
# IANA's special-purpose registries, written out because `is_global` takes multicast and 6to4 relays for public, and
# all of IPv6 but 2000::/3. 168.63.129.16 looks public, yet inside Azure it is the host, which hands out secrets.
_SPECIAL = """
    0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24
    192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4
    168.63.129.16/32 ::/3 4000::/2 8000::/1 2001::/23 2001:db8::/32 2002::/16 3fff::/20
"""
_BLOCKS = [ipaddress.ip_network(block) for block in _SPECIAL.split()]


class Refused(Exception):
    """The address is one we do not talk to; the text is for the sender and says why, naming no internal address."""


class Unreachable(Exception):
    """No answer, broken off, too slow: worth another try."""


class Unresolved(Unreachable):
    """The host's name is unknown, cannot be looked up now, or has an address that is not public.

    One error for all of them: a sender must not learn from it which names an internal name server knows.
    """

    def __init__(self) -> None:
        super().__init__("the host name does not resolve to a public address")


class TooLarge(Exception):
    """More bytes than the caller takes."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds and bytes. `total` spans it all, `read` is one silence, `connect` each of look-up, connection and TLS.

    `min_rate`: bytes a second over each whole `rate_window` of a body, the first of which begins with its first read.
    """

    total: float
    read: float = 30.0
    connect: float = 10.0
    max_bytes: int | None = None
    min_rate: float = 0.0
    rate_window: float = 30.0
    redirects: int = 5


class Response:
    """An answer whose body has not been read. `headers` are found whatever their case."""

    def __init__(self, raw: httpcore.Response, limits: Limits, deadline: float) -> None:
        self.status = raw.status
        self.reason: str = raw.extensions.get("reason_phrase", b"").decode("ascii", "replace")
        self.headers: Mapping[str, str] = httpx.Headers(raw.headers)
        self._raw, self._limits, self._deadline = raw, limits, deadline

    async def body(self) -> AsyncIterator[bytes]:
        """The bytes as they come off the wire, once. Raises Refused when they are encoded, TooLarge, Unreachable."""
        if self.headers.get("content-encoding", "identity").strip().lower() not in ("identity", ""):
            raise Refused("the server sent a compressed response although none was requested")
        self._check_size(int(self.headers.get("content-length", 0)))
        count, chunks = 0, aiter(self._raw.aiter_stream())
        clock = asyncio.get_running_loop().time
        window, before = clock(), 0
        while (chunk := await self._next(chunks)) is not None:
            self._check_size(count := count + len(chunk))
            if (seconds := clock() - window) >= self._limits.rate_window:
                self._check_rate(count - before, seconds)
                window, before = clock(), count
            yield chunk

    def _check_size(self, count: int) -> None:
        most = self._limits.max_bytes
        if most is not None and count > most:
            raise TooLarge(f"the answer is larger than {most} bytes")

    def _check_rate(self, count: int, seconds: float) -> None:
        if count < self._limits.min_rate * seconds:
            raise Unreachable("the server sends data too slowly")

    async def _next(self, chunks: AsyncIterator[bytes]) -> bytes | None:
        with _translate_errors():
            async with asyncio.timeout_at(self._deadline):
                return await anext(chunks, None)


class Outbound:
    """`allowed`: exact host:port pairs that may be internal and have any port; redirects may lead there, too."""

    def __init__(self, allowed: Collection[str] = (), resolve: Resolver | None = None) -> None:
        self._backend = _Backend(frozenset(map(str.lower, allowed)), resolve or _resolved)
        self._ssl = httpx.create_ssl_context()

    def check(self, url: str) -> None:
        """Raises Refused on what can be told without a look-up: scheme, user info, port, the host's spelling."""
        self._parsed(url)

    @contextlib.asynccontextmanager
    async def get(self, url: str, limits: Limits) -> AsyncIterator[Response]:
        """The answer after at most `limits.redirects` redirects, whatever its status. Raises Refused, Unreachable."""
        deadline = asyncio.get_running_loop().time() + limits.total
        for _ in range(limits.redirects + 1):
            request = self._request(url, limits, {}, None)
            async with self._sent(request, limits, deadline) as response:
                location = response.headers.get("location")
                if location is None or response.status not in REDIRECTS:
                    yield response
                    return
            with _translate_errors():
                url = str(httpx.URL(url).join(location))
        raise Refused("too many redirects")

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], limits: Limits) -> int:
        """The answer's status, which may be a redirect's: none is followed. Raises Refused, Unreachable."""
        deadline = asyncio.get_running_loop().time() + limits.total
        request = self._request(url, limits, headers, body)
        async with self._sent(request, replace(limits, max_bytes=64 * 1024), deadline) as response:
            # The status is the verdict: what becomes of the rest must not have the webhook sent again.
            with contextlib.suppress(Refused, Unreachable, TooLarge):
                async for _ in response.body():
                    pass
            return response.status

    async def stop(self) -> None:
        """Ends the threads that look names up; any number of times. Requests that come later are Unreachable."""
        self._backend.threads.shutdown(wait=False)

    def _parsed(self, url: str) -> httpx.URL:
        # Other programs read these characters in other ways; none is needed in an address.
        if "\\" in url or any(map(str.isspace, url)):
            raise Refused("the URL contains white space or a backslash")
        with _translate_errors():
            parsed = httpx.URL(url)
        if parsed.scheme not in PORTS:
            raise Refused("only http:// and https:// URLs are allowed")
        if parsed.userinfo:
            raise Refused("the URL contains a user name or password")
        port = PORTS[parsed.scheme] if parsed.port is None else parsed.port
        self._backend.check(parsed.raw_host.decode("ascii"), port)
        return parsed

    def _request(self, url: str, limits: Limits, headers: Mapping[str, str], body: bytes | None) -> httpcore.Request:
        at, timeout = self._parsed(url), httpx.Timeout(limits.read, connect=limits.connect).as_dict()
        target = httpcore.URL(scheme=at.raw_scheme, host=at.raw_host, port=at.port, target=at.raw_path)
        sent, method = httpx.Headers(HEADERS), "GET" if body is None else "POST"
        with _translate_errors():
            sent.update(headers)
        sent["Host"] = at.netloc.decode("ascii")
        if body is not None:
            sent["Content-Length"] = str(len(body))
        return httpcore.Request(method, target, headers=sent.raw, content=body, extensions={"timeout": timeout})

    @contextlib.asynccontextmanager
    async def _sent(self, request: httpcore.Request, limits: Limits, deadline: float) -> AsyncIterator[Response]:
        pool = httpcore.AsyncConnectionPool(self._ssl, max_keepalive_connections=0, network_backend=self._backend)
        with _translate_errors():
            async with asyncio.timeout_at(deadline):
                raw = await pool.handle_async_request(request)
        try:
            yield Response(raw, limits, deadline)
        finally:
            with contextlib.suppress(Unreachable, Refused), _translate_errors():
                await raw.aclose()


class _Backend(httpcore.AsyncNetworkBackend):
    """Opens every connection there is, and therefore is where the checks cannot be gone round."""

    def __init__(self, allowed: frozenset[str], resolve: Resolver) -> None:
        self._allowed, self._resolve = allowed, resolve
        self._network = httpcore.AnyIOBackend()
        # a look-up cannot be ended: names whose servers do not answer hold a thread long after their caller has left
        self.threads = ThreadPoolExecutor(64, thread_name_prefix="outbound-dns")

    def check(self, host: str, port: int) -> None:
        if self._allows(host, port):
            return
        if port not in PORTS.values():
            raise Refused("only ports 80 and 443 are allowed")
        literal = _literal(host)
        if not (is_public(literal) if literal else _HOST.fullmatch(host)):
            raise Refused("the host is neither a valid name nor a public address")

    def _allows(self, host: str, port: int) -> bool:
        return (f"[{host}]:{port}" if ":" in host else f"{host}:{port}").lower() in self._allowed

    async def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, *_: object, **__: object
    ) -> httpcore.AsyncNetworkStream:
        self.check(host, port)
        async with asyncio.timeout(timeout):
            addresses = await self._addresses(host, port)
        share = None if timeout is None else timeout / max(1, len(addresses))
        for address in addresses:
            with contextlib.suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return await self._network.connect_tcp(address, port, share)
        raise Unreachable("the host does not accept connections")

    async def _addresses(self, host: str, port: int) -> list[str]:
        try:
            addresses = await asyncio.get_running_loop().run_in_executor(self.threads, self._resolve, host, port)
        except RuntimeError as error:
            raise Unreachable("outbound requests are stopped") from error
        if not addresses or not (self._allows(host, port) or all(map(is_public, addresses))):
            raise Unresolved
        return addresses[:3]  # more than one, or a dead IPv6 route would hide a good IPv4 one


def is_public(address: str) -> bool:
    """Whether this is an address that anybody on the internet can have; False for what has a zone or is none."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    return ip.is_global and "%" not in address and not any(ip in block for block in _BLOCKS)


def _literal(host: str) -> str | None:
    """The address that `host` spells, if it spells one; `2130706433` and `0177.1` do, as getaddrinfo reads them."""
    if ":" in host:
        return host
    try:
        return socket.inet_ntoa(socket.inet_aton(host.removesuffix(".")))
    except OSError:
        return None


def _resolved(host: str, port: int) -> list[str]:
    return list({str(entry[4][0]): None for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)})


@contextlib.contextmanager
def _translate_errors() -> Iterator[None]:
    """Around our own steps only: an error of the caller, who writes to a disk meanwhile, stays what it is."""
    try:
        yield
    except (httpx.InvalidURL, httpcore.LocalProtocolError, UnicodeError) as error:
        raise Refused("the URL or a header is not valid") from error
    except socket.gaierror as error:
        raise Unresolved from error
    except (TimeoutError, httpcore.TimeoutException) as error:
        raise Unreachable("the server did not respond in time") from error
    except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
        tls = isinstance(error, ssl.SSLError) or isinstance(error.__context__, ssl.SSLError)
        raise Unreachable("no trusted TLS connection could be made" if tls else "the connection was closed") from error
