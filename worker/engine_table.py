"""Table of the engine's variants on this machine, each tried with a model: speed, memory, words, and the choice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from core.bundled import sample
from core.domain.models import model_of_file
from core.machine import available_memory
from worker.engine_choice import decide, judge
from worker.engine_trial import Outcome, try_variant
from worker.engine_variants import describe, installed
from worker.trial_cache import TrialCache, model_state


@dataclass(frozen=True, slots=True)
class Row:
    """A variant with a model. The figures are None if its trial failed.

    audio_per_cpu_second: seconds of audio per second of CPU time, with full batches; clip_seconds: time to the text of
    a 10 s clip with all cores; peak_mb: memory of one engine process; words_wrong: of `words`; choice: `chosen`, or
    why not.
    """

    model: str
    variant: str
    description: str
    audio_per_cpu_second: float | None
    clip_seconds: float | None
    peak_mb: int | None
    words_wrong: int | None
    words: int
    choice: str


async def measure(model: Path, processes: int) -> AsyncIterator[str | list[Row]]:
    """Try every installed variant anew: yield its description before each trial, and at the end the table.

    processes: engine processes that have to fit into memory. The results replace those that consumers use.
    """
    cache, state, outcomes = TrialCache(), model_state(model), list[Outcome]()
    for variant in installed():
        yield describe(variant)
        outcome = await try_variant(variant, model, thorough=True)
        if model_state(model) == state:
            cache.write(model, state, outcome)
        outcomes.append(outcome)
    yield table(model, outcomes, processes, available_memory())


def table(model: Path, outcomes: list[Outcome], processes: int, available: int) -> list[Row]:
    """Return the rows of the outcomes, the fastest first. available: bytes of memory."""
    text = sample()[1]
    judgement, choice = judge(outcomes, text), decide(outcomes, text, processes, available)
    rows = []
    for outcome in sorted(outcomes, key=lambda outcome: (bool(outcome.error), outcome.cpu_seconds)):
        variant, failed = outcome.variant, bool(outcome.error)
        chosen = "chosen" if variant == choice.variant else choice.rejected.get(variant, "")
        rows.append(
            Row(
                model_of_file(model.name) or model.name,
                str(variant),
                describe(variant),
                None if failed else round(outcome.audio_seconds / max(outcome.cpu_seconds, 1e-9), 1),
                None if outcome.clip_seconds is None else round(outcome.clip_seconds, 2),
                None if failed else outcome.peak_bytes // 1_000_000,
                judgement.wrong.get(variant),
                judgement.of,
                chosen,
            )
        )
    return rows
