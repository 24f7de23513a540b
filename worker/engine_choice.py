"""Choice of the engine for each model: the fastest variant that has the right words and fits into memory.

`ENGINE=auto` tries all installed variants when a machine first uses a model. An engine that ENGINE names is not tried,
except that the builds of whisper.cpp are. Results are kept in `worker/trial_cache.py`.
"""

from __future__ import annotations

import asyncio
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog
from rapidfuzz.distance import Levenshtein

from core.bundled import sample
from core.domain.models import model_of_file
from core.errors import ModelMissingError
from core.machine import available_memory
from worker import engine_variants
from worker.engine_trial import TRIAL_SECONDS, Outcome, try_variant
from worker.engine_variants import WHEEL, Variant, describe, installed
from worker.trial_cache import State, TrialCache, model_state

log = structlog.get_logger(__name__)
TOLERANCE = 0.1
"""Share of the recording's words that a variant may have wrong if the wheel has them right."""
WHEEL_TOLERANCE = 0.25
"""Share of words that may differ from the wheel's, for a model to which the recording's speech is foreign."""
NOISE = 1.1
"""Ratio of CPU times below which two variants count as equally fast; then the one that takes less memory is chosen."""
SLOWER = 1.5
"""Times the CPU time of a variant with the right words after which the trial of another one is stopped."""
LEAST_CPU_SECONDS = 2.0
"""CPU seconds that the runs of every variant get."""
STOPPED_AFTER = 4.0
"""Times the duration of a trial with the right words after which that of another one is stopped, such as one that
hangs."""
LEAST_SECONDS = 20.0
"""Seconds that every trial gets."""
TYPICAL = 3
"""CPU time of the wheel by that of the other engines where no trial has measured it (`docs/performance.md`)."""
CHANGES = 3
"""Times that a trial is repeated if the model is replaced meanwhile."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The variant for a model, its description for logs, `/health` and results, and why not the others.

    batch_size: the largest useful number of calls together; None: as the engine says when it is loaded.
    """

    variant: Variant
    description: str
    rejected: dict[Variant, str] = field(default_factory=dict)
    batch_size: int | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """A trial in progress: the variant that is tried is the `number`-th of `count`."""

    model: str
    number: int
    count: int


def words(text: str) -> list[str]:
    """Return the words in lower case, without punctuation."""
    return re.sub(r"[^\w\s]", " ", unicodedata.normalize("NFC", text).lower()).split()


@dataclass(frozen=True, slots=True)
class Judgement:
    """Words wrong, of how many, compared with the recording's text or with the wheel's; `right`: those accepted."""

    wrong: dict[Variant, int]
    right: list[Outcome]
    of: int


def judge(outcomes: Sequence[Outcome], text: str) -> Judgement:
    """Compare the words of the outcomes with the recording's text.

    A model to which this speech is foreign is held to what the wheel hears, if the wheel can run it.
    """
    complete = [outcome for outcome in outcomes if not outcome.error]
    reference, tolerance = words(text), TOLERANCE
    wheel = next((outcome for outcome in complete if outcome.engine == WHEEL), None)
    if wheel is not None and Levenshtein.distance(reference, words(wheel.text)) > tolerance * len(reference):
        reference, tolerance = words(wheel.text), WHEEL_TOLERANCE
    wrong = {outcome.variant: Levenshtein.distance(reference, words(outcome.text)) for outcome in complete}
    right = [
        outcome
        for outcome in complete
        if wrong[outcome.variant] <= tolerance * len(reference) and (words(outcome.text) or outcome is wheel)
    ]
    if not right and wheel is None:  # such as a model whose format the wheel cannot read
        right = [outcome for outcome in complete if words(outcome.text)]
    return Judgement(wrong, sorted(right, key=lambda outcome: outcome.cpu_seconds), len(reference))


