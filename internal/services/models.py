"""The models of the live workers: those that jobs can use, and those that are being installed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from core.database import Database
from core.domain.model_states import ModelState, PullState, pending_names
from core.domain.models import DEMO, canonical
from core.errors_models import ModelConfiguredError, ModelNotInstalledError, ModelNotManagedError
from repositories import wanted_models, workers
from repositories.models import WantedModel
from worker.model_store import registry
from worker.model_store.reference import parse, shown

log = structlog.get_logger(__name__)
AVAILABLE, IMPORT = "available", "import"
ORDER = (*PullState, AVAILABLE, IMPORT)


@dataclass(frozen=True, slots=True)
class LiveModels:
    """Models of the live workers. workers: their number; since: start of the oldest in seconds since 1970, or 0.

    pending: models that a worker is installing.
    """

    names: list[str]
    workers: int
    since: int
    pending: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ModelView:
    """A model of the list.

    state: that of the worker that is nearest to having it; `available` or `import` if none is. done, total: bytes.
    rate: bytes per second. failure: the last error of an installation. workers: number of those that have the model.
    """

    name: str
    state: str
    done: int
    total: int | None
    rate: float
    memory_mb: int | None
    languages: str | None
    speed: str | None
    licence: str | None
    source: str | None
    workers: int
    failure: ModelState | None

    @property
    def remaining_seconds(self) -> float | None:
        if self.total is None or self.rate <= 0 or self.state != PullState.PULLING:
            return None
        return round((self.total - self.done) / self.rate, 1)


@dataclass(frozen=True, slots=True)
class Models:
    """The models that jobs can use now, and the wish list that consumers follow."""

    database: Database

    async def live(self) -> LiveModels:
        async with self.database.read() as session:
            live = await workers.list_live(session)
        since = min((int(worker.started_at.timestamp()) for worker in live), default=0)
        pending = pending_names(state for _, state in workers.model_states(live))
        return LiveModels(workers.available_models(live), len(live), since, pending)

    async def list_all(self) -> list[ModelView]:
        """Return the installed models, those that are being installed, and the rest of the table."""
        async with self.database.read() as session:
            live = await workers.list_live(session)
            rows = await wanted_models.list_all(session)
        states: dict[str, list[tuple[str, ModelState]]] = {}
        for worker, state in workers.model_states(live):
            states.setdefault(state.name, []).append((worker, state))
        for worker_row in live:  # the demo model, and workers of an older version
            for name in worker_row.models:
                known = states.setdefault(name, [])
                if all(worker != worker_row.worker_id for worker, _ in known):
                    known.append((worker_row.worker_id, ModelState(name, PullState.INSTALLED)))
        for row in rows:
            if row.wanted and row.name not in states:
                states[row.name] = [("", ModelState(row.name, PullState.QUEUED, source=row.reference))]
        views = [_view(name, known) for name, known in states.items()]
        views += [_offered(entry) for name, entry in registry.entries().items() if name not in states]
        views += [_recipe(recipe) for name, recipe in registry.recipes().items() if name not in states]
        return sorted(views, key=lambda view: ORDER.index(view.state))

    async def install(self, text: str, name: str | None = None) -> ModelView:
        """Ask all consumers to install a model; return it. Idempotent. Raises ModelNameError."""
        reference = parse(text, name)
        async with self.database.write() as session:
            await wanted_models.record(session, reference.name, str(reference), wanted=True)
        log.info("model wanted", action="model_wanted", model=reference.name, source=str(reference))
        return next(view for view in await self.list_all() if view.name == reference.name)

    async def remove(self, name: str) -> None:
        """Ask all consumers to remove a model that they installed.

        Raises ModelNotInstalledError, ModelNotManagedError for one put there by hand, and ModelConfiguredError for one
        that MODELS names.
        """
        name = canonical(name)
        async with self.database.write() as session:
            row = next((row for row in await wanted_models.list_all(session) if row.name == name and row.wanted), None)
            live = await workers.list_live(session)
            known = [state for _, state in workers.model_states(live) if state.name == name]
            if any(state.configured for state in known):
                raise ModelConfiguredError("{name} is in MODELS of a worker, which would install it again.", name=name)
            _check_removable(name, row, known, workers.available_models(live))
            reference = row.reference if row else next((state.source for state in known if state.source), name)
            await wanted_models.record(session, name, reference, wanted=False)
        log.info("model unwanted", action="model_unwanted", model=name)


def _check_removable(name: str, row: WantedModel | None, known: Sequence[ModelState], present: Sequence[str]) -> None:
    if row is not None or any(state.removable for state in known):
        return
    if known or name in present or name.startswith(DEMO):
        raise ModelNotManagedError("{name} was not written by `stt models pull`. Remove it by hand.", name=name)
    raise ModelNotInstalledError("No worker has the model {value}.", value=shown(name))


def _view(name: str, known: Sequence[tuple[str, ModelState]]) -> ModelView:
    nearest = min((state for _, state in known), key=lambda state: list(PullState).index(state.state))
    entry = registry.entries().get(name)
    return ModelView(
        name=name,
        state=nearest.state.value,
        done=nearest.done,
        total=nearest.total if nearest.total is not None else entry.size if entry else None,
        rate=nearest.rate,
        memory_mb=entry.memory if entry else None,
        languages=entry.languages if entry else None,
        speed=entry.speed or None if entry else None,
        licence=entry.licence if entry else None,
        source=nearest.source or None,
        workers=sum(state.state is PullState.INSTALLED for _, state in known),
        failure=next((state for _, state in known if state.error), None),
    )


def _offered(entry: registry.ModelEntry) -> ModelView:
    return ModelView(
        name=entry.name,
        state=AVAILABLE,
        done=0,
        total=entry.size,
        rate=0.0,
        memory_mb=entry.memory or None,
        languages=entry.languages,
        speed=entry.speed or None,
        licence=entry.licence,
        source=f"{entry.repository}:{entry.file}",
        workers=0,
        failure=None,
    )


def _recipe(recipe: registry.Recipe) -> ModelView:
    return ModelView(
        name=recipe.name,
        state=IMPORT,
        done=0,
        total=None,
        rate=0.0,
        memory_mb=None,
        languages=" ".join(recipe.languages),
        speed=None,
        licence=recipe.licence,
        source=recipe.repository,
        workers=0,
        failure=None,
    )
