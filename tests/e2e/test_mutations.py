"""Three hundred damaged recordings in every accepted container: each ends with a stable code and leaves nothing."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from core import errors
from core.config import load_settings
from internal.consumer.handlers.prepare import PrepareSettings
from internal.consumer.workspace import MARKER
from tests.e2e.service import Service
from tests.servers.base import wait_until
from tests.speech import ENCODINGS, encode, recording
from worker.preparer import prepare

pytestmark = [pytest.mark.speech, pytest.mark.timeout(600)]
EACH = 20
SUBMITTED = 4
"""Recordings of each container that are submitted as jobs, one of each kind of damage; the others are prepared only."""
CODES = {
    error.code
    for error in (
        *(errors.InvalidAudioFormatError, errors.CorruptedFileError, errors.AudioTooLongError),
        *(errors.ChunkTimeoutError, errors.EmptyFileError),
    )
}


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    """Flip a few bits, most of them in the first kilobytes, which hold the headers."""
    mutable = bytearray(data)
    for _ in range(rng.randint(1, 30)):
        index = rng.randrange(min(len(data), 4096)) if rng.random() < 0.7 else rng.randrange(len(data))
        mutable[index] ^= 1 << rng.randrange(8)
    return bytes(mutable)


def truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(1, len(data))]


def swap_head(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Return the head of one recording with the body of another."""
    size = rng.choice((4, 16, 64, 512, 2048))
    return other[:size] + data[size:]


def duplicate_range(data: bytes, rng: random.Random) -> bytes:
    index = rng.randrange(len(data))
    return data[:index] + data[rng.randrange(len(data)) :] + rng.randbytes(200)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("sources")
    audio, _ = recording("en", 1, seed=91, pause=0.2)
    return {extension: encode(audio, folder / f"sound.{extension}").read_bytes() for extension in ENCODINGS}


@pytest.fixture(scope="module")
def damaged(sources: dict[str, bytes]) -> list[tuple[int, str, bytes]]:
    """Damaged recordings: number within their container, file name, bytes."""
    rng = random.Random(6)
    names, cases = sorted(sources), []
    for extension in names:
        for number in range(EACH):
            data = sources[extension]
            match number % 4:
                case 0:
                    changed = flip_bits(data, rng)
                case 1:
                    changed = truncate(data, rng)
                case 2:
                    changed = swap_head(data, sources[rng.choice(names)], rng)
                case _:
                    changed = duplicate_range(data, rng)
            cases.append((number, f"{number}.{extension}", changed))
    return cases


async def test_damaged_recordings_are_prepared_or_refused(
    damaged: list[tuple[int, str, bytes]], tmp_path: Path
) -> None:
    settings = PrepareSettings.from_settings(load_settings(_env_file=None))
    refused, cases = 0, [case for case in damaged if case[0] >= SUBMITTED]
    for _, name, data in cases:
        source = tmp_path / name
        source.write_bytes(data)
        try:
            await decode(source, settings)
        except errors.SttError as error:
            assert error.code in CODES, f"{name}: {error!r}"
            refused += 1
    assert 0 < refused < len(cases), "the damage must make some recordings fail, not all"


async def decode(source: Path, settings: PrepareSettings) -> None:
    await prepare(
        source,
        source.with_suffix(".pcm"),
        settings.chunk_limits,
        strategy=settings.chunk_strategy,
        threshold_dbfs=settings.silence_threshold,
        min_silence=settings.min_silence,
        max_duration=settings.max_duration,
    )


def test_damaged_recordings_end_with_a_stable_code(
    embedded_service: Service, damaged: list[tuple[int, str, bytes]], tmp_path: Path
) -> None:
    service = embedded_service
    before = {child.pid for child in service.children()}
    cases = [(name, data) for number, name, data in damaged if number < SUBMITTED]
    assert (len(damaged), len(cases)) == (300, 60)

    def run(case: tuple[str, bytes]) -> tuple[str, str, str | None]:
        path = tmp_path / case[0]
        path.write_bytes(case[1])
        state = service.wait(service.upload(path, language="en"), 120)
        return case[0], state["status"], state["error_code"]

    with ThreadPoolExecutor(4) as threads:
        outcomes = list(threads.map(run, cases))
    wrong = [
        outcome
        for outcome in outcomes
        if not (outcome[1] == "COMPLETED" or (outcome[1] == "FAILED" and outcome[2] in CODES))
    ]
    assert not wrong
    assert {status for _, status, _ in outcomes} == {"COMPLETED", "FAILED"}, (
        "the damage must make some jobs fail, not all"
    )
    assert {child.pid for child in service.children()} == before, "an engine process was lost or left behind"
    root = Path(service.environment["TEMP_DIR"])
    wait_until(
        lambda: all(path.name == MARKER for path in root.rglob("*") if path.is_file()), "no temporary file is left", 10
    )
