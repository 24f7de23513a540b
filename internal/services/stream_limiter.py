"""Limit on the clients of one API process that wait for a job on an open connection."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

from core.errors import StreamsExhaustedError, TooManyStreamsError


class StreamLimiter:
    """Counts waiting clients, in total and by owner."""

    def __init__(self, total: int, per_owner: int) -> None:
        """total, per_owner: maximum numbers of waiting clients; 0: no limit."""
        self._total, self._per_owner = total, per_owner
        self._by_owner: Counter[str] = Counter()

    def acquire(self, owner: str) -> StreamSlot:
        """Return a slot for a client. Raises TooManyStreamsError (owner), StreamsExhaustedError (total)."""
        if self._by_owner[owner] >= self._per_owner > 0:
            raise TooManyStreamsError
        if self._by_owner.total() >= self._total > 0:
            raise StreamsExhaustedError
        self._by_owner[owner] += 1
        return StreamSlot(self, owner)

    @contextlib.contextmanager
    def slot(self, owner: str) -> Iterator[StreamSlot]:
        """Hold a slot for the block. Raises as `acquire` does."""
        slot = self.acquire(owner)
        try:
            yield slot
        finally:
            slot.release()

    def release(self, owner: str) -> None:
        self._by_owner[owner] -= 1
        if not self._by_owner[owner]:
            del self._by_owner[owner]


class StreamSlot:
    """The slot of one waiting client. `release` is idempotent."""

    def __init__(self, limiter: StreamLimiter, owner: str) -> None:
        self._limiter: StreamLimiter | None = limiter
        self._owner = owner

    def release(self) -> None:
        if self._limiter is not None:
            self._limiter.release(self._owner)
            self._limiter = None
