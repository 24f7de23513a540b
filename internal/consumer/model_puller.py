"""Installation of models by a consumer: those of MODELS, and those that an operator asked for.

Every consumer compares the wanted models with its own folder. Where several share a folder, its lock lets one download,
and the others find the file when they get the lock.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

import structlog

from core.config import Settings
from core.database import Database
from core.domain.model_states import ModelState, PullState
from core.error_base import SttError
from core.errors import InternalError, SettingsError
from core.errors_models import ModelNameError, ModelStoreError
from internal.periodic_tasks import PeriodicTasks
from repositories import wanted_models
from repositories.models import WantedModel
from worker.model_store.hub import HubSettings
from worker.model_store.progress import Progress
from worker.model_store.reference import ModelReference, parse
from worker.model_store.store import ModelStore

log = structlog.get_logger(__name__)
ROUND_SECONDS = 2.0
LOG_SECONDS = 30.0
FIRST_PAUSE, LONGEST_PAUSE = 10.0, 600.0
"""Seconds before a failed pull is tried again, doubled at each failure."""


@dataclass(slots=True)
class _Wanted:
    """A model to install.

    failures: in a row. retry_at: on the monotonic clock. file: identity of the valid file. present: whether the file
    was there at the last look. stop: ends its download.
    """

    reference: ModelReference
    configured: bool
    failures: int = 0
    retry_at: float = 0.0
    error: SttError | None = None
    progress: Progress | None = None
    file: tuple[int, int] | None = None
    present: bool = False
    stop: threading.Event = field(default_factory=threading.Event)


class ModelPuller:
    """Installs wanted models one after another, in a thread. `start` and `stop` are idempotent."""

    def __init__(
        self,
        store: ModelStore,
        database: Database,
        configured: Sequence[str],
        announce: Callable[[], Awaitable[None]],
        formats: Sequence[str],
    ) -> None:
        """announce: writes the heartbeat; formats: those that the engine reads, see `ModelCatalogue`.

        Raises SettingsError if MODELS names an unknown model.
        """
        self.store, self._formats = store, formats
        self._database, self._announce = database, announce
        self._wanted = {wanted.reference.name: wanted for wanted in map(_configured, configured)}
        self._tasks = PeriodicTasks()
        self._stopping = False
        self._pulling: str | None = None
        self._logged_at = 0.0

    @classmethod
    def from_settings(
        cls, settings: Settings, database: Database, announce: Callable[[], Awaitable[None]], formats: Sequence[str]
    ) -> ModelPuller:
        hub = HubSettings(settings.hf_endpoint, settings.hf_token, settings.models_mirror)
        return cls(ModelStore(settings.models_dir, hub), database, settings.models, announce, formats)

    def start(self) -> None:
        self._stopping = False
        self._tasks.start(ROUND_SECONDS, self.reconcile, "wanted models")
        self._tasks.start(ROUND_SECONDS, self.report, "progress of models")
        self._tasks.start(ROUND_SECONDS, self.stop_unwanted, "unwanted downloads")

    async def stop(self) -> None:
        """Stop. A download ends at its next block; what has arrived is kept for the next start."""
        self._stopping = True
        for wanted in self._wanted.values():
            wanted.stop.set()
        await self._tasks.stop()

    def states(self) -> list[ModelState]:
        """Return the state of the installed and the wanted models, by name. Reads the folder."""
        states = {
            model.name: ModelState(
                model.name,
                PullState.INSTALLED,
                done=model.size,
                total=model.size,
                source=model.record.source if model.record else "",
                configured=model.name in self._wanted and self._wanted[model.name].configured,
                removable=model.removable,
            )
            for model in self.store.installed()
            if model.format in self._formats
        }
        for name, wanted in list(self._wanted.items()):
            state = self._state(name, wanted)
            if name not in states:
                states[name] = state
            elif wanted.error is not None:
                states[name] = replace(states[name], error=state.error, detail=state.detail, values=state.values)
        return [states[name] for name in sorted(states)]

    def pending(self) -> list[str]:
        """Return the names of the models that this consumer is going to have. Reads no file."""
        wanted = list(self._wanted.items())
        return [name for name, item in wanted if not item.present and self._state(name, item).pending]

    def _state(self, name: str, wanted: _Wanted) -> ModelState:
        state = ModelState(name, PullState.QUEUED, source=str(wanted.reference), configured=wanted.configured)
        if name == self._pulling:
            progress = wanted.progress or Progress("")
            total = progress.total if progress.total is not None else wanted.reference.size
            return replace(state, state=PullState.PULLING, done=progress.done, total=total, rate=progress.rate)
        error = wanted.error
        if error is None:
            return state
        transient = isinstance(error, ModelStoreError) and error.transient
        kind = PullState.RETRYING if transient else PullState.FAILED
        return replace(state, state=kind, error=error.code, detail=error.detail, values=error.values)

    async def reconcile(self) -> None:
        """Read what is wanted, remove what no longer is, and install what is missing."""
        async with self._database.read() as session:
            rows = await wanted_models.list_all(session)
        before = set(self._wanted)
        for row in rows:
            await self._follow(row)
        if set(self._wanted) != before:
            await self._announce()
        for name, wanted in list(self._wanted.items()):
            if self._stopping:
                return
            await self._install(name, wanted)

    async def _follow(self, row: WantedModel) -> None:
        """Note a wanted model, or remove one that was installed before its removal was asked for."""
        present = self._wanted.get(row.name)
        if row.wanted:
            if present is None:
                try:
                    self._wanted[row.name] = _Wanted(parse(row.reference, row.name), configured=False)
                except ModelNameError:  # of a newer version's table
                    log.warning("unknown model is wanted", action="model_unknown", model=row.name)
            return
        if present is not None and present.configured:
            return
        self._wanted.pop(row.name, None)
        model = await asyncio.to_thread(self.store.get, row.name)
        if model is None or not model.removable:
            return
        assert model.record is not None
        if model.record.installed < row.changed_at.timestamp():
            await asyncio.to_thread(self.store.remove, row.name)
            log.info("model removed", action="model_removed", model=row.name)
            await self._announce()

    async def _install(self, name: str, wanted: _Wanted) -> None:
        """Install a model unless it is there or was tried a short time ago."""
        known, wanted.present = wanted.present, await asyncio.to_thread(self._is_there, name, wanted)
        if wanted.present:
            wanted.error, wanted.failures = None, 0
            if not known:
                await self._announce()
            return
        if time.monotonic() < wanted.retry_at or self._stopping:
            return
        self._pulling = name
        wanted.stop.clear()
        try:
            await self._in_thread(wanted)
        except SttError as error:
            self._note_failure(name, wanted, error)
        else:
            wanted.failures, wanted.error, wanted.present = 0, None, True
            await self.stop_unwanted()
        finally:
            self._pulling, wanted.progress = None, None
        if wanted.stop.is_set() and not self._stopping:
            await self._forget(name, wanted)
        await self._announce()

    def _note_failure(self, name: str, wanted: _Wanted, error: SttError) -> None:
        """Log a failure, which was not asked for, and note when to try again."""
        if wanted.stop.is_set():
            return
        wanted.failures += 1
        pause = min(FIRST_PAUSE * 2 ** min(wanted.failures - 1, 10), LONGEST_PAUSE)
        wanted.retry_at, wanted.error = time.monotonic() + max(pause, error.retry_after or 0.0), error
        log.warning(
            "model not installed",
            action="model_failed",
            model=name,
            code=error.code,
            reason=str(error),
            retry_seconds=round(pause),
        )

    async def _forget(self, name: str, wanted: _Wanted) -> None:
        """Drop what has arrived of a model whose removal was asked for during its download."""
        self._wanted.pop(name, None)
        await asyncio.to_thread(self.store.drop_part, wanted.reference)
        model = await asyncio.to_thread(self.store.get, name)
        if model is not None and model.removable and model.identity == wanted.file:
            await asyncio.to_thread(self.store.remove, name)
        log.info("download of an unwanted model stopped", action="model_download_stopped", model=name)

    async def stop_unwanted(self) -> None:
        """Stop the download in progress if its model is no longer wanted."""
        name = self._pulling
        wanted = self._wanted.get(name) if name else None
        if wanted is None or wanted.configured:
            return
        async with self._database.read() as session:
            rows = await wanted_models.list_all(session)
        if any(row.name == name and not row.wanted for row in rows):
            wanted.stop.set()

    def _is_there(self, name: str, wanted: _Wanted) -> bool:
        """Return True if the file is there and known to be valid; no byte of it is read."""
        model = self.store.get(name)
        if model is None:
            return False
        return wanted.file == model.identity or self.store.is_recorded(model, wanted.reference)

    async def _in_thread(self, wanted: _Wanted) -> None:
        """Run the pull in a thread of its own, which does not keep a stopping process alive. Raises SttError."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        failure: list[SttError] = []

        def report(progress: Progress) -> None:
            wanted.progress = progress

        def work() -> None:
            try:
                wanted.file = self.store.pull(wanted.reference, report, wanted.stop).identity
            except SttError as error:
                failure.append(error)
            except Exception:  # must not keep the other models from being installed
                log.exception("pull failed", action="model_failed", model=wanted.reference.name)
                failure.append(InternalError())
            finally:
                if not loop.is_closed():
                    loop.call_soon_threadsafe(done.set)

        threading.Thread(target=work, name="model pull", daemon=True).start()
        await done.wait()
        if failure:
            raise failure[0]

    async def report(self) -> None:
        """Announce and log the progress of a download."""
        name = self._pulling
        wanted = self._wanted.get(name) if name else None
        if name is None or wanted is None or wanted.progress is None:
            return
        await self._announce()
        if time.monotonic() - self._logged_at > LOG_SECONDS:
            self._logged_at = time.monotonic()
            progress = wanted.progress
            log.info(
                "model is being installed",
                action="model_progress",
                model=name,
                phase=progress.phase,
                bytes=progress.done,
                total=progress.total,
                megabytes_per_second=round(progress.rate / 1e6, 1),
                seconds_left=None if progress.remaining is None else round(progress.remaining),
            )


def _configured(text: str) -> _Wanted:
    try:
        return _Wanted(parse(text), configured=True)
    except ModelNameError as error:
        raise SettingsError(f"MODELS: {error}") from None
