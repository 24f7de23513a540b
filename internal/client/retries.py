"""Retries of calls: which failures are worth one, and the pauses between them."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx

REPEATED_STATUSES = frozenset({408, 429, 502, 503, 504})
"""Statuses after which the same request may succeed."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Pauses between the attempts of a call, in seconds: `first`, doubled each time up to `longest`.

    A call ends with its last error once `total` seconds have passed since its first failure, and at once if the
    service asks for a longer pause than is left. total=0: no retries.
    """

    total: float = 120.0
    first: float = 0.5
    longest: float = 15.0


class Attempts:
    """The attempts of one call."""

    def __init__(self, policy: RetryPolicy, on_retry: Callable[[Exception, float], None] | None = None) -> None:
        self._policy, self._on_retry = policy, on_retry
        self._pause = policy.first
        self._end: float | None = None

    def pause_after(self, error: Exception, retry_after: float | None = None) -> float:
        """Return the seconds until the next attempt. Raises the error if there is none.

        retry_after: the pause that the service asks for; without one, up to half of the pause is left out at random,
        so that many clients do not come back together.
        """
        now = time.monotonic()
        self._end = self._end if self._end is not None else now + self._policy.total
        pause = retry_after if retry_after is not None else self._pause * random.uniform(0.5, 1.0)
        if now + pause > self._end:
            raise error
        self._pause = min(self._pause * 2, self._policy.longest)
        if self._on_retry is not None:
            self._on_retry(error, pause)
        return pause

    def succeeded(self) -> None:
        """Start over, after data has arrived."""
        self._pause, self._end = self._policy.first, None


def retry_after(response: httpx.Response) -> float | None:
    """Return the seconds of Retry-After, or None if there is none or it is not a number."""
    try:
        seconds = float(response.headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def was_not_sent(error: httpx.TransportError) -> bool:
    """Return True if no connection was made, so that any request may be repeated."""
    return isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)


def is_final(error: httpx.TransportError) -> bool:
    """Return True if a retry has the same result: a certificate that is not trusted, an address without a protocol."""
    return "CERTIFICATE_VERIFY_FAILED" in str(error) or isinstance(error, httpx.UnsupportedProtocol)
