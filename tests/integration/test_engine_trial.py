"""Trials of engines in child processes, their cache, and the choice between them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest
import structlog.testing

from core.bundled import sample
from core.domain.job import JobStatus
from core.errors import ModelMissingError, SettingsError
from internal.bootstrap import Application
from internal.services.health import EngineTrial
from repositories import jobs
from repositories.models import Job
from tests.integration.test_consumer import open_application, running_consumer, settings_for, submit_audio, wait_for_end
from tests.servers.base import wait_until
from tests.speech import MODEL, ROOT, silence
from worker import engine_choice, engine_variants
from worker.engine_choice import Choice, EngineChoices, decide, judge, try_limited
from worker.engine_trial import Outcome, try_variant
from worker.engine_variants import WHEEL, Variant, describe, installed
from worker.pool import Pool
from worker.transcriber import Options
from worker.trial_cache import TrialCache, model_state

TEXT = sample()[1]
WRONG = "nothing of what was said"
LEAST = 10**6
ENGINE = "tests.integration.trial_engines"


def trials(consumer: psutil.Process) -> list[psutil.Process]:
    """Return the trials that a process runs."""
    return [child for child in consumer.children() if "worker.engine_trial" in child.cmdline()]


def fake(behaviour: str) -> Variant:
    return Variant(ENGINE, behaviour)


def outcome(engine: str, cpu_seconds: float, text: str = TEXT, **more: object) -> Outcome:
    return Outcome(engine, text=text, cpu_seconds=cpu_seconds, peak_bytes=LEAST, **more)  # type: ignore[arg-type]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "models" / "ggml-some.bin"
    path.parent.mkdir()
    path.write_bytes(MODEL.read_bytes()[:1000])
    return path


@pytest.fixture
def choices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EngineChoices:
    """Two variants that a trial has to choose from: a slow one and a fast one."""
    monkeypatch.setattr(engine_choice, "installed", lambda _engine="auto": [fake("slow"), fake("fast")])
    return EngineChoices("auto", 1, cache=TrialCache(tmp_path / "trials"))


# -- one trial ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("behaviour", "error"),
    [("illegal", "ended by SIGILL"), ("memory", "out of memory"), ("hangs", "not done within 2 s"), ("fine", "")],
)
async def test_a_trial_survives_its_variant(behaviour: str, error: str, model: Path) -> None:
    result = await try_variant(fake(behaviour), model, seconds=2 if behaviour == "hangs" else 60)
    assert result.error == error
    assert result.text == ("" if error else TEXT)
    assert result.variant == fake(behaviour)


async def test_a_missing_engine_or_model_is_a_failed_trial(tmp_path: Path) -> None:
    assert "No module" in (await try_variant(Variant("tests.none"), MODEL)).error or True
    result = await try_variant(Variant(WHEEL), tmp_path / "ggml-none.bin")
    assert "ggml-none.bin" in result.error


@pytest.mark.speech
@pytest.mark.parametrize("variant", installed(), ids=str)
async def test_every_installed_variant_has_the_words_of_the_sample(variant: Variant) -> None:
    result = await try_variant(variant, MODEL, thorough=True)
    assert result.error == ""
    assert judge([result], TEXT).wrong == {variant: 0}
    assert 0 < result.cpu_seconds < result.audio_seconds
    assert result.clip_seconds is not None
    assert 20e6 < result.peak_bytes < 2e9


def test_a_trial_ends_with_its_consumer(model: Path) -> None:
    code = f"""