def decide(outcomes: Sequence[Outcome], text: str, processes: int, available: int) -> Choice:
    """Return the variant of the fastest outcome with the right words that fits; of equally fast ones the smallest.

    processes: those that have the model loaded; available: bytes of memory. If none fits, the smallest is chosen; if
    none has the right words, the wheel, whose errors then become those of the jobs.
    """
    judgement = judge(outcomes, text)
    rejected = {outcome.variant: outcome.error for outcome in outcomes if outcome.error}
    for variant, wrong in judgement.wrong.items():
        if variant not in [outcome.variant for outcome in judgement.right]:
            rejected[variant] = f"{wrong} of {judgement.of} words differ"
    if not judgement.right:
        return Choice(Variant(WHEEL), f"{describe(Variant(WHEEL))}; no engine passed its trial", rejected)
    fitting = fit(judgement.right, processes, available)
    for outcome in judgement.right:
        if outcome not in fitting:
            rejected[outcome.variant] = (
                f"needs {outcome.peak_bytes * processes / 1e9:.1f} GB for {processes} processes, "
                f"{available / 1e9:.1f} GB are free"
            )
    equal = [outcome for outcome in fitting if ratio(outcome, fitting[0]) <= NOISE]
    chosen = min(equal or judgement.right, key=lambda outcome: outcome.peak_bytes)
    for outcome in fitting:
        if outcome in equal and outcome is not chosen:
            rejected[outcome.variant] = (
                f"as fast as {chosen.variant}, but takes {outcome.peak_bytes / 1e9:.1f} GB instead of "
                f"{chosen.peak_bytes / 1e9:.1f} GB"
            )
        elif outcome is not chosen:
            rejected[outcome.variant] = f"{ratio(outcome, chosen):.1f} times the CPU time of {chosen.variant}"
    description = _with_comparison(chosen, judgement.right[0], rejected)
    return Choice(chosen.variant, description, rejected, chosen.batch_size)


def fit(outcomes: Iterable[Outcome], processes: int, available: int) -> list[Outcome]:
    """Return those of which as many processes fit into the available bytes."""
    return [outcome for outcome in outcomes if outcome.peak_bytes * processes <= available]


def ratio(outcome: Outcome, other: Outcome) -> float:
    """Return the CPU time of an outcome by that of another."""
    return outcome.cpu_seconds / max(other.cpu_seconds, 1e-9)


def _with_comparison(chosen: Outcome, fastest: Outcome, rejected: dict[Variant, str]) -> str:
    text = describe(chosen.variant)
    if ratio(chosen, fastest) <= NOISE:
        return text
    reason = f", which {rejected[fastest.variant]}" if fastest.variant in rejected else ""
    return f"{text}, {ratio(chosen, fastest):.1f} times the CPU time of {fastest.variant}{reason}"


