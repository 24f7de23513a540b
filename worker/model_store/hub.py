"""HTTP requests to a model hub, its mirrors, and the storage that it redirects to.

The hub's responses name the file's length and SHA-256 (`X-Linked-Size`, `X-Linked-Etag`) and redirect to a signed
address on another host. Redirects are followed here, since the token may go to the hub alone.
"""

from __future__ import annotations

import contextlib
import email.utils
import logging
import re
import socket
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import httpx

from core.config_models import HUGGING_FACE
from core.errors_models import (
    HubAnswerError,
    HubBusyError,
    HubForbiddenError,
    HubInterruptedError,
    HubNotFoundError,
    HubRedirectError,
    HubUnauthorizedError,
    HubUnreachableError,
)
from core.outbound import REDIRECTS, is_public
from core.version import VERSION
from worker.model_store.reference import ModelReference

MAX_REDIRECTS = 5
Resolver = Callable[[str], list[str]]
"""Host name -> addresses. Raises OSError."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_PORTS = {"http": 80, "https": 443}


def _resolve(host: str) -> list[str]:
    return list({str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)})


@dataclass(frozen=True, slots=True)
class HubSettings:
    """Settings of the hub from which models are downloaded.

    endpoint: base URL of a hub. token: sent to the endpoint only. mirror: base URL of a web server with the bare files,
    used instead of the hub. stall_seconds: time without a byte after which a connection counts as lost.
    """

    endpoint: str = HUGGING_FACE
    token: str = field(default="", repr=False)
    mirror: str = ""
    connect_seconds: float = 10.0
    stall_seconds: float = 30.0
    resolve: Resolver = _resolve

    @property
    def base(self) -> httpx.URL:
        return httpx.URL(self.mirror or self.endpoint or HUGGING_FACE)

    def url(self, reference: ModelReference) -> httpx.URL:
        base = str(self.base).rstrip("/")
        if self.mirror:
            return httpx.URL(f"{base}/{reference.file.rpartition('/')[2]}")
        return httpx.URL(f"{base}/{reference.repository}/resolve/{reference.revision}/{reference.file}")


@dataclass(frozen=True, slots=True)
class Metadata:
    """Facts about a file from the headers of its hub. size: bytes; sha256: hex digits."""

    size: int | None = None
    sha256: str | None = None


class Answer:
    """A response that carries the file, or a part of it. start: offset of its first byte in the file."""

    def __init__(self, response: httpx.Response, metadata: Metadata) -> None:
        headers = response.headers
        self._response = response
        self.status = response.status_code
        self.etag = headers.get("etag", "")
        self.length = _number(headers.get("content-length"))
        self.content_type = headers.get("content-type", "")
        match = _RANGE.fullmatch(headers.get("content-range", ""))
        self.start = int(match[1]) if match and self.status == httpx.codes.PARTIAL_CONTENT else 0
        self.complete_size = int(match[3]) if match and match[3] != "*" else None
        self.ranged = match is not None
        sha256 = metadata.sha256 or _sha256(self.etag)
        size = metadata.size
        if size is None:
            size = self.complete_size if self.status == httpx.codes.PARTIAL_CONTENT else self.length
        self.metadata = Metadata(size, sha256)

    def blocks(self) -> Iterator[bytes]:
        """Iterate over the body. Raises HubInterruptedError if it is cut or stalls."""
        blocks = self._response.iter_raw()  # as they arrive: a block size would lose what a cut leaves incomplete
        while True:
            with _translate_errors():
                block = next(blocks, None)
            if block is None:
                return
            yield block


class Hub:
    """Client of one hub or mirror. Close it after use."""

    def __init__(self, settings: HubSettings) -> None:
        # httpx logs every address with its signature
        logging.getLogger("httpx").setLevel(logging.WARNING)
        self._settings = settings
        self._base = settings.base
        self._client = httpx.Client(
            timeout=httpx.Timeout(settings.stall_seconds, connect=settings.connect_seconds),
            headers={"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": f"async-stt/{VERSION}"},
            follow_redirects=False,
        )

    def close(self) -> None:
        self._client.close()

    @contextlib.contextmanager
    def open(self, reference: ModelReference, start: int = 0, validator: str = "") -> Iterator[Answer]:
        """Request the file from byte `start`. validator: ETag of the bytes before it.

        Raises HubUnreachableError, HubInterruptedError, HubBusyError, HubUnauthorizedError, HubForbiddenError,
        HubNotFoundError, HubRedirectError, HubAnswerError.
        """
        headers = {"Range": f"bytes={start}-"} if start else {}
        if start and validator:
            headers["If-Range"] = validator
        url, metadata = self._settings.url(reference), Metadata()
        for _ in range(MAX_REDIRECTS + 1):
            response = self._send(url, headers)
            try:
                metadata = _merged(metadata, response.headers) if self._is_hub(url) else metadata
                location = response.headers.get("location")
                if location is None or response.status_code not in REDIRECTS:
                    self._check(response, url, reference)
                    yield Answer(response, metadata)
                    return
            finally:
                response.close()
            url = self._redirected(url, location)
        raise HubRedirectError("The hub redirects too often.")

    def _send(self, url: httpx.URL, headers: Mapping[str, str]) -> httpx.Response:
        token = self._settings.token if self._is_hub(url) and not self._settings.mirror else ""
        own = {"Authorization": f"Bearer {token}"} if token else {}
        with _translate_errors():
            return self._client.send(self._client.build_request("GET", url, headers={**headers, **own}), stream=True)

    def _is_hub(self, url: httpx.URL) -> bool:
        return _origin(url) == _origin(self._base)

    def _redirected(self, url: httpx.URL, location: str) -> httpx.URL:
        """Return the address of a redirect. Raises HubRedirectError for one that must not be requested."""
        try:
            target = url.join(location)
        except (httpx.InvalidURL, ValueError, UnicodeError):
            raise HubRedirectError from None
        plain = target.scheme == "http" and (url.scheme == "https" or self._base.scheme == "https")
        if target.scheme not in _PORTS or plain or target.userinfo or not target.host:
            raise HubRedirectError(
                "The hub redirects to an address that is not https, or that contains a password: {value}.",
                value=ascii(f"{target.scheme}://{target.host}"[:100]),
            )
        if not self._private_hub and _is_private(target, self._settings.resolve):
            raise HubRedirectError(
                "The hub redirects into the local network: {value}. Set HF_ENDPOINT if this is a mirror of yours.",
                value=ascii(target.host[:100]),
            )
        return target

    @cached_property
    def _private_hub(self) -> bool:
        """True if the hub itself is on a private network, as an operator's mirror, which may redirect into it."""
        return _is_private(self._base, self._settings.resolve)

    def _check(self, response: httpx.Response, url: httpx.URL, reference: ModelReference) -> None:
        """Raise the error that the status or the encoding stands for."""
        status, own, file = response.status_code, self._is_hub(url), str(reference)
        match status:
            case 200 | 206 | 416:
                pass
            case 401 if own:
                raise HubUnauthorizedError(
                    "The hub requires a token for {file}, or it does not exist. Check the name and set HF_TOKEN.",
                    file=file,
                )
            case 403 if own:
                raise HubForbiddenError(
                    "The hub denies access to {file}. Accept the model's conditions on its page, and set HF_TOKEN.",
                    file=file,
                )
            case 404 | 410 if own:
                raise HubNotFoundError("The hub has no file {file}.", file=file)
            case 401 | 403 | 404 | 410:  # a signed address that has expired: the next attempt gets another
                raise HubInterruptedError("The address of the file has expired (status {status}).", status=status)
            case 408 | 429 | 500 | 502 | 503 | 504:
                seconds = retry_after(response.headers)
                raise HubBusyError("The hub responds with status {status}.", status=status, retry_after=seconds)
            case _:
                raise HubAnswerError("The hub responds to {file} with status {status}.", file=file, status=status)
        if response.headers.get("content-encoding", "identity").strip().lower() not in ("identity", ""):
            raise HubAnswerError("The hub sends {file} compressed although this was not requested.", file=file)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds in Retry-After, which has a number or a date; None without a usable value."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return None


