"""Three hundred damaged recordings over every accepted container: each ends with a stable code, and nothing is left."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from core import errors
from internal.consumer.workspace import MARKER
from tests.e2e.service import Service
from tests.servers.base import wait_until
from tests.speech import ENCODINGS, encode, recording

pytestmark = [pytest.mark.speech, pytest.mark.timeout(600)]
EACH = 20
CODES = {
    error.code
    for error in (
        *(errors.InvalidAudioFormatError, errors.CorruptedFileError, errors.AudioTooLongError),
        *(errors.ChunkTimeoutError, errors.EmptyFileError),
    )
}


def flipped(data: bytes, rng: random.Random) -> bytes:
    """A few bits, most of them in the first kilobytes, where headers are."""
    mutable = bytearray(data)
    for _ in range(rng.randint(1, 30)):
        place = rng.randrange(min(len(data), 4096)) if rng.random() < 0.7 else rng.randrange(len(data))
        mutable[place] ^= 1 << rng.randrange(8)
    return bytes(mutable)


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(1, len(data))]


def swapped(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """The head of one recording, the body of another."""
    size = rng.choice((4, 16, 64, 512, 2048))
    return other[:size] + data[size:]


def doubled(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + data[rng.randrange(len(data)) :] + rng.randbytes(200)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("sources")
    sound, _ = recording("en", 1, seed=91, pause=0.2)
    return {ending: encode(sound, folder / f"sound.{ending}").read_bytes() for ending in ENCODINGS}


def mutations(sources: dict[str, bytes]) -> list[tuple[str, bytes]]:
    rng = random.Random(6)
    names, found = sorted(sources), []
    for ending in names:
        for number in range(EACH):
            data = sources[ending]
            match number % 4:
                case 0:
                    bad = flipped(data, rng)
                case 1:
                    bad = cut(data, rng)
                case 2:
                    bad = swapped(data, sources[rng.choice(names)], rng)
                case _:
                    bad = doubled(data, rng)
            found.append((f"{number}.{ending}", bad))
    return found


def test_three_hundred_damaged_recordings(embedded_service: Service, sources: dict[str, bytes], tmp_path: Path) -> None:
    service = embedded_service
    before = {child.pid for child in service.children()}
    cases = mutations(sources)
    assert len(cases) == 300

    def run(case: tuple[str, bytes]) -> tuple[str, str, str | None]:
        path = tmp_path / case[0]
        path.write_bytes(case[1])
        state = service.wait(service.upload(path, language="en"), 120)
        return case[0], state["status"], state["error_code"]

    with ThreadPoolExecutor(4) as threads:
        ended = list(threads.map(run, cases))
    wrong = [one for one in ended if not (one[1] == "COMPLETED" or (one[1] == "FAILED" and one[2] in CODES))]
    assert not wrong
    assert {status for _, status, _ in ended} == {"COMPLETED", "FAILED"}, "the damage has to tell"
    assert {child.pid for child in service.children()} == before, "a process was lost or left"
    root = Path(service.environment["TEMP_DIR"])
    wait_until(lambda: all(path.name == MARKER for path in root.rglob("*") if path.is_file()), "no file is left", 10)
