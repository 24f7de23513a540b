"""Logging through structlog, in one format for our own lines and those of libraries.

LOG_FILE is rotated at 100 MB and every day, compressed, and kept for 7 days. Each process writes its own file
(`stt.log` → `stt.consumer-1234.log`), so that a rotation loses no lines of other processes. uvicorn is started with
`log_config=None`, so that its loggers propagate to the root logger.
"""

from __future__ import annotations

import contextlib
import gzip
import logging
import logging.handlers
import os
import re
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

import structlog
from structlog.typing import EventDict, Processor

from core import tracing
from core.config import LogFormat, Settings

MAX_BYTES = 100 * 1024 * 1024
RETENTION_SECONDS = 7 * 86_400
MAX_TEXT = 2000
"""Characters per value of a line, including the message."""
MAX_TRACEBACK = 20_000
MAX_ITEMS, MAX_DEPTH = 50, 6
"""Items of a list or mapping in a line, and their nesting depth."""

# Lines contain text from clients, so each expression must take linear time: adjacent parts never match the same
# characters, and no search restarts inside a previous match.
_SECRET = re.compile(r"passw|passphrase|secret|token|authorization|api[-_]?key|credential|cookie", re.IGNORECASE)
_URL = re.compile(r"[^\s\"']*")
_QUERY = re.compile(r"\?[^\s\"']*")
_SIGNATURE = re.compile(r"x-amz-|signature=", re.IGNORECASE)
_BEARER = re.compile(r"\bBearer\s+[\w.~+/=-]{8,}")
_KEY = re.compile(r"\b(stt_[0-9a-f]{8,32}|whsec)_[\w+/=-]{16,}", re.ASCII)


def configure_from(settings: Settings, process: str) -> None:
    """Configure this process's log from the settings. DEBUG=true overrides LOG_LEVEL."""
    level = "DEBUG" if settings.debug else settings.log_level
    configure(level, settings.log_format, settings.log_file, process)


