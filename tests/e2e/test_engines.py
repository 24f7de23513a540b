"""The service with each engine: recordings in two languages at once, with word times, in batches where it has them."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.service import embedded
from tests.speech import recording, word_error_rate, write_wav
from worker.engine_variants import installed

pytestmark = [pytest.mark.speech, pytest.mark.timeout(240)]


def test_recordings_in_two_languages_on_openvino(tmp_path: Path) -> None:
    references = {}
    with embedded(tmp_path, ENGINE="openvino", WORKER_CONCURRENCY="1") as service:
        for index, language in enumerate(["en", "vi", "en", "vi", "en"]):
            audio, reference = recording(language, 9, seed=90 + index)
            references[write_wav(tmp_path / f"{index}.wav", audio)] = (language, reference)
        with ThreadPoolExecutor(len(references)) as pool:
            results = list(pool.map(lambda path: service.transcribe(path, language="auto", words="true"), references))
        for result, (language, reference) in zip(results, references.values(), strict=True):
            assert result["language"] == language
            assert word_error_rate(reference, result["text"]) <= 4
            data = service.client.get(f"/api/v1/download/{result['job_id']}").json()
            assert data["model"]["engine_version"].startswith("openvino ")
            for segment in data["segments"]:
                times = [time for word in segment["words"] for time in (word["start"], word["end"])]
                assert times == sorted(times)
                assert segment["start"] <= times[0] <= times[-1] <= segment["end"]


def test_the_engine_is_chosen_by_a_trial_while_the_api_serves(tmp_path: Path) -> None:
    audio, reference = recording("en", 2, seed=96)
    path = write_wav(tmp_path / "speech.wav", audio)
    with embedded(tmp_path, ENGINE="auto", WORKER_CONCURRENCY="1", XDG_CACHE_HOME=str(tmp_path / "cache")) as service:
        result = service.transcribe(path, language="en")
        assert word_error_rate(reference, result["text"]) <= 4
        data = service.client.get(f"/api/v1/download/{result['job_id']}").json()
        engine = data["model"]["engine_version"]
        assert engine.startswith(("openvino ", "whisper_cpp"))
        assert service.client.get("/health").json()["engines"] == {"demo-q5_0": [engine]}
        assert service.client.get("/api/v1/stats").json()["workers"][0]["engines"] == {"demo-q5_0": engine}
        lines = [json.loads(line) for line in (tmp_path / "embedded.log").read_text().splitlines()]
        actions = [line.get("action") for line in lines]
        assert actions.index("ready") < actions.index("engine_chosen"), "the API does not wait for the trial"
        assert actions.count("engine_trial") == actions.count("engine_tried") == len(installed())
