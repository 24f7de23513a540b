"""Real speech in real files, transcribed in both modes."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import unicodedata
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import srt
import webvtt

from core.messaging.port import QueueName
from tests.e2e.service import ROOT, Service
from tests.speech import ENCODINGS, encode, recording, silence, word_error_rate, write_wav

pytestmark = pytest.mark.speech
SHORT = {"en": 0.4 + 1.0, "vi": 0.5 + 1.0}
"""Maximum word error rate in per cent: the figures of assets/model/README.md for short files plus one point."""
LONG = {"en": 1.5 + 1.0, "vi": 1.7 + 1.0}


@pytest.mark.parametrize("language", ["en", "vi"])
def test_the_sample_recordings_are_transcribed(service: Service, language: str) -> None:
    path = ROOT / "assets" / "samples" / f"hello.{language}.mp3"
    result = service.transcribe(path, language=language)
    reference = path.with_suffix(".txt").read_text()
    assert word_error_rate(reference, result["text"]) <= SHORT[language]
    assert result["text"] == unicodedata.normalize("NFC", result["text"])
    assert result["language"] == language
    assert result["model"] == "demo-q5_0"
    assert result["confidence"] > 0.8
    assert result["word_count"] == len(result["text"].split())


FORMS = {"mp3": (44_100, 2), "wav": (8_000, 1), "m4a": (48_000, 2), "ogg": (32_000, 1), "flac": (22_050, 2)}


@pytest.mark.parametrize("extension", sorted(ENCODINGS))
def test_every_accepted_container_is_transcribed(service: Service, extension: str, tmp_path: Path) -> None:
    audio, reference = recording("en", 3, seed=21)
    rate, channels = FORMS.get(extension, (None, None))
    video = extension in ("mp4", "mkv", "avi", "mov")
    path = encode(audio, tmp_path / f"speech.{extension}", rate=rate, channels=channels, video=video)
    result = service.transcribe(path, language="en")
    assert word_error_rate(reference, result["text"]) <= 5, result["text"]


@pytest.mark.parametrize("language", ["en", "vi"])
def test_a_long_recording_is_transcribed_in_several_chunks(service: Service, language: str, tmp_path: Path) -> None:
    audio, reference = recording(language, 48, seed=5)
    path = encode(audio, tmp_path / "long.flac")
    result = service.transcribe(path, language=language)
    state = service.status(result["job_id"])
    assert result["duration_seconds"] > 150
    assert state["chunks_total"] > 3
    assert state["chunks_completed"] == state["chunks_total"]
    assert word_error_rate(reference, result["text"]) <= LONG[language]
    starts = [segment["start"] for segment in result["segments"]]
    assert starts == sorted(starts)
    assert result["segments"][-1]["end"] <= result["duration_seconds"]


def test_segment_times_include_dropped_silence(service: Service, tmp_path: Path) -> None:
    """Ten seconds of silence before the second half: times are mapped back through the spans."""
    first, _ = recording("en", 2, seed=31)
    second, _ = recording("en", 2, seed=32)
    path = write_wav(tmp_path / "gap.wav", np.concatenate([first, silence(10), second]))
    result = service.transcribe(path, language="en")
    late = [segment for segment in result["segments"] if segment["start"] > len(first) / 16_000]
    assert len(late) == 2
    assert late[0]["start"] == pytest.approx(len(first) / 16_000 + 10, abs=0.7)


def test_a_silent_recording_has_an_empty_transcript(service: Service, tmp_path: Path) -> None:
    result = service.transcribe(write_wav(tmp_path / "silence.wav", silence(40)))
    assert (result["text"], result["word_count"], result["segments"]) == ("", 0, [])
    assert result["duration_seconds"] == 40.0
    assert result["processing_time"] is not None
    assert service.status(result["job_id"])["progress"] == 100.0


def test_noise_without_speech_has_an_empty_transcript(service: Service, tmp_path: Path) -> None:
    noise = (np.random.default_rng(1).standard_normal(16_000 * 35) * 30).astype(np.int16)
    assert service.transcribe(write_wav(tmp_path / "noise.wav", noise), language="en")["text"] == ""


def test_a_recording_30_db_quieter_has_the_same_transcript(service: Service, tmp_path: Path) -> None:
    audio, reference = recording("en", 6, seed=41)
    quiet = (audio / 10**1.5).astype(np.int16)
    loud = service.transcribe(write_wav(tmp_path / "loud.wav", audio), language="en")
    low = service.transcribe(write_wav(tmp_path / "quiet.wav", quiet), language="en")
    assert word_error_rate(reference, loud["text"]) <= 3
    assert low["text"] == loud["text"]


@pytest.mark.parametrize("language", ["en", "vi"])
def test_auto_detects_the_language(service: Service, language: str, tmp_path: Path) -> None:
    audio, reference = recording(language, 12, seed=51)
    result = service.transcribe(write_wav(tmp_path / "auto.wav", audio), language="auto")
    assert result["language"] == language
    assert word_error_rate(reference, result["text"]) <= 5


def test_downloads_are_read_by_third_party_parsers(service: Service, sample: Path) -> None:
    result = service.transcribe(sample, language="en")
    files = {}
    for kind in ("json", "txt", "srt", "vtt", "tsv"):
        answer = service.client.get(f"/api/v1/download/{result['job_id']}", params={"format": kind})
        assert answer.status_code == 200
        expected = f'attachment; filename="{result["job_id"]}_transcription.{kind}"'
        assert answer.headers["content-disposition"] == expected
        files[kind] = answer.content.decode()
    assert json.loads(files["json"])["text"] == result["text"]
    assert files["txt"].split() == result["text"].split()
    assert " ".join(cue.content for cue in srt.parse(files["srt"])) == result["text"]
    assert " ".join(cue.text for cue in webvtt.from_string(files["vtt"]).captions) == result["text"]
    rows = list(csv.DictReader(io.StringIO(files["tsv"]), delimiter="\t"))
    assert " ".join(row["text"] for row in rows) == result["text"]


def test_the_result_file_has_the_documented_keys(service: Service, sample: Path) -> None:
    job_id = service.transcribe(sample, language="en")["job_id"]
    data = service.client.get(f"/api/v1/download/{job_id}").json()
    assert set(data) == {
        *("job_id", "timestamp", "status", "language", "detected_language", "model", "duration_seconds", "text"),
        *("word_count", "character_count", "confidence", "segments", "chunks", "timings"),
    }
    assert set(data["model"]) == {"name", "file_sha256", "engine_version", "options"}
    assert len(data["model"]["file_sha256"]) == 64
    assert set(data["segments"][0]) == {"id", "chunk", "start", "end", "text", "confidence"}
    assert set(data["chunks"][0]) == {"index", "start", "end", "attempts", "seconds"}
    assert set(data["timings"]) == {"download", "decode", "chunks", "total", "real_time_factor"}
    assert data["timings"]["real_time_factor"] > 0


def test_estimates_and_statistics_follow_measurements(service: Service, sample: Path) -> None:
    service.transcribe(sample, language="en")
    with sample.open("rb") as file:
        answer = service.client.post("/api/v1/upload", files={"file": (sample.name, file)}, data={"language": "en"})
    assert answer.json()["estimated_time_seconds"] is not None
    service.wait(answer.json()["job_id"])
    stats = service.client.get("/api/v1/stats").json()
    assert stats["jobs_by_status"]["COMPLETED"] >= 2
    assert stats["total_processing_time"] > 0
    assert stats["chunk_processing_time"] > 0
    assert {queue["name"] for queue in stats["queues"]} == set(QueueName)
    assert "demo-q5_0" in service.client.get("/health").json()["models"]


def test_subtitles_follow_a_late_audio_track(service: Service, tmp_path: Path) -> None:
    """Segments and words in every format use the video's clock."""
    audio, _ = recording("en", 2, seed=61)
    picture = ["-f", "lavfi", "-i", "color=size=64x64:rate=5:duration=16", "-itsoffset", "3.99"]
    call = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *picture, "-i", str(write_wav(tmp_path / "a.wav", audio))]
    codecs = ["-map", "0:v", "-map", "1:a", "-c:v", "mpeg4", "-c:a", "aac"]
    subprocess.run([*call, *codecs, str(tmp_path / "late.mp4")], check=True)
    plain = service.transcribe(tmp_path / "a.wav", language="en", words="true")
    late = service.transcribe(tmp_path / "late.mp4", language="en", words="true")
    assert late["text"] == plain["text"]
    for early_segment, late_segment in zip(plain["segments"], late["segments"], strict=True):
        assert late_segment["start"] == pytest.approx(early_segment["start"] + 3.99, abs=0.3)
        assert late_segment["words"][0]["start"] == pytest.approx(early_segment["words"][0]["start"] + 3.99, abs=0.3)
    first = late["segments"][0]["start"]
    assert first >= 3.9

    def text(kind: str) -> str:
        answer = service.client.get(f"/api/v1/download/{late['job_id']}", params={"format": kind})
        return str(answer.content.decode())

    assert next(srt.parse(text("srt"))).start.total_seconds() == pytest.approx(first, abs=0.01)
    assert webvtt.from_string(text("vtt")).captions[0].start_in_seconds == pytest.approx(first, abs=1)
    assert json.loads(text("json"))["segments"][0]["start"] == first
    row = next(csv.DictReader(io.StringIO(text("tsv")), delimiter="\t"))
    assert int(row["start"]) == pytest.approx(first * 1000, abs=10)
