"""Streaming parser of multipart forms: passes file bytes on at once and collects fields, which may follow the file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Protocol

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from core.errors import FileMissingError, InvalidFieldError, MalformedUploadError

MAX_PARTS = 32
MAX_CONTENT_TYPE = 1024
MAX_FIELD_BYTES = 8 * 1024


class FileSink(Protocol):
    """Destination of the one file of a form."""

    async def begin(self, filename: str) -> None: ...
    async def write(self, data: bytes) -> None: ...


@dataclass(slots=True)
class _Part:
    headers: dict[str, bytes] = field(default_factory=dict)
    name: str = ""
    filename: str | None = None


_Event = tuple[str, _Part, bytes | bytearray]
SMALL_PIECE = 64
"""Size in bytes below which a piece is appended to the previous one."""


class _Events:
    """Callbacks of the parser, recorded as a list of events that the reader empties."""

    def __init__(self, boundary: bytes) -> None:
        self.pending: list[_Event] = []
        self.ended = False
        self.parts = 0
        self._part, self._header, self._value = _Part(), b"", b""
        self.parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._data,
                "on_end": self._end,
            },
        )

    def _begin(self) -> None:
        self._part, self._header, self._value = _Part(), b"", b""
        self.parts += 1
        if self.parts > MAX_PARTS:
            raise MalformedUploadError(
                "The form has more than {limit} parts. Send only `file` and its fields.", limit=MAX_PARTS
            )

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._part.headers[self._header.decode("latin-1").lower()] = self._value
        self._header, self._value = b"", b""

    def _headers_finished(self) -> None:
        kind, options = parse_options_header(self._part.headers.get("content-disposition"))
        if kind != b"form-data" or b"name" not in options:
            raise MalformedUploadError("A form part has no `Content-Disposition: form-data; name=…` header.")
        self._part.name = options[b"name"].decode("utf-8", errors="replace")
        if b"filename" in options:
            self._part.filename = options[b"filename"].decode("utf-8", errors="replace")
        self.pending.append(("begin", self._part, b""))

    def _data(self, data: bytes, start: int, end: int) -> None:
        # the parser passes bytes that look like the start of a boundary one by one
        if self.pending and self.pending[-1][0] == "data" and end - start < SMALL_PIECE:
            kind, part, before = self.pending[-1]
            joined = before if isinstance(before, bytearray) else bytearray(before)
            joined += data[start:end]
            self.pending[-1] = (kind, part, joined)
        else:
            self.pending.append(("data", self._part, data[start:end]))

    def _end(self) -> None:
        self.ended = True


async def read_form(content_type: str, body: AsyncIterator[bytes], sink: FileSink) -> dict[str, str]:
    """Write the file to `sink` and return the other fields.

    Raises MalformedUploadError, FileMissingError, InvalidFieldError, and the errors of `body` and `sink`.
    """
    events = _Events(_boundary(content_type))
    fields: dict[str, bytes] = {}
    files = 0
    async for data in body:
        try:
            events.parser.write(data)
        except FormParserError as error:
            raise MalformedUploadError from error
        for kind, part, piece in events.pending:
            if part.name == "file":
                files += await _file_event(kind, part, piece, sink, files)
            else:
                _collect(fields, kind, part.name, piece)
        events.pending.clear()
    if not events.ended:
        raise MalformedUploadError("The upload ended before the final boundary. Send it again.")
    if not files:
        raise FileMissingError
    return {name: value.decode("utf-8", errors="replace") for name, value in fields.items()}


def _boundary(content_type: str) -> bytes:
    # the parser's time is quadratic in the length of this header; its own limit covers only the headers of parts
    kind, options = parse_options_header(content_type[:MAX_CONTENT_TYPE])
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary or len(boundary) > 256:
        raise MalformedUploadError
    return boundary


async def _file_event(kind: str, part: _Part, piece: bytes | bytearray, sink: FileSink, files: int) -> int:
    """Handle an event of the file part; return 1 at the start of a file, otherwise 0."""
    if kind == "data":
        await sink.write(bytes(piece))
        return 0
    if files:
        raise InvalidFieldError("file", "The form has more than one `file` part. Send one recording per request.")
    if part.filename is None:
        raise FileMissingError("`file` is a text field. Send it as a file part with a file name.")
    await sink.begin(part.filename)
    return 1


def _collect(fields: dict[str, bytes], kind: str, name: str, piece: bytes | bytearray) -> None:
    """Add to a field. Of repeated parts the last wins, but those of a name ending in [] are joined with commas."""
    value = fields.get(name, b"")
    if kind == "begin":
        value = value + b"," if name.endswith("[]") and value else b""
    value += piece
    if len(value) > MAX_FIELD_BYTES:
        raise InvalidFieldError(
            name[:50], "The field `{name}` is longer than {limit} bytes.", name=name[:50], limit=MAX_FIELD_BYTES
        )
    fields[name] = value
