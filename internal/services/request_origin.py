"""Origin of a request, as its connection and headers show it: this machine, a proxy, another web site."""

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
"""Headers that reverse proxies and content delivery networks add."""
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class RequestOrigin:
    """peer: address of the connection; version: of HTTP; headers: with lower-case names."""

    peer: str
    method: str
    version: str = "1.1"
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def host(self) -> str:
        return self.headers.get("host", "").strip().lower()

    def reason_not_local(self, trusted: Collection[str]) -> str | None:
        """Return why the request may not come from a program on this machine; None if it may."""
        names = (name for name in self.headers if name in FORWARDING or name.startswith(FORWARDING_FAMILIES))
        forwarded = next(names, None)
        if not is_loopback(self.peer):
            return "the request comes from another machine"
        if forwarded is not None:
            return "the request was forwarded by a proxy"
        if self.version == "1.0":
            return "the request uses HTTP/1.0, as reverse proxies do"
        if not is_trusted_host(self.host, trusted):
            return "`Host` is not a name of this machine"
        return None

    def require_local(self, trusted: Collection[str]) -> None:
        """Raises LocalOnlyError."""
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
        """Raises CrossSiteError for a browser's request on behalf of another site's page.

        Navigation by GET passes: only the user sees its response.
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
    """Return whether `host` serves this Origin, over TLS or not."""
    try:
        theirs, ours = urlsplit(origin.lower()), urlsplit(f"//{host}")
        default = _DEFAULT_PORTS.get(theirs.scheme)
        same_port = (theirs.port or default) == (ours.port or default)
    except ValueError:
        return False
    return default is not None and same_port and theirs.hostname is not None and theirs.hostname == ours.hostname