class EngineChoices:
    """The choices of one consumer, by model file."""

    def __init__(self, engine: str, processes: int, *, cache: TrialCache | None = None) -> None:
        """engine: as ENGINE; processes: engine processes of the consumer. Raises SettingsError if it does not exist."""
        self._engine, self._processes = engine, processes
        self._variants = installed(engine)
        self._cache = cache or TrialCache()
        self._choices: dict[tuple[Path, State], Choice] = {}
        self._descriptions: dict[str, str] = {}
        self._lock = asyncio.Lock()
        self.trial: Trial | None = None
        """The trial that this process runs now."""

    @property
    def only(self) -> Variant | None:
        """The variant that every model uses, if no trial is needed."""
        return self._variants[0] if len(self._variants) == 1 else None

    def descriptions(self) -> dict[str, str]:
        """Return the descriptions of the engines chosen so far, by model name."""
        return dict(self._descriptions)

    def known(self, model: Path) -> Choice | None:
        """Return the choice for a model; None if a trial is needed.

        Raises ModelMissingError if a trial is needed and the model cannot be read.
        """
        state = self._state(model)
        choice = self._choices.get((model, state))
        if choice is None and (choice := self._from_cache(model, state)) is not None:
            self._remember(model, state, choice)
        return choice

    def _from_cache(self, model: Path, state: State) -> Choice | None:
        if self.only is not None:
            return Choice(self.only, self._describe_only(self.only, model, state))
        outcomes = [self._cache.read(model, state, variant) for variant in self._variants]
        present = [outcome for outcome in outcomes if outcome is not None]
        return self._decide(present) if len(present) == len(outcomes) and self._comparable(present) else None

    def _describe_only(self, variant: Variant, model: Path, state: State) -> str:
        """Describe a variant that is used without a trial, with the results of earlier trials if there are any."""
        everything = installed() if "." not in variant.engine else [variant]
        found = [self._cache.read(model, state, other) for other in everything]
        outcomes = [outcome for outcome in found if outcome is not None]
        own = next((outcome for outcome in outcomes if outcome.variant == variant and not outcome.error), None)
        if own is not None and (right := judge(outcomes, sample()[1]).right):
            return _with_comparison(own, right[0], {})
        if variant.engine != WHEEL:
            return describe(variant)
        commands = " or ".join(f"`{target}`" for target in engine_variants.missing_targets())
        others = str(everything[0]) if len(everything) > 1 else f"the engines that {commands} installs"
        return f"{describe(variant)}, about {TYPICAL} times the CPU time of {others}"

    async def choose(self, model: Path) -> Choice:
        """Return the choice for a model, after a trial if needed. Concurrent calls wait for one trial.

        Raises ModelMissingError if the model cannot be read.
        """
        async with self._lock:
            choice = self.known(model)
            if choice is not None:
                return choice
            try:
                async with self._cache.lock(model):
                    state, outcomes = await self._try_all(model)
            finally:
                self.trial = None
            choice = self._decide(outcomes)
            self._remember(model, state, choice)
            return choice

    async def _try_all(self, model: Path) -> tuple[State, list[Outcome]]:
        """Return the results for the model as it is now. If it is replaced all the time, the last ones have to do."""
        for repeat in range(CHANGES):
            state = self._state(model)
            outcomes = await self._outcomes(model, state)
            if self._state(model) == state or repeat == CHANGES - 1:
                break
            log.warning("model replaced during its engine trial", action="engine_trial_void", model=model.name)
        return state, outcomes

    async def _outcomes(self, model: Path, state: State) -> list[Outcome]:
        """Return the results of all variants, from the cache as far as possible."""
        kept = [self._cache.read(model, state, variant) for variant in self._variants]
        outcomes = [outcome for outcome in kept if outcome is not None]
        if not self._comparable(outcomes):
            outcomes = [outcome for outcome in outcomes if not outcome.stopped]
        done = {outcome.variant for outcome in outcomes}
        for variant in [variant for variant in self._variants if variant not in done]:
            count = len(self._variants)
            self.trial = Trial(model_of_file(model.name) or model.name, len(outcomes) + 1, count)
            log.info(
                "choosing the fastest engine for this machine",
                action="engine_trial",
                model=model.name,
                variant=str(variant),
                number=self.trial.number,
                count=count,
            )
            outcome = await try_limited(variant, model, fit(outcomes, self._processes, available_memory()))
            log.info("tried an engine", action="engine_tried", model=model.name, **summary(outcome))
            if self._state(model) == state:
                self._cache.write(model, state, outcome)
            outcomes.append(outcome)
        return outcomes

    def _state(self, model: Path) -> State:
        try:
            return model_state(model)
        except OSError as error:
            if self.only is not None:  # the engine reports it
                return ()
            raise ModelMissingError("The model file {name} cannot be read.", name=model.name) from error

    def _comparable(self, outcomes: Sequence[Outcome]) -> bool:
        """Return True unless a trial was stopped and the faster ones are gone, or do not fit into memory any more."""
        if not any(outcome.stopped for outcome in outcomes):
            return True
        return bool(fit(judge(outcomes, sample()[1]).right, self._processes, available_memory()))

    def _decide(self, outcomes: Sequence[Outcome]) -> Choice:
        return decide(outcomes, sample()[1], self._processes, available_memory())

    def _remember(self, model: Path, state: State, choice: Choice) -> None:
        self._choices[model, state] = choice
        name = model_of_file(model.name) or model.name
        self._descriptions[name] = choice.description
        rejected = {str(variant): reason for variant, reason in choice.rejected.items()}
        log.info(
            "engine chosen", action="engine_chosen", model=name, engine=choice.description, not_chosen=rejected or None
        )


async def try_limited(variant: Variant, model: Path, earlier: Sequence[Outcome]) -> Outcome:
    """Try a variant; stop as soon as it is clearly slower than an earlier one that has the words of the recording."""
    right = judge(earlier, sample()[1]).right
    reference = words(sample()[1])
    certain = [o for o in right if Levenshtein.distance(reference, words(o.text)) <= TOLERANCE * len(reference)]
    if not certain:
        return await try_variant(variant, model)
    best = min(certain, key=lambda outcome: outcome.cpu_seconds)
    prepared = max(best.first_cpu_seconds - best.cpu_seconds, 0.0)
    outcome = await try_variant(
        variant,
        model,
        seconds=min(max(LEAST_SECONDS, STOPPED_AFTER * best.elapsed), TRIAL_SECONDS),
        cpu_limit=max(LEAST_CPU_SECONDS, SLOWER * best.cpu_seconds + prepared),
    )
    return replace(outcome, error=f"slower than {best.variant}: {outcome.error}") if outcome.stopped else outcome


def summary(outcome: Outcome) -> dict[str, object]:
    """Return the figures of an outcome for a log line."""
    if outcome.error:
        return {"variant": str(outcome.variant), "error": outcome.error}
    return {
        "variant": str(outcome.variant),
        "cpu_seconds": round(outcome.cpu_seconds, 3),
        "audio_seconds": round(outcome.audio_seconds, 1),
        "peak_mb": outcome.peak_bytes // 1_000_000,
    }
