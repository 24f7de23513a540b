"""The official `openai` package, unchanged, sync and async."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest

from tests.clients.external_server import SAMPLE
from tests.e2e.service import ROOT, Service
from tests.servers.base import wait_until
from tests.speech import encode, recording, word_error_rate

pytestmark = [pytest.mark.speech, pytest.mark.timeout(300)]
WORDS = (ROOT / "assets" / "samples" / "hello.en.txt").read_text()


@pytest.fixture
def client(service: Service) -> openai.OpenAI:
    return openai.OpenAI(api_key="anything", base_url=f"{service.url}/v1")


def test_json(client: openai.OpenAI) -> None:
    with SAMPLE.open("rb") as file:
        transcription = client.audio.transcriptions.create(model="whisper-1", file=file, language="en")
    assert word_error_rate(WORDS, transcription.text) <= 5


def test_the_language_is_detected(client: openai.OpenAI) -> None:
    path = ROOT / "assets" / "samples" / "hello.vi.mp3"
    with path.open("rb") as file:
        transcription = client.audio.transcriptions.create(model="whisper-1", file=file, response_format="verbose_json")
    assert transcription.language == "vietnamese"


@pytest.mark.parametrize("kind", ["text", "srt", "vtt"])
def test_text_formats(client: openai.OpenAI, kind: str) -> None:
    with SAMPLE.open("rb") as file:
        transcription = client.audio.transcriptions.create(
            model="whisper-1",
            file=file,
            language="en",
            response_format=kind,  # type: ignore[call-overload]
        )
    assert isinstance(transcription, str)
    assert "contract" in transcription
    assert ("-->" in transcription) == (kind != "text")


def test_verbose_json_with_words(client: openai.OpenAI) -> None:
    with SAMPLE.open("rb") as file:
        transcription = client.audio.transcriptions.create(
            model="demo",
            file=file,
            language="en",
            response_format="verbose_json",
            timestamp_granularities=["word", "segment"],
            prompt="contract, warehouse",
            temperature=0.0,
        )
    assert transcription.segments
    assert transcription.words
    assert transcription.duration == pytest.approx(23.2, abs=0.2)
    assert word_error_rate(transcription.text, " ".join(word.word for word in transcription.words)) == 0
    starts = [word.start for word in transcription.words]
    assert starts == sorted(starts)
    assert {"avg_logprob", "compression_ratio", "no_speech_prob", "tokens", "seek"} <= set(
        transcription.segments[0].model_dump()
    )


def test_streaming(client: openai.OpenAI, tmp_path: Path) -> None:
    audio, reference = recording("en", 24, seed=81)
    path = encode(audio, tmp_path / "long.mp3")
    deltas, final_text = [], ""
    with path.open("rb") as file:
        for event in client.audio.transcriptions.create(model="whisper-1", file=file, language="en", stream=True):
            if event.type == "transcript.text.delta":
                deltas.append(event.delta)
            elif event.type == "transcript.text.done":
                final_text = event.text
    assert len(deltas) > 3
    assert "".join(deltas) == final_text
    assert word_error_rate(reference, final_text) <= 5


async def test_async_client(embedded_service: Service) -> None:
    client = openai.AsyncOpenAI(api_key="anything", base_url=f"{embedded_service.url}/v1")
    transcription = await client.audio.transcriptions.create(model="whisper-1", file=SAMPLE, language="en")
    assert word_error_rate(WORDS, transcription.text) <= 5
    names = [model.id async for model in client.models.list()]
    assert "demo-q5_0" in names
    await client.close()


def test_a_retry_after_a_timeout_finds_the_same_job(service: Service, tmp_path: Path) -> None:
    """The client times out and retries with the same body: no second job is created."""
    path = encode(recording("en", 75, seed=82)[0], tmp_path / f"{tmp_path.parent.name}.{tmp_path.name}.mp3")
    short_timeout = openai.OpenAI(api_key="x", base_url=f"{service.url}/v1", timeout=0.4, max_retries=1)
    with path.open("rb") as file, pytest.raises(openai.APITimeoutError):
        short_timeout.audio.transcriptions.create(model="whisper-1", file=file, language="en")
    long_timeout = openai.OpenAI(api_key="x", base_url=f"{service.url}/v1")
    with path.open("rb") as file:
        assert long_timeout.audio.transcriptions.create(model="whisper-1", file=file, language="en").text
    listed = service.client.get("/api/v1/jobs", params={"limit": 200}).json()["jobs"]
    assert [job["original_filename"] for job in listed].count(path.name) == 1, "the same body created two jobs"


def test_errors_have_the_openai_shape(client: openai.OpenAI, service: Service, tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense.mp3"
    nonsense.write_bytes(b"no sound at all " * 500)
    with nonsense.open("rb") as file, pytest.raises(openai.UnprocessableEntityError) as invalid_audio:
        client.audio.transcriptions.create(model="whisper-1", file=file)
    assert invalid_audio.value.code == "invalid_audio"
    with SAMPLE.open("rb") as file, pytest.raises(openai.UnprocessableEntityError) as unknown_model:
        client.audio.transcriptions.create(model="no-such-model", file=file)
    assert (unknown_model.value.code, unknown_model.value.param) == ("unknown_model", "model")
    with SAMPLE.open("rb") as file, pytest.raises(openai.APIStatusError) as language:
        client.audio.transcriptions.create(model="whisper-1", file=file, language="xx")
    assert language.value.param == "language"
    assert httpx.get(f"{service.url}/v1/nothing").json()["error"]["type"] == "invalid_request_error"


def test_automatic_retries_do_not_repeat_a_cancelled_job(embedded_service: Service, tmp_path: Path) -> None:
    """The package retries after a conflict; the retries must not start the cancelled job again."""
    path = encode(recording("en", 60, seed=84)[0], tmp_path / f"{tmp_path.name}.mp3")
    client = openai.OpenAI(api_key="x", base_url=f"{embedded_service.url}/v1")

    def submitted_jobs() -> list[dict[str, str]]:
        listed = embedded_service.client.get("/api/v1/jobs", params={"limit": 200}).json()["jobs"]
        return [job for job in listed if job["original_filename"] == path.name]

    with ThreadPoolExecutor(1) as threads, path.open("rb") as file:
        call = client.audio.transcriptions.create
        answer = threads.submit(call, model="whisper-1", file=file, language="en")
        wait_until(lambda: bool(submitted_jobs()), "the job exists", 20)
        embedded_service.client.post(f"/api/v1/jobs/{submitted_jobs()[0]['job_id']}/cancel")
        with pytest.raises(openai.ConflictError):
            answer.result(30)
    assert len(submitted_jobs()) == 1
