"""Decoding of server-sent events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator

from internal.client.values import Event


async def decode(pieces: AsyncIterable[bytes]) -> AsyncIterator[Event]:
    """Yield the events of a stream of bytes. Comments, unknown fields and events without a JSON object are ignored.

    An event that is cut off by the end of the stream is dropped, as the standard demands.
    """
    kind, data, event_id = "message", "", None
    async for line in _lines(pieces):
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "event":
                kind = value
            elif name == "data":
                data += value
            elif name == "id":
                event_id = value
            continue
        if (body := _json_object(data)) is not None:
            yield Event(kind, body, event_id)
        kind, data, event_id = "message", "", None


async def _lines(pieces: AsyncIterable[bytes]) -> AsyncIterator[str]:
    """Yield the complete lines. They end with a line feed only: a text may contain other separators of lines."""
    rest = b""
    async for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r").decode(errors="replace")


def _json_object(data: str) -> dict[str, object] | None:
    try:
        body = json.loads(data)
    except ValueError:
        return None
    return body if isinstance(body, dict) else None
