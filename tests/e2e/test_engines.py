"""The service with each engine: recordings in two languages at once, with word times, in batches where it has them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.service import embedded
from tests.speech import recording, word_error_rate, write_wav

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
