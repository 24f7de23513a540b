"""structlog for everything: our lines and the libraries' in one format, with `job_id` and the like bound.

LOG_FILE rotates at 100 MB or a day, is compressed, and kept 7 days. Each process writes its own file
(`stt.log` → `stt.consumer-1234.log`), so that no rotation loses another process's lines. uvicorn is started with
`log_config=None`: its loggers then have no handlers of their own, and its lines come here.
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

from core.config import LogFormat, Settings

CHATTY = (
    *("uvicorn.access", "aiormq", "aio_pika", "alembic", "urllib3"),
    *("httpx", "httpcore", "asyncio", "python_multipart", "aiosqlite"),
)
"""Libraries that log every step, aiosqlite the parameters of statements too, and the access line, which is ours."""
MAX_BYTES = 100 * 1024 * 1024
KEEP_SECONDS = 7 * 86_400
LONGEST_TEXT = 2000
"""Characters of one value in a line; the message and every field alike."""
LONGEST_TRACEBACK = 20_000
MOST_ITEMS, DEEPEST = 50, 6
"""Items of one list or mapping in a line, and how far they nest."""

# Lines hold text that clients send, so every expression here takes time linear in the text: each alternative begins
# with a character that the one before it cannot hold, and no search starts anew inside what another has read.
_SECRET = re.compile(r"passw|passphrase|secret|token|authorization|api[-_]?key|credential|cookie", re.IGNORECASE)
_ADDRESS = re.compile(r"[^\s\"']*")
_QUERY = re.compile(r"\?[^\s\"']*")
_SIGNATURE = re.compile(r"x-amz-|signature=", re.IGNORECASE)
_BEARER = re.compile(r"\bBearer\s+[\w.~+/=-]{8,}")
_KEY = re.compile(r"\b(stt_[0-9a-f]{8,32}|whsec)_[\w+/=-]{16,}", re.ASCII)


def configure_from(settings: Settings, process: str) -> None:
    """Configure this process's log from the settings. DEBUG=true means level DEBUG whatever LOG_LEVEL says."""
    level = "DEBUG" if settings.debug else settings.log_level
    configure(level, settings.log_format, settings.log_file, process)


def configure(level: str, style: LogFormat, file: Path | None, process: str) -> None:
    """Send everything to standard error, and to `file` if there is one. Call it again to change it."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
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
    handlers: list[logging.Handler] = [_handler(logging.StreamHandler(sys.stderr), shared, _console(style))]
    if file is not None:
        handlers.append(_handler(RotatingLogFile(process_file(file, process), file), shared, console=False))
    root = logging.getLogger()
    for former in root.handlers:
        if isinstance(former, RotatingLogFile):
            former.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    _quieten()


def _console(style: LogFormat) -> bool:
    return style is LogFormat.CONSOLE or (style is LogFormat.AUTO and sys.stderr.isatty())


def _handler(handler: logging.Handler, shared: list[Processor], console: bool) -> logging.Handler:
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if console
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    last: list[Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        redact_secrets,  # last, so that tracebacks are text by now
        renderer,
    ]
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=last))
    return handler


def _quieten() -> None:
    """Libraries that tell every step at INFO; uvicorn's own handlers give way to ours."""
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)


