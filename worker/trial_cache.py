"""Results of engine trials on this machine, one file for each model file and variant."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path

import structlog
from filelock import FileLock, Timeout

from worker import engine_variants
from worker.engine_trial import Outcome
from worker.engine_variants import Variant
from worker.whisper_builds import cache_folder

log = structlog.get_logger(__name__)
FORMAT = 1
"""Version of the files, part of their name."""
FAILURE_SECONDS = 86_400.0
"""Seconds after which a failed trial is repeated: it may have lacked memory or time."""
POLL_SECONDS = 0.2
REPORT_SECONDS = 10.0
"""Seconds between two log lines while another process runs the trial."""

State = tuple[tuple[str, int, int], ...]
"""Names, sizes and times of a model's files."""


def model_state(model: Path) -> State:
    """Return a value that changes if the model is replaced. A model may be a folder. Raises OSError."""
    files = sorted(model.iterdir()) if model.is_dir() else [model]
    states = [(path.name, path.stat()) for path in files]
    return tuple((name, state.st_size, state.st_mtime_ns) for name, state in states)


class TrialCache:
    """Results in a folder, by default in the user's cache."""

    def __init__(self, folder: Path | None = None) -> None:
        self._given = folder

    @functools.cached_property
    def _folder(self) -> Path:
        return self._given or cache_folder() / "trials"

    def read(self, model: Path, state: State, variant: Variant) -> Outcome | None:
        """Return the result; None if there is none, it cannot be read, or it is a failure that should be repeated."""
        path = self._path(model, state, variant)
        try:
            outcome = Outcome.from_json(path.read_bytes())
            old = time.time() - path.stat().st_mtime > FAILURE_SECONDS
        except (OSError, ValueError):
            return None
        return outcome if outcome.variant == variant and not (outcome.error and old) else None

    def write(self, model: Path, state: State, outcome: Outcome) -> None:
        """Keep a result. A folder that cannot be written costs a trial at each start."""
        path = self._path(model, state, outcome.variant)
        temporary = path.with_suffix(f".{os.getpid()}")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary.write_text(json.dumps(asdict(outcome)))
            temporary.replace(path)
        except OSError as error:
            log.warning("result of an engine trial not kept", action="engine_trial_not_kept", reason=repr(error))

    def _path(self, model: Path, state: State, variant: Variant) -> Path:
        key = json.dumps([FORMAT, state, engine_variants.identity(variant)])
        return self._folder / f"{model.stem}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"

    @contextlib.asynccontextmanager
    async def lock(self, model: Path) -> AsyncIterator[None]:
        """Hold the model's lock, so that concurrent consumers run one trial. A folder without locks has none."""
        lock = FileLock(self._folder / f"{model.stem}.lock")
        held = await self._acquire(lock, model)
        try:
            yield
        finally:
            if held:
                lock.release()

    async def _acquire(self, lock: FileLock, model: Path) -> bool:
        waited = 0.0
        while True:
            try:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                lock.acquire(blocking=False)
            except Timeout:
                if waited % REPORT_SECONDS < POLL_SECONDS:
                    log.info("waiting for the engine trial of another process", action="trial_wait", model=model.name)
                waited += POLL_SECONDS
                await asyncio.sleep(POLL_SECONDS)
            except (OSError, NotImplementedError):
                return False
            else:
                return True