import asyncio, pathlib
from worker.engine_trial import try_variant
from worker.engine_variants import Variant
asyncio.run(try_variant(Variant({ENGINE!r}, "hangs"), pathlib.Path({str(model)!r})))
"""
    consumer = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    try:
        wait_until(lambda: bool(trials(psutil.Process(consumer.pid))), "the trial runs", 30)
        [trial] = trials(psutil.Process(consumer.pid))
    finally:
        consumer.send_signal(signal.SIGKILL)
        consumer.wait()
    wait_until(lambda: not trial.is_running(), "the trial has ended", 30)


async def test_a_cancelled_trial_leaves_no_process(model: Path) -> None:
    task = asyncio.create_task(try_variant(fake("hangs"), model))
    while not trials(psutil.Process()):
        await asyncio.sleep(0.05)
    [trial] = trials(psutil.Process())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not trial.is_running()


# -- the words ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("outcomes", "right"),
    [
        ([outcome("a", 1), outcome(WHEEL, 2)], ["a", WHEEL]),
        ([outcome("a", 1, WRONG), outcome(WHEEL, 2)], [WHEEL]),
        ([outcome("a", 1, ""), outcome(WHEEL, 2)], [WHEEL]),
        # a model that does not understand this speech is held to the wheel's words
        ([outcome("a", 1, WRONG), outcome(WHEEL, 2, WRONG)], ["a", WHEEL]),
        ([outcome("a", 1, TEXT), outcome(WHEEL, 2, WRONG)], [WHEEL]),
        ([outcome("a", 1, ""), outcome(WHEEL, 2, "")], [WHEEL]),
        # the wheel cannot read the model
        ([outcome("a", 1, WRONG), outcome(WHEEL, 0, "", error="format")], ["a"]),
        ([outcome("a", 1, ""), outcome(WHEEL, 0, "", error="format")], []),
        ([outcome("a", 1, TEXT.upper().replace(".", " !")), outcome(WHEEL, 2)], ["a", WHEEL]),
    ],
)
def test_words_are_compared_with_the_text_or_the_wheel(outcomes: list[Outcome], right: list[str]) -> None:
    assert [found.engine for found in judge(outcomes, TEXT).right] == right


# -- the choice --------------------------------------------------------------------------------------------------------
def test_the_fastest_with_the_right_words_is_chosen() -> None:
    choice = decide([outcome("a", 1, WRONG), outcome("b", 2), outcome(WHEEL, 5)], TEXT, 2, 10**9)
    assert choice.variant == Variant("b")
    assert choice.description == "b"
    assert choice.rejected == {
        Variant("a"): f"{judge([outcome('a', 1, WRONG)], TEXT).wrong[Variant('a')]} of 39 words differ",
        Variant(WHEEL): "2.5 times the CPU time of b",
    }


def test_an_engine_that_does_not_fit_is_not_chosen() -> None:
    outcomes = [outcome("b", 2, batch_size=4), outcome(WHEEL, 5)]
    outcomes[0] = Outcome("b", text=TEXT, cpu_seconds=2, peak_bytes=3 * LEAST)
    assert decide(outcomes, TEXT, 2, 6 * LEAST).variant == Variant("b")
    choice = decide(outcomes, TEXT, 2, 5 * LEAST)
    assert choice.variant == Variant(WHEEL)
    assert choice.rejected[Variant("b")] == "needs 0.0 GB for 2 processes, 0.0 GB are free"
    assert choice.description.startswith(f"{describe(Variant(WHEEL))}, 2.5 times the CPU time of b, which needs 0.0 GB")
    assert decide(outcomes, TEXT, 2, 1).variant == Variant(WHEEL), "the smallest, if none fits"


def test_of_equally_fast_engines_the_smaller_is_chosen() -> None:
    large = Outcome("a", text=TEXT, cpu_seconds=2.0, peak_bytes=3 * 10**9)
    small = Outcome("b", text=TEXT, cpu_seconds=2.15, peak_bytes=10**9)
    choice = decide([large, small, outcome(WHEEL, 6)], TEXT, 1, 10**10)
    assert choice.variant == Variant("b")
    assert choice.description == "b"
    assert choice.rejected[Variant("a")] == "as fast as b, but takes 3.0 GB instead of 1.0 GB"
    assert decide([large, replace(small, cpu_seconds=2.3)], TEXT, 1, 10**10).variant == Variant("a")


def test_without_a_variant_that_works_the_wheel_is_chosen() -> None:
    failed = [Outcome("a", error="ended by SIGILL"), Outcome(WHEEL, error="out of memory")]
    choice = decide(failed, TEXT, 1, 10**9)
    assert choice.variant == Variant(WHEEL)
    assert "no engine passed its trial" in choice.description
    assert choice.rejected == {Variant("a"): "ended by SIGILL", Variant(WHEEL): "out of memory"}


async def test_a_model_is_tried_once(choices: EngineChoices, model: Path, tmp_path: Path) -> None:
    assert choices.known(model) is None
    with structlog.testing.capture_logs() as logs:
        first, second = await asyncio.gather(choices.choose(model), choices.choose(model))
    assert first is second
    assert first.variant == fake("fast")
    assert [line["action"] for line in logs].count("engine_trial") == 2
    again = EngineChoices("auto", 1, cache=TrialCache(tmp_path / "trials"))
    assert again.known(model) == first
    assert again.descriptions() == {"some": first.description}


async def test_consumers_of_one_machine_run_one_trial(choices: EngineChoices, model: Path, tmp_path: Path) -> None:
    other = EngineChoices("auto", 1, cache=TrialCache(tmp_path / "trials"))
    with structlog.testing.capture_logs() as logs:
        first, second = await asyncio.gather(choices.choose(model), other.choose(model))
    actions = [line["action"] for line in logs]
    assert first == second
    assert actions.count("engine_trial") == 2
    assert actions.count("trial_wait") == 1


async def test_each_model_has_its_own_choice(choices: EngineChoices, model: Path) -> None:
    other = model.with_name("ggml-other.bin")
    other.write_bytes(b"other")
    await choices.choose(model)
    assert choices.known(other) is None
    await choices.choose(other)
    assert sorted(choices.descriptions()) == ["other", "some"]


async def test_a_replaced_model_is_tried_again(
    choices: EngineChoices, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Variant] = []

    async def replace_during_trial(variant: Variant, path: Path, earlier: object) -> Outcome:
        tried.append(variant)
        if len(tried) == 1:
            path.write_bytes(b"a new model")
        return await try_variant(variant, path)

    monkeypatch.setattr(engine_choice, "try_limited", replace_during_trial)
    with structlog.testing.capture_logs() as logs:
        await choices.choose(model)
    assert tried == [fake("slow"), fake("fast")] * 2
    assert "engine_trial_void" in [line["action"] for line in logs]
    assert choices.known(model) is not None
    model.write_bytes(b"another one")
    assert choices.known(model) is None


async def test_a_model_that_disappears_is_missing(choices: EngineChoices, model: Path) -> None:
    model.unlink()
    with pytest.raises(ModelMissingError):
        choices.known(model)
    with pytest.raises(ModelMissingError):
        await choices.choose(model)


# -- the cache ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "content", ["", "{", "null", '{"engine": 1}', '["slow"]', '{"engine": "x", "unknown": 2}', "ÿ"]
)
async def test_a_damaged_cache_costs_a_trial(content: str, choices: EngineChoices, model: Path, tmp_path: Path) -> None:
    first = await choices.choose(model)
    for path in (tmp_path / "trials").glob("*.json"):
        path.write_text(content)
    again = EngineChoices("auto", 1, cache=TrialCache(tmp_path / "trials"))
    assert again.known(model) is None
    assert (await again.choose(model)).variant == first.variant


async def test_an_unwritable_cache_costs_a_trial(choices: EngineChoices, model: Path, tmp_path: Path) -> None:
    (tmp_path / "trials").write_text("not a folder")
    assert (await choices.choose(model)).variant == fake("fast")
    assert choices.known(model) is not None, "for as long as the consumer runs"


def test_a_read_only_models_folder_needs_no_write(choices: EngineChoices, model: Path) -> None:
    model.parent.chmod(0o500)
    try:
        assert asyncio.run(choices.choose(model)).variant == fake("fast")
        assert list(model.parent.iterdir()) == [model]
    finally:
        model.parent.chmod(0o700)


@pytest.mark.parametrize(
    "wrong", [{"text": None}, {"cpu_seconds": "1"}, {"cpu_seconds": -1.0}, {"peak_bytes": None}, {"build": 1}]
)
def test_a_result_with_wrong_values_is_no_result(wrong: dict[str, object]) -> None:
    good = asdict(outcome("a", 1))
    assert Outcome.from_json(json.dumps(good)) == outcome("a", 1)
    with pytest.raises(ValueError, match="not an outcome"):
        Outcome.from_json(json.dumps(good | wrong))


def test_a_failure_is_tried_again_after_a_day(model: Path, tmp_path: Path) -> None:
    cache, state = TrialCache(tmp_path), model_state(model)
    for result in (Outcome("a", error="ended by SIGKILL"), outcome("b", 1)):
        cache.write(model, state, result)
        assert cache.read(model, state, result.variant) == result
    for path in tmp_path.glob("*.json"):
        os.utime(path, (0, 0))
    assert cache.read(model, state, Variant("a")) is None
    assert cache.read(model, state, Variant("b")) is not None


def test_a_model_may_be_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_bytes(b"1")
    before = model_state(folder)
    (folder / "config").write_bytes(b"2")
    assert model_state(folder) != before


# -- variants ----------------------------------------------------------------------------------------------------------
def test_a_pinned_engine_needs_no_trial(model: Path, tmp_path: Path) -> None:
    for engine in (WHEEL, "openvino", ENGINE):
        choices = EngineChoices(engine, 1, cache=TrialCache(tmp_path / "none"))
        choice = choices.known(model)
        assert choice is not None
        assert choice.variant == Variant(engine)
        assert choice.description.startswith(engine)


def test_a_pinned_engine_is_compared_with_what_was_tried(model: Path, tmp_path: Path) -> None:
    cache = TrialCache(tmp_path)
    for result in (outcome("openvino", 1), outcome(WHEEL, 3)):
        cache.write(model, model_state(model), result)
    choice = EngineChoices(WHEEL, 1, cache=cache).known(model)
    assert choice is not None
    assert choice.description == f"{describe(Variant(WHEEL))}, 3.0 times the CPU time of openvino"


def test_the_wheel_names_the_commands_that_install_a_faster_engine(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_variants, "OPTIONAL", {"openvino": ("no_such_package",)})
    monkeypatch.setattr("worker.whisper_builds.FOLDER", tmp_path)
    assert installed() == [Variant(WHEEL)]
    choice = EngineChoices("auto", 1, cache=TrialCache(tmp_path)).known(model)
    assert choice is not None, "one variant needs no trial"
    assert "about 3 times the CPU time of the engines that `make openvino` or `make engine` installs" in (
        choice.description
    )
    with pytest.raises(SettingsError, match="make openvino"):
        installed("openvino")


def test_a_variant_is_described_with_version_and_instruction_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert describe(Variant(WHEEL)) == "whisper_cpp_wheel, pywhispercpp 1.5.1 (avx2)"
    describe.cache_clear()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert describe(Variant("openvino")).endswith(", limited to AVX2)")
    describe.cache_clear()


async def test_a_much_slower_variant_is_stopped(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_choice, "LEAST_SECONDS", 2.0)
    stopped = await try_limited(fake("hangs"), model, [outcome("a", 1, elapsed=0.1)])
    assert stopped.stopped
    assert stopped.error == "slower than a: not done within 2 s"


async def test_a_variant_that_computes_for_too_long_is_stopped(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_choice, "LEAST_CPU_SECONDS", 0.0)
    stopped = await try_limited(fake("slow"), model, [outcome("a", 0.05), outcome("b", 0.08)])
    assert stopped.stopped
    assert stopped.error == "slower than a: more CPU time than the limit"


async def test_preparations_of_the_faster_variant_are_granted_to_others(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_choice, "LEAST_CPU_SECONDS", 0.0)
    result = await try_limited(fake("slow"), model, [outcome("a", 0.05, first_cpu_seconds=20.0)])
    assert result.error == ""
    assert result.first_cpu_seconds > 0.1
    assert not result.stopped


@pytest.mark.parametrize("earlier", [outcome("a", 0.01, WRONG), outcome("a", 0.0, "", error="ended by SIGILL")])
async def test_no_variant_is_stopped_without_one_that_has_the_words(
    earlier: Outcome, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_choice, "LEAST_CPU_SECONDS", 0.0)
    assert (await try_limited(fake("slow"), model, [earlier])).error == ""


async def test_a_stopped_trial_is_repeated_if_the_faster_one_does_not_fit(
    choices: EngineChoices, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, state = TrialCache(tmp_path / "trials"), model_state(model)
    cache.write(model, state, Outcome(ENGINE, "slow", error="slower than fast", stopped=True))
    cache.write(model, state, Outcome(ENGINE, "fast", text=TEXT, cpu_seconds=0.001, peak_bytes=10**15))
    assert choices.known(model) is None
    choice = await choices.choose(model)
    assert choice.variant == fake("slow")
    assert choice.rejected[fake("fast")].startswith("needs 1000000.0 GB for 1 processes")
    assert EngineChoices("auto", 1, cache=cache).known(model) == choice


def test_a_stopped_trial_is_repeated_once_the_faster_one_is_gone(
    choices: EngineChoices, model: Path, tmp_path: Path
) -> None:
    cache, state = TrialCache(tmp_path / "trials"), model_state(model)
    cache.write(model, state, Outcome(ENGINE, "slow", error="slower than fast", stopped=True))
    cache.write(model, state, Outcome(ENGINE, "fast", error="ended by SIGILL"))
    assert choices.known(model) is None
    assert asyncio.run(choices.choose(model)).variant == fake("slow")


def test_the_demo_model_and_the_sample_are_in_the_package() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert '"assets/samples/hello.en.mp3" = "core/demo_model/hello.en.mp3"' in text
    assert '"assets/samples/hello.en.txt" = "core/demo_model/hello.en.txt"' in text


# -- the pool ----------------------------------------------------------------------------------------------------------
async def test_a_process_changes_its_variant_with_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(1, ENGINE)
    choices = {"a": Choice(fake("other"), "engine of a"), "b": Choice(fake("fine"), "engine of b")}
    monkeypatch.setattr(pool.engines, "known", lambda model: choices[model.name])
    await pool.start()
    try:
        async with pool.slot() as slot:
            for name, text in (("a", "entirely other words"), ("b", TEXT), ("a", "entirely other words")):
                output = await slot.transcribe(tmp_path / name, bytes(32_000), Options("en"), 60.0)
                assert [segment.text for segment in output.segments] == [text]
                assert output.engine == f"engine of {name}"
    finally:
        await pool.stop()


async def test_processes_start_after_the_trial(
    choices: EngineChoices, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Pool(2, "auto")
    monkeypatch.setattr(pool, "engines", choices)
    for process in pool._processes:
        monkeypatch.setattr(process, "_variant", None)
    await pool.start()
    try:
        assert all(process._pool is None for process in pool._processes)
        await pool.prepare(model)
        assert all(process._pool is not None for process in pool._processes)
        assert pool.slots == 2
        async with pool.slot() as slot:
            output = await slot.transcribe(model, bytes(32_000), Options("en"), 60.0)
        assert output.engine == f"{ENGINE} fast"
    finally:
        await pool.stop()


# -- the consumer ------------------------------------------------------------------------------------------------------
async def test_other_steps_run_during_a_trial_and_chunks_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial, end = asyncio.Event(), asyncio.Event()

    async def wait_in_trial(variant: Variant, model: Path, earlier: object) -> Outcome:
        trial.set()
        await end.wait()
        return await try_variant(variant, model)

    monkeypatch.setattr(engine_choice, "installed", lambda _engine="auto": [fake("slow"), fake("fast")])
    monkeypatch.setattr(engine_choice, "try_limited", wait_in_trial)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    async with open_application(settings_for(tmp_path, engine="auto")) as app, running_consumer(app) as consumer:
        job_id = await submit_audio(app, silence(3) + 3000, tmp_path)
        await trial.wait()
        async with asyncio.timeout(30):
            while (await job_of(app, job_id)).chunks_total is None:
                await asyncio.sleep(0.05)
        async with asyncio.timeout(30):
            while not (health := await app.services.health_check.run()).engine_trials:
                await asyncio.sleep(0.05)
        assert health.engines == {}
        assert health.engine_trials == [EngineTrial("demo-q5_0", consumer.worker_id, 1, 2)]
        end.set()
        job = await wait_for_end(app, job_id)
        assert job.status == JobStatus.COMPLETED
        async with app.database.read() as session:
            [transcript] = await jobs.list_transcripts(session, job_id)
        assert transcript.engine == f"{ENGINE} fast"
        health = await app.services.health_check.run()
        assert health.engines == {"demo-q5_0": [transcript.engine]}
        async with asyncio.timeout(30):
            while (await app.services.health_check.run()).engine_trials:
                await asyncio.sleep(0.05)
        assert consumer.pool.slots == 2


async def test_a_consumer_stops_during_a_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_choice, "installed", lambda _engine="auto": [fake("hangs"), fake("fast")])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    async with open_application(settings_for(tmp_path, engine="auto")) as app:
        async with running_consumer(app):
            while not trials(psutil.Process()):
                await asyncio.sleep(0.05)
            [trial] = trials(psutil.Process())
        assert not trial.is_running()


async def job_of(app: Application, job_id: str) -> Job:
    async with app.database.read() as session:
        job = await jobs.get(session, job_id)
    assert job is not None
    return job
