"""HTTP client for URLs that users provide, guarded against server-side request forgery.

A host name is resolved once, all its addresses are checked, and the connection is made to one of them, so that a second
look-up cannot return other addresses. httpx provides the URL parser and the certificates. Its client is not used, since
it logs URLs with the signatures in their queries. SSL_CERT_FILE and SSL_CERT_DIR are the only environment variables
that are read.
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
from functools import cached_property

import httpcore
import httpx

Resolver = Callable[[str, int], list[str]]
"""(host, port) -> addresses. Runs in a thread; raises OSError."""

PORTS = {"http": 80, "https": 443}
REDIRECTS = (301, 302, 303, 307, 308)
HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity", "Connection": "close", "User-Agent": "async-stt"}

_HOST = re.compile(r"(?=.{1,253}\Z)(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?")
# IANA's special-purpose registries, listed because `is_global` treats multicast, 6to4 relays and all of IPv6 outside
# 2000::/3 as public. 168.63.129.16 is public too, but inside Azure it is the host, which serves credentials.
_SPECIAL = """
    0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24
    192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4
    168.63.129.16/32 ::/3 4000::/2 8000::/1 2001::/23 2001:db8::/32 2002::/16 3fff::/20
"""
_BLOCKS = [ipaddress.ip_network(block) for block in _SPECIAL.split()]


class Refused(Exception):
    """The URL is not allowed. The text gives the reason, without internal addresses."""


class Unreachable(Exception):
    """No response, a lost connection, or a timeout. A retry may succeed."""


class Unresolved(Unreachable):
    """The host name is unknown, cannot be resolved at present, or has an address that is not public.

    These have one error, since it must not reveal which names an internal name server resolves.
    """

    def __init__(self) -> None:
        super().__init__("the host name does not resolve to a public address")


class TooLarge(Exception):
    """The response is larger than the caller's limit."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a request, in seconds and bytes.

    total: for the whole request. read: between two reads. connect: for each of look-up, connection and TLS handshake.
    min_rate: bytes per second over each `rate_window` of a body, starting at its first read.
    """

    total: float
    read: float = 30.0
    connect: float = 10.0
    max_bytes: int | None = None
    min_rate: float = 0.0
    rate_window: float = 30.0
    redirects: int = 5


class Response:
    """A response whose body has not been read. `headers` is case-insensitive."""

    def __init__(self, raw: httpcore.Response, limits: Limits, deadline: float) -> None:
        self.status = raw.status
        self.reason: str = raw.extensions.get("reason_phrase", b"").decode("ascii", "replace")
        self.headers: Mapping[str, str] = httpx.Headers(raw.headers)
        self._raw, self._limits, self._deadline = raw, limits, deadline

    async def body(self) -> AsyncIterator[bytes]:
        """Iterate over the body, once. Raises TooLarge, Unreachable, and Refused if the body is encoded."""
        if self.headers.get("content-encoding", "identity").strip().lower() not in ("identity", ""):
            raise Refused("the server sent a compressed response although none was requested")
        self._check_size(int(self.headers.get("content-length", 0)))
        count, chunks = 0, aiter(self._raw.aiter_stream())
        clock = asyncio.get_running_loop().time
        window, before = clock(), 0
        while (chunk := await self._next(chunks)) is not None:
            self._check_size(count := count + len(chunk))
            if (seconds := clock() - window) >= self._limits.rate_window:
                if count - before < self._limits.min_rate * seconds:
                    raise Unreachable("the server sends data too slowly")
                window, before = clock(), count
            yield chunk

    def _check_size(self, count: int) -> None:
        limit = self._limits.max_bytes
        if limit is not None and count > limit:
            raise TooLarge(f"the response is larger than {limit} bytes")

    async def _next(self, chunks: AsyncIterator[bytes]) -> bytes | None:
        with _translate_errors():
            async with asyncio.timeout_at(self._deadline):
                return await anext(chunks, None)


class Outbound:
    """The guarded client. allowed: host:port pairs that may be internal and use any port, also after a redirect."""

    def __init__(self, allowed: Collection[str] = (), resolve: Resolver | None = None) -> None:
        self._backend = _Backend(frozenset(map(str.lower, allowed)), resolve or _resolve)

    @cached_property
    def _ssl(self) -> ssl.SSLContext:
        """The certificates, loaded for the first https request, since most processes send none."""
        return httpx.create_ssl_context()

    def check(self, url: str) -> None:
        """Check everything but the addresses: scheme, user info, port and host name. Raises Refused."""
        self._parse(url)

    @contextlib.asynccontextmanager
    async def get(self, url: str, limits: Limits) -> AsyncIterator[Response]:
        """Send a GET request and follow at most `limits.redirects` redirects. Raises Refused, Unreachable."""
        deadline = asyncio.get_running_loop().time() + limits.total
        for _ in range(limits.redirects + 1):
            request = self._request(url, limits, {}, None)
            async with self._open(request, limits, deadline) as response:
                location = response.headers.get("location")
                if location is None or response.status not in REDIRECTS:
                    yield response
                    return
            with _translate_errors():
                url = str(httpx.URL(url).join(location))
        raise Refused("too many redirects")

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], limits: Limits) -> int:
        """Send a POST request and return the status. Redirects are not followed. Raises Refused, Unreachable."""
        deadline = asyncio.get_running_loop().time() + limits.total
        request = self._request(url, limits, headers, body)
        async with self._open(request, replace(limits, max_bytes=64 * 1024), deadline) as response:
            # the status alone counts: an error in the body must not send the webhook again
            with contextlib.suppress(Refused, Unreachable, TooLarge):
                async for _ in response.body():
                    pass
            return response.status

    async def stop(self) -> None:
        """Stop the resolver threads. Idempotent; later requests raise Unreachable."""
        self._backend.threads.shutdown(wait=False)

    def _parse(self, url: str) -> httpx.URL:
        # URL parsers disagree about these characters
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
        parsed, timeout = self._parse(url), httpx.Timeout(limits.read, connect=limits.connect).as_dict()
        target = httpcore.URL(scheme=parsed.raw_scheme, host=parsed.raw_host, port=parsed.port, target=parsed.raw_path)
        merged, method = httpx.Headers(HEADERS), "GET" if body is None else "POST"
        with _translate_errors():
            merged.update(headers)
        merged["Host"] = parsed.netloc.decode("ascii")
        if body is not None:
            merged["Content-Length"] = str(len(body))
        return httpcore.Request(method, target, headers=merged.raw, content=body, extensions={"timeout": timeout})

    @contextlib.asynccontextmanager
    async def _open(self, request: httpcore.Request, limits: Limits, deadline: float) -> AsyncIterator[Response]:
        certificates = self._ssl if request.url.scheme == b"https" else None
        pool = httpcore.AsyncConnectionPool(certificates, max_keepalive_connections=0, network_backend=self._backend)
        with _translate_errors():
            async with asyncio.timeout_at(deadline):
                raw = await pool.handle_async_request(request)
        try:
            yield Response(raw, limits, deadline)
        finally:
            with contextlib.suppress(Unreachable, Refused), _translate_errors():
                await raw.aclose()


class _Backend(httpcore.AsyncNetworkBackend):
    """The network backend, which opens every connection, so that no request bypasses its checks."""

    def __init__(self, allowed: frozenset[str], resolve: Resolver) -> None:
        self._allowed, self._resolve = allowed, resolve
        self._network = httpcore.AnyIOBackend()
        # a look-up cannot be cancelled: without a reply it keeps its thread long after its caller has given up
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
        failure: Exception | None = None
        for address in addresses:
            try:
                return await self._network.connect_tcp(address, port, share)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise Unreachable("the host does not accept connections") from failure

    async def _addresses(self, host: str, port: int) -> list[str]:
        try:
            addresses = await asyncio.get_running_loop().run_in_executor(self.threads, self._resolve, host, port)
        except RuntimeError as error:
            raise Unreachable("outbound requests are stopped") from error
        if not addresses or not (self._allows(host, port) or all(map(is_public, addresses))):
            raise Unresolved
        return addresses[:3]  # more than one address, in case the IPv6 route is broken


def is_public(address: str) -> bool:
    """Return True for a public IP address. Anything else, such as an address with a zone, is not public."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    return ip.is_global and "%" not in address and not any(ip in block for block in _BLOCKS)


def _literal(host: str) -> str | None:
    """Return the IP address that `host` denotes, or None. getaddrinfo also accepts `2130706433` and `0177.1`."""
    if ":" in host:
        return host
    try:
        return socket.inet_ntoa(socket.inet_aton(host.removesuffix(".")))
    except OSError:
        return None


def _resolve(host: str, port: int) -> list[str]:
    return list({str(entry[4][0]): None for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)})


@contextlib.contextmanager
def _translate_errors() -> Iterator[None]:
    """Translate errors of httpx and httpcore. Wraps only our own calls, never the code of the caller."""
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