def redact_secrets(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Blank what is secret by its name; cut users, passwords and queries out of addresses, tracebacks included.

    Long values are cut after that, so that no secret loses the end by which it is recognised.
    """
    for key, value in event.items():
        event[key] = _redact(key, value)
    return event


def _redact(key: str, value: Any, depth: int = 0) -> Any:
    """A count (`tokens=12`) is no secret; lists and mappings are searched too."""
    if isinstance(value, int | float | None):
        return value
    if _SECRET.search(key):
        return "***"
    if isinstance(value, str):
        return truncate(_redact_text(value), LONGEST_TRACEBACK if key == "exception" else LONGEST_TEXT)
    if isinstance(value, dict | list | tuple) and depth == DEEPEST:
        return "…"
    if isinstance(value, dict):
        shown = list(value.items())[:MOST_ITEMS]
        return {truncate(str(name), 100): _redact(str(name), inner, depth + 1) for name, inner in shown}
    if isinstance(value, list | tuple):
        return [_redact(key, inner, depth + 1) for inner in value[:MOST_ITEMS]]
    return truncate(_redact_text(repr(value)), LONGEST_TEXT)


def truncate(text: str, longest: int) -> str:
    """The text's beginning and end where it is longer than `longest` characters."""
    if len(text) <= longest:
        return text
    kept = longest // 2
    return f"{text[:kept]}… {len(text) - 2 * kept} characters …{text[-kept:]}"


def _redact_text(text: str) -> str:
    if "://" in text:
        first, *rest = text.split("://")
        text = "://".join([first, *map(_redact_url, rest)])
    if "?" in text:
        text = _QUERY.sub(lambda found: "" if _SIGNATURE.search(found[0]) else found[0], text)
    if "_" in text:
        text = _KEY.sub(r"\1_***", text)
    return _BEARER.sub("Bearer ***", text) if "Bearer" in text else text


def _redact_url(text: str) -> str:
    """`text` follows a `://`: its first word without user, password, query and fragment."""
    found = _ADDRESS.match(text)
    word = found[0] if found else ""
    authority, slash, path = word.partition("/")
    whole = authority.rpartition("@")[2] + slash + path
    for mark in "?#":
        whole = whole.partition(mark)[0]
    return whole + text[len(word) :]


def process_file(file: Path, process: str) -> Path:
    return file.with_name(f"{file.stem}.{process}-{os.getpid()}{file.suffix}")


class RotatingLogFile(logging.handlers.TimedRotatingFileHandler):
    """Rotates at midnight (UTC) and at `max_bytes`; what is rotated away is gzipped beside the writing.

    At each start and rotation, files of `family` (LOG_FILE as it is set) go that nobody wrote to for seven days, those
    of ended processes too. A file that goes while its process lives is made anew by the next line.
    """

    def __init__(self, path: Path, family: Path, max_bytes: int = MAX_BYTES) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(path, when="midnight", utc=True, encoding="utf-8", delay=True)
        self.family = family
        self.max_bytes = max_bytes
        self.packing: list[threading.Thread] = []
        self.rotator = self._pack
        self.namer = lambda name: f"{name}.{time.time_ns()}"
        self._remove_old()

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
        self._remove_old()

    def close(self) -> None:
        super().close()
        for thread in self.packing:
            thread.join()

    def _pack(self, source: str, target: str) -> None:
        """In a thread: a hundred megabytes take seconds, and the caller may be an event loop."""
        Path(source).rename(target)
        self.packing = [thread for thread in self.packing if thread.is_alive()]
        self.packing.append(threading.Thread(target=compress, args=(Path(target),), name="compress log"))
        self.packing[-1].start()

    def _remove_old(self) -> None:
        for old in expired_files(self.family, time.time() - KEEP_SECONDS):
            old.unlink(missing_ok=True)


def expired_files(family: Path, limit: float) -> list[Path]:
    """Files that some process wrote for LOG_FILE=`family`, last before `limit` (seconds since 1970)."""
    ours = re.compile(
        rf"{re.escape(family.stem)}\.[\w-]+-\d+{re.escape(family.suffix)}(\.\d{{4}}-\d\d-\d\d\.\d+(\.gz|\.part)?)?"
    )
    found = []
    for path in family.parent.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process is clearing up too
            if ours.fullmatch(path.name) and path.stat().st_mtime < limit:
                found.append(path)
    return found


def compress(path: Path) -> None:
    """`path` becomes `path.gz`; whatever happens, one of the two is whole."""
    part = path.with_name(path.name + ".part")
    with path.open("rb") as plain, gzip.open(part, "wb", compresslevel=6) as packed:
        shutil.copyfileobj(plain, packed)
    part.rename(path.with_name(path.name + ".gz"))
    path.unlink(missing_ok=True)
