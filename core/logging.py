"""structlog for everything: our lines and the libraries' in one format, with `job_id` and the like bound.

LOG_FILE rotates at 100 MB or a day, is compressed, and kept 7 days. Each process writes its own file
(`stt.log` → `stt.consumer-1234.log`), so that no rotation loses another process's lines.
"""

from __future__ import annotations

import gzip
import logging
import logging.handlers
import os
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import structlog
from structlog.typing import EventDict, Processor

from core.config import LogFormat

MAX_BYTES = 100 * 1024 * 1024
KEEP_SECONDS = 7 * 86_400
_SECRET = re.compile(r"pass|secret|token|authorization|api[-_]?key|credential", re.IGNORECASE)
_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+]*://)(?:[^\s/@\"']*@)?(?P<rest>[^\s?\"']*)(?:\?[^\s\"']*)?", re.IGNORECASE)


def configure(level: str, style: LogFormat, file: Path | None, process: str) -> None:
    """Send everything to standard error, and to `file` if there is one. Call it again to change it."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        without_secrets,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handlers: list[logging.Handler] = [_handler(logging.StreamHandler(sys.stderr), shared, _console(style))]
    if file is not None:
        handlers.append(_handler(RotatingFile(own_file(file, process)), shared, console=False))
    root = logging.getLogger()
    root.handlers[:] = handlers
    root.setLevel(level)
    _quieten()


def _console(style: LogFormat) -> bool:
    return style is LogFormat.CONSOLE or (style is LogFormat.AUTO and sys.stderr.isatty())


def _handler(handler: logging.Handler, shared: list[Processor], console: bool) -> logging.Handler:
    last: list[Processor] = (
        [structlog.dev.ConsoleRenderer()]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)]
    )
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last]
        )
    )
    return handler


def _quieten() -> None:
    """Libraries that tell every step at INFO; uvicorn's own handlers give way to ours."""
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    for name in ("aiormq", "aio_pika", "alembic", "urllib3", "httpx", "httpcore", "asyncio", "python_multipart"):
        logging.getLogger(name).setLevel(logging.WARNING)


def without_secrets(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Blank what is secret by its name; cut users, passwords and queries out of addresses."""
    for key, value in event.items():
        if _SECRET.search(key):
            event[key] = "***"
        elif isinstance(value, str) and "://" in value:
            event[key] = _URL.sub(r"\g<scheme>\g<rest>", value)
    return event


def own_file(file: Path, process: str) -> Path:
    return file.with_name(f"{file.stem}.{process}-{os.getpid()}{file.suffix}")


class RotatingFile(logging.handlers.TimedRotatingFileHandler):
    """Rotates at midnight (UTC) and at `max_bytes`; old files are gzipped and removed after seven days."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(path, when="midnight", utc=True, encoding="utf-8", delay=True)
        self.max_bytes = max_bytes
        self.rotator = compress
        self.namer = lambda name: f"{name}.{time.time_ns()}.gz"

    def shouldRollover(self, record: logging.LogRecord) -> int:
        path = Path(self.baseFilename)
        full = path.exists() and path.stat().st_size >= self.max_bytes
        return int(full or super().shouldRollover(record))

    def getFilesToDelete(self) -> list[str]:
        path = Path(self.baseFilename)
        stem = path.name.split(".")[0]
        limit = time.time() - KEEP_SECONDS
        return [str(old) for old in path.parent.glob(f"{stem}.*.gz") if old.stat().st_mtime < limit]

    def doRollover(self) -> None:
        super().doRollover()
        for old in self.getFilesToDelete():
            Path(old).unlink(missing_ok=True)


def compress(source: str, target: str) -> None:
    with Path(source).open("rb") as plain, gzip.open(target, "wb") as packed:
        shutil.copyfileobj(plain, packed)
    Path(source).unlink()