def configure(level: str, style: LogFormat, file: Path | None, process: str) -> None:
    """Log to standard error, and to `file` unless it is None. Replaces an earlier configuration."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        tracing.add_trace_id,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    console = style is LogFormat.CONSOLE or (style is LogFormat.AUTO and sys.stderr.isatty())
    handlers: list[logging.Handler] = [_handler(logging.StreamHandler(sys.stderr), shared, console)]
    if file is not None:
        handlers.append(_handler(RotatingLogFile(process_file(file, process), file), shared, console=False))
    root = logging.getLogger()
    for former in root.handlers:
        if isinstance(former, RotatingLogFile):
            former.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    _configure_libraries()


def _handler(handler: logging.Handler, shared: list[Processor], console: bool) -> logging.Handler:
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if console
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    last: list[Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        redact_secrets,  # after tracebacks have become text
        renderer,
    ]
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=last))
    return handler


def _configure_libraries() -> None:
    """Remove uvicorn's own handlers, and raise the level of libraries that log every step at INFO."""
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    # aiosqlite logs the parameters of statements; uvicorn's access log is replaced by our own
    for name in (
        *("uvicorn.access", "alembic"),
        *("httpx", "httpcore", "asyncio", "python_multipart", "aiosqlite"),
    ):
        logging.getLogger(name).setLevel(logging.WARNING)
    # during an outage they log several lines a second without a job or a code; our own lines have the reason
    for name in ("aiormq", "aio_pika", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def redact_secrets(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Replace values whose names suggest a secret, and remove users, passwords and queries from URLs and tracebacks.

    Long values are truncated afterwards, since a truncated secret might not be recognised.
    """
    for key, value in event.items():
        event[key] = _redact(key, value)
    return event


def _redact(key: str, value: Any, depth: int = 0) -> Any:
    """Redact one value, including nested ones. A number is never a secret (`tokens=12`)."""
    if isinstance(value, int | float | None):
        return value
    if _SECRET.search(key):
        return "***"
    if isinstance(value, str):
        return truncate(_redact_text(value), MAX_TRACEBACK if key == "exception" else MAX_TEXT)
    if isinstance(value, dict | list | tuple) and depth == MAX_DEPTH:
        return "…"
    if isinstance(value, dict):
        shown = list(value.items())[:MAX_ITEMS]
        return {truncate(str(name), 100): _redact(str(name), inner, depth + 1) for name, inner in shown}
    if isinstance(value, list | tuple):
        return [_redact(key, inner, depth + 1) for inner in value[:MAX_ITEMS]]
    return truncate(_redact_text(repr(value)), MAX_TEXT)


def truncate(text: str, limit: int) -> str:
    """Return the text, shortened to its start and end if it has more than `limit` characters."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}… {len(text) - 2 * half} characters …{text[-half:]}"


def _redact_text(text: str) -> str:
    if "://" in text:
        first, *rest = text.split("://")
        text = "://".join([first, *map(_redact_url, rest)])
    if "?" in text:
        text = _QUERY.sub(lambda match: "" if _SIGNATURE.search(match[0]) else match[0], text)
    if "_" in text:
        text = _KEY.sub(r"\1_***", text)
    return _BEARER.sub("Bearer ***", text) if "Bearer" in text else text


def _redact_url(text: str) -> str:
    """Remove user, password, query and fragment from the URL whose part after `://` starts `text`."""
    match = _URL.match(text)
    url = match[0] if match else ""
    authority, slash, path = url.partition("/")
    redacted = authority.rpartition("@")[2] + slash + path
    for mark in "?#":
        redacted = redacted.partition(mark)[0]
    return redacted + text[len(url) :]


def process_file(file: Path, process: str) -> Path:
    """Return this process's log file for LOG_FILE=`file`."""
    return file.with_name(f"{file.stem}.{process}-{os.getpid()}{file.suffix}")


class RotatingLogFile(logging.handlers.TimedRotatingFileHandler):
    """A log file that is rotated at midnight (UTC) and at `max_bytes`, and compressed in a thread.

    Each start and rotation deletes files of `base` (the value of LOG_FILE) that were last written more than seven days
    ago, including those of exited processes. If its own file is deleted, the next line creates it again.
    """

    def __init__(self, path: Path, base: Path, max_bytes: int = MAX_BYTES) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(path, when="midnight", utc=True, encoding="utf-8", delay=True)
        self.base = base
        self.max_bytes = max_bytes
        self.compressions: list[threading.Thread] = []
        self.rotator = self._compress
        self.namer = lambda name: f"{name}.{time.time_ns()}"
        self._delete_expired()

    def emit(self, record: logging.LogRecord) -> None:
        if self.stream is not None and not Path(self.baseFilename).exists():
            self.stream.close()
            self.stream = None
        super().emit(record)

    def shouldRollover(self, record: logging.LogRecord) -> int:
        path = Path(self.baseFilename)
        full = path.exists() and path.stat().st_size >= self.max_bytes
        return int(full or super().shouldRollover(record))

    def doRollover(self) -> None:
        super().doRollover()
        self._delete_expired()

    def close(self) -> None:
        super().close()
        for thread in self.compressions:
            thread.join()

    def _compress(self, source: str, target: str) -> None:
        """Compress in a thread, since 100 MB take seconds and the caller may be an event loop."""
        Path(source).rename(target)
        self.compressions = [thread for thread in self.compressions if thread.is_alive()]
        self.compressions.append(threading.Thread(target=compress, args=(Path(target),), name="compress log"))
        self.compressions[-1].start()

    def _delete_expired(self) -> None:
        for path in expired_files(self.base, time.time() - RETENTION_SECONDS):
            path.unlink(missing_ok=True)


def expired_files(base: Path, limit: float) -> list[Path]:
    """Return the files of all processes for LOG_FILE=`base` last written before `limit` (Unix time)."""
    pattern = re.compile(
        rf"{re.escape(base.stem)}\.[\w-]+-\d+{re.escape(base.suffix)}(\.\d{{4}}-\d\d-\d\d\.\d+(\.gz|\.part)?)?"
    )
    files = []
    for path in base.parent.iterdir():
        with contextlib.suppress(FileNotFoundError):  # deleted by another process meanwhile
            if pattern.fullmatch(path.name) and path.stat().st_mtime < limit:
                files.append(path)
    return files


def compress(path: Path) -> None:
    """Replace `path` with `path.gz`. At any time one of the two is complete."""
    part = path.with_name(path.name + ".part")
    with path.open("rb") as plain, gzip.open(part, "wb", compresslevel=6) as packed:
        shutil.copyfileobj(plain, packed)
    part.rename(path.with_name(path.name + ".gz"))
    path.unlink(missing_ok=True)
