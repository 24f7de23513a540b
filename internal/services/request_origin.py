"""Origin of a request, derived from its connection and headers: this machine, a proxy, another web site."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from core.errors import CrossSiteError, LocalOnlyError, UntrustedHostError

FORWARDING = frozenset(
    (
        *("forwarded", "via", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "x-original-host", "x-original-url"),
        *("x-proxyuser-ip", "x-host", "client-ip", "true-client-ip", "fastly-client-ip", "fly-client-ip", "cdn-loop"),
        *("x-envoy-external-address", "x-amzn-trace-id", "x-cloud-trace-context", "x-arr-log-id", "x-forwarded"),
    )
)
FORWARDING_FAMILIES = ("x-forwarded-", "cf-", "x-appengine-", "x-azure-")
"""Prefixes of further headers that reverse proxies and content delivery networks add."""
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class RequestOrigin:
    """peer: address of the connection; version: HTTP version; headers: with lower-case names."""

    peer: str
    method: str
    version: str = "1.1"
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def host(self) -> str:
        return self.headers.get("host", "").strip().lower()

    def reason_not_local(self, trusted: Collection[str]) -> str | None:
        """Return the reason to assume that the request is not from this machine; None if it seems local."""
        forwarding = (name for name in self.headers if name in FORWARDING or name.startswith(FORWARDING_FAMILIES))
        header = next(forwarding, None)
        if not is_loopback(self.peer):
            return "the request comes from another machine"
        if header is not None:
            return "the request was forwarded by a proxy"
        if self.version == "1.0":
            return "the request uses HTTP/1.0, as reverse proxies do"
        if not is_trusted_host(self.host, trusted):
            return "`Host` is not a name of this machine"
        return None

    def require_local(self, trusted: Collection[str]) -> None:
        """Raises LocalOnlyError unless the request seems to come from this machine."""
        reason = self.reason_not_local(trusted)
        if reason is not None:
            raise LocalOnlyError(
                "Without API keys this service accepts requests from this machine only: {reason}. "
                "Create a key with `stt keys create`, or set API_KEY, and send it as `X-API-Key`.",
                reason=reason,
            )

    def require_trusted_host(self, trusted: Collection[str]) -> None:
        """Raises UntrustedHostError if `trusted` is not empty and `Host` is neither in it nor loopback."""
        if trusted and not is_trusted_host(self.host, trusted):
            raise UntrustedHostError

    def require_same_site(self, allowed: Collection[str]) -> None:
        """Raises CrossSiteError if a page of another site made the browser send the request.

        Navigation by GET is allowed, because the page cannot read the response.
        """
        origin, site = self.headers.get("origin"), self.headers.get("sec-fetch-site", "none")
        if origin is not None:
            if not (origin.lower() in allowed or _is_same_origin(origin, self.host)):
                raise CrossSiteError
        elif site not in ("none", "same-origin"):
            navigates = self.headers.get("sec-fetch-mode") == "navigate" and self.method in ("GET", "HEAD")
            if not navigates or self.headers.get("sec-fetch-dest", "document") != "document":
                raise CrossSiteError


def host_name(host: str) -> str:
    """Return the name in a Host header, in lower case and without its port; an IPv6 address keeps its brackets."""
    name = host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
    return name.lower().removesuffix(".")


def is_trusted_host(host: str, trusted: Collection[str]) -> bool:
    name = host_name(host)
    return name == "localhost" or is_loopback(name.strip("[]")) or name in trusted


def is_loopback(address: str) -> bool:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback


def _is_same_origin(origin: str, host: str) -> bool:
    """Return whether the Origin header names this host, with or without TLS."""
    try:
        page, server = urlsplit(origin.lower()), urlsplit(f"//{host}")
        default = _DEFAULT_PORTS.get(page.scheme)
        same_port = (page.port or default) == (server.port or default)
    except ValueError:
        return False
    return default is not None and same_port and page.hostname is not None and page.hostname == server.hostname
