"""A cap on the clients of one API process that hold a connection open while a job runs."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

from core.config import Settings
from core.errors import StreamsExhaustedError, TooManyStreamsError


class Streams:
    """Counts waiting clients, in total and by owner. An owner without any takes no memory."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._by_owner: Counter[str] = Counter()

    def take(self, owner: str) -> Slot:
        """Raises TooManyStreamsError, StreamsExhaustedError."""
        settings = self._settings
        if self._by_owner[owner] >= settings.max_event_streams_per_owner > 0:
            raise TooManyStreamsError
        if self._by_owner.total() >= settings.max_event_streams > 0:
            raise StreamsExhaustedError
        self._by_owner[owner] += 1
        return Slot(self, owner)

    @contextlib.contextmanager
    def held(self, owner: str) -> Iterator[Slot]:
        """A place until the block ends. Raises as `take`."""
        slot = self.take(owner)
        try:
            yield slot
        finally:
            slot.leave()

    def leave(self, owner: str) -> None:
        self._by_owner[owner] -= 1
        if not self._by_owner[owner]:
            del self._by_owner[owner]


class Slot:
    """One client's place; leaving twice is harmless."""

    def __init__(self, streams: Streams, owner: str) -> None:
        self._streams: Streams | None = streams
        self._owner = owner

    def leave(self) -> None:
        if self._streams is not None:
            self._streams.leave(self._owner)
            self._streams = None