def _merged(metadata: Metadata, headers: Mapping[str, str]) -> Metadata:
    size, sha256 = _number(headers.get("x-linked-size")), _sha256(headers.get("x-linked-etag", ""))
    return Metadata(metadata.size if size is None else size, sha256 or metadata.sha256)


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else None


def _sha256(etag: str) -> str | None:
    """Return the SHA-256 in an ETag: the hub uses it as the ETag of large files."""
    digest = etag.removeprefix("W/").strip('"').lower()
    return digest if _SHA256.fullmatch(digest) else None


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or _PORTS.get(url.scheme)


def _is_private(url: httpx.URL, resolve: Resolver) -> bool:
    """Return True if the host has an address that is not public. Names that a proxy resolves count as public."""
    with contextlib.suppress(ValueError, OSError):
        return not is_public(socket.inet_ntop(socket.AF_INET, socket.inet_aton(url.host)))
    if ":" in url.host:
        return not is_public(url.host)
    if urllib.request.getproxies().get(url.scheme) and not urllib.request.proxy_bypass(url.host):
        return False
    try:
        return not all(map(is_public, resolve(url.host)))
    except (OSError, UnicodeError):  # UnicodeError: a name that no host can have
        return False  # the connection will fail as well


@contextlib.contextmanager
def _translate_errors() -> Iterator[None]:
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
        if isinstance(error.__context__, ssl.SSLError) or "CERTIFICATE" in str(error):
            raise HubUnreachableError(
                "No trusted TLS connection to the hub could be made. Check SSL_CERT_FILE."
            ) from error
        raise HubUnreachableError from error
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError, UnicodeError) as error:
        raise HubAnswerError from error
    except httpx.TimeoutException as error:
        raise HubInterruptedError("The hub sends no more data.") from error
    except httpx.TransportError as error:
        raise HubInterruptedError("The hub closed the connection.") from error
