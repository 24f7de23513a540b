"""Selection of a model file for a plan, and the wait for one that is missing here."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from core.domain.job_options import JobOptions
from core.errors import ModelMissingError
from internal.consumer.model_selector import ModelSelector, PinnedModel, hand_back_delay
from internal.consumer.retrying_database import RetryingDatabase
from internal.outage_retry import OutageRetry
from repositories.claims import Claim
from repositories.models import Job
from tests.model_files import write_tiny
from worker.models import ModelCatalogue

CLAIM = Claim("job", "worker", "worker/1", 3, 0, 0)


class Rows:
    """seconds: for which no live consumer has had the model; None: another one has it."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self.handed_back: list[tuple[Claim, float]] = []
        self.asked: list[tuple[Job, str | None]] = []

    @contextlib.asynccontextmanager
    async def write(self) -> AsyncIterator[Rows]:
        yield self

    async def seconds_missing(self, _: object, job: Job, default: str | None = None) -> float | None:
        self.asked.append((job, default))
        return self.seconds

    async def hand_back(self, _: object, claim: Claim, delay: float) -> bool:
        self.handed_back.append((claim, delay))
        return True


def selector(folder: Path, rows: Rows | None = None, default: str | None = None) -> ModelSelector:
    database: Any = rows
    return ModelSelector(ModelCatalogue([folder]), RetryingDatabase(database, OutageRetry()), default, 100.0)


def put(folder: Path, name: str) -> Path:
    return write_tiny(folder / f"ggml-{name}.bin")


def a_job(model: str | None = None, asked: str = "", sha256: str = "") -> Job:
    return Job(job_id="job", language="en", model=model, asked_model=asked, options=JobOptions(file_sha256=sha256))


async def test_a_plan_pins_the_model_that_is_here(tmp_path: Path) -> None:
    put(tmp_path, "tiny")
    put(tmp_path, "small")
    models = ModelCatalogue([tmp_path])
    assert await selector(tmp_path).select(a_job(asked="tiny")) == PinnedModel("tiny", models.sha256("tiny"))
    assert await selector(tmp_path, default="tiny").select(a_job()) == PinnedModel("tiny", models.sha256("tiny"))
    assert await selector(tmp_path).select(a_job()) == PinnedModel("small", models.sha256("small"))
    assert await selector(tmp_path).select(a_job(asked="medium")) is None


@pytest.mark.parametrize("error", [ModelMissingError(), FileNotFoundError()], ids=repr)
async def test_a_file_removed_meanwhile_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def removed(*_: object) -> str:
        raise error

    put(tmp_path, "tiny")
    monkeypatch.setattr(ModelCatalogue, "sha256", removed)
    assert await selector(tmp_path).select(a_job(asked="tiny")) is None


async def test_a_chunk_uses_the_very_file_of_its_plan(tmp_path: Path) -> None:
    path = put(tmp_path, "tiny")
    sha256 = ModelCatalogue([tmp_path]).sha256("tiny")
    models = selector(tmp_path)
    assert await models.find_pinned(a_job("tiny", sha256=sha256)) == path
    assert await models.find_pinned(a_job("tiny")) == path, "a plan of a version that pinned no checksum"
    assert await models.find_pinned(a_job("tiny", sha256="00" * 32)) is None
    assert await models.find_pinned(a_job("small", sha256=sha256)) is None
    assert await models.find_pinned(a_job(None)) is None


@pytest.mark.parametrize(("seconds", "longest"), [(None, 10.0), (0.0, 30.0), (99.9, 30.0)])
async def test_a_row_without_its_model_is_handed_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float | None, longest: float
) -> None:
    rows, job = Rows(seconds), a_job("tiny")
    monkeypatch.setattr("repositories.model_wait.seconds_missing", rows.seconds_missing)
    monkeypatch.setattr("repositories.failures.hand_back", rows.hand_back)
    monkeypatch.setattr("internal.consumer.model_selector.hand_back_delay", lambda count, most: 1000 * count + most)
    await selector(tmp_path, rows, "small").hand_back(CLAIM, job)
    assert rows.handed_back == [(CLAIM, 3000 + longest)]
    assert rows.asked == [(job, "small")]


@pytest.mark.parametrize(("model", "named"), [("tiny", "ggml-tiny.bin"), (None, "a model file")])
async def test_a_model_that_nobody_has_had_for_long_fails_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str | None, named: str
) -> None:
    rows = Rows(100.0)
    monkeypatch.setattr("repositories.model_wait.seconds_missing", rows.seconds_missing)
    monkeypatch.setattr("repositories.failures.hand_back", rows.hand_back)
    with pytest.raises(ModelMissingError, match=named):
        await selector(tmp_path, rows).hand_back(CLAIM, a_job(model))
    assert not rows.handed_back


def test_a_row_is_offered_again_later_and_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: {(0.8, 1.2): 1.0}[low, high])
    delays = [hand_back_delay(claims, 30.0) for claims in (0, 1, 2, 6, 7, 10**6)]
    assert delays == [2.0, 3.0, 4.5, 22.78125, 30.0, 30.0]
