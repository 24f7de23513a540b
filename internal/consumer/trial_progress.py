"""Announcement of the engine trial that a consumer runs, for which its jobs wait."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from core.domain.model_states import ModelState, PullState
from worker.engine_choice import EngineChoices, Trial

INTERVAL = 1.0
"""Seconds between two looks at the progress."""


@dataclass
class TrialProgress:
    """Progress of the trials of `engines`. announce: writes the heartbeat."""

    engines: EngineChoices
    announce: Callable[[], Awaitable[None]]
    _announced: Trial | None = None

    async def report(self) -> None:
        """Announce the trial if it has changed since the last call."""
        trial = self.engines.trial
        if trial != self._announced:
            await self.announce()
            self._announced = trial

    def added_to(self, states: list[ModelState]) -> list[ModelState]:
        """Return the states of the models, with the trial at its model's."""
        trial = self.engines.trial
        if trial is None:
            return states
        known = next((state for state in states if state.name == trial.model), None)
        tried = replace(known or ModelState(trial.model, PullState.INSTALLED), trial=trial.number, trials=trial.count)
        return [state for state in states if state is not known] + [tried]
