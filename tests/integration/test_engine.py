"""The real engine on real speech."""

from __future__ import annotations

import errno
import itertools
import json
import os
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog.testing

from core.domain.job_options import JobOptions
from core.errors import ModelFileError, ModelMissingError, SettingsError, SttError, UnsupportedLanguageError
from tests.engine_child import ChildEngine
from tests.model_files import TinyModel, demo, tiny, write_ctranslate2, write_tiny
from tests.speech import MODEL, RATE, VOICES, Audio, recording, silence, word_error_rate
from worker.engine import adapter, build, declared_formats, import_adapter
from worker.engine.whisper_cpp import DETECTED_FRAMES, FRAME
from worker.engine_variants import model_formats
from worker.models import ModelCatalogue
from worker.token_segments import Token, TokenSegment, decode, group_words, windows
from worker.transcriber import Call, Engine, EngineOutput, EngineSpec, Options
from worker.whisper_builds import FOLDER, LEVELS, Build

pytestmark = pytest.mark.speech


BUILDS = [level for level in LEVELS if Build.read(FOLDER / level.name)]
"""Levels with a build of `make engine`."""
ENGINES = ("whisper_cpp", "openvino", *(["whisper_cpp_wheel"] if BUILDS else []))
"""Engines that have to pass this suite. Without a build, `whisper_cpp` is the wheel's."""


@pytest.fixture(scope="module", params=[*ENGINES, "openvino, CTranslate2"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    if request.param == "openvino, CTranslate2":
        yield build(EngineSpec("openvino", write_ctranslate2(tmp_path_factory.mktemp("models") / "demo", demo())))
        return
    if request.param != "whisper_cpp_wheel":
        yield build(EngineSpec(request.param, MODEL))
        return
    child = ChildEngine(EngineSpec(request.param, MODEL))
    yield child
    child.close()


def transcribe(engine: Engine, audio: Audio, language: str, **more: object) -> EngineOutput:
    call = Call(audio.astype(np.float32) / 32768, Options(language, **more))  # type: ignore[arg-type]
    [output] = engine.transcribe([call], threads=1)
    if isinstance(output, SttError):
        raise output
    return output


def text(output: EngineOutput) -> str:
    return " ".join(segment.text for segment in output.segments)


@pytest.mark.parametrize(("language", "voice"), [(name, voice) for name in VOICES for voice in VOICES[name]])
def test_a_chunk_takes_one_encode_and_loses_no_word(engine: Engine, language: str, voice: str) -> None:
    audio, reference = recording(language, 7, seed=61, pause=0.6, voice=voice)
    audio = audio[: 29 * RATE]
    output = transcribe(engine, audio, language)
    assert output.encodes == 1
    assert output.cpu_seconds > 0
    assert word_error_rate(reference, text(output)) <= 4
    assert text(output) == unicodedata.normalize("NFC", text(output))
    assert len(output.segments) == 7
    assert all(0 <= s.start < s.end <= len(audio) / RATE for s in output.segments)
    assert all(0.5 < segment.confidence <= 1 for segment in output.segments)


def test_trailing_silence_needs_no_second_encode(engine: Engine) -> None:
    audio, reference = recording("en", 1, seed=62)
    output = transcribe(engine, np.concatenate([audio, silence(20)]), "en")
    assert output.encodes == 1
    assert word_error_rate(reference, text(output)) == 0


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.5, 5, 30])
def test_silence_of_any_length_has_no_text(engine: Engine, seconds: float) -> None:
    output = transcribe(engine, silence(seconds), "vi")
    assert output.segments == ()


def test_more_than_thirty_seconds_take_two_windows(engine: Engine) -> None:
    audio, reference = recording("en", 14, seed=63, pause=0.8)
    output = transcribe(engine, audio[: 58 * RATE], "en")
    assert output.encodes == 2
    assert word_error_rate(reference, text(output)) <= 6
    starts = [segment.start for segment in output.segments]
    assert starts == sorted(starts)
    assert starts[-1] > 30


@pytest.mark.parametrize("language", ["en", "vi"])
def test_auto_picks_the_likeliest_available_language(engine: Engine, language: str) -> None:
    audio, _ = recording(language, 3, seed=64)
    output = transcribe(engine, audio, "auto")
    assert output.language == language
    assert output.encodes in (1, 2)
    other = "vi" if language == "en" else "en"
    assert transcribe(engine, audio, "auto", languages=(other,)).language == other


@pytest.mark.parametrize("words", [False, True])
def test_detection_reads_a_part_of_the_audio_and_changes_no_word(engine: Engine, *, words: bool) -> None:
    audio, _ = recording("vi", 7, seed=61, pause=0.6)
    audio = audio[: 29 * RATE]
    detected = transcribe(engine, audio, "auto", job=JobOptions(words=words))
    given = transcribe(engine, audio, "vi", job=JobOptions(words=words))
    assert (detected.language, detected.segments) == ("vi", given.segments)
    assert detected.segments[-1].end > DETECTED_FRAMES * FRAME / RATE


def test_words_are_within_their_segments(engine: Engine) -> None:
    audio, _ = recording("vi", 3, seed=65)
    for segment in transcribe(engine, audio, "vi", job=JobOptions(words=True)).segments:
        assert " ".join(word.word for word in segment.words) == segment.text
        times = [time for word in segment.words for time in (word.start, word.end)]
        assert times == sorted(times)
        assert segment.start <= times[0]
        assert times[-1] <= segment.end


def test_plain_calls_after_one_with_word_times_have_the_same_text(engine: Engine) -> None:
    """Both kinds share the weights, so that a slot that gets them in turn does not load the model each time."""
    audio, _ = recording("en", 3, seed=68)
    timed = transcribe(engine, audio, "en", job=JobOptions(words=True))
    plain = transcribe(engine, audio, "en")
    assert text(plain) == text(timed)
    assert [segment.words for segment in plain.segments] == [()] * len(plain.segments)
    again = transcribe(engine, audio, "en", job=JobOptions(words=True))
    assert [segment.words for segment in again.segments] == [segment.words for segment in timed.segments]


def test_calls_with_different_numbers_of_threads_have_the_same_text(engine: Engine) -> None:
    audio, reference = recording("vi", 2, seed=69)
    calls = [Call((audio / 32768).astype(np.float32), Options("vi"))]
    for threads in (1, 2, 3, 1):
        [output] = engine.transcribe(calls, threads)
        assert isinstance(output, EngineOutput)
        assert word_error_rate(reference, text(output)) == 0


def test_unknown_languages_are_rejected(engine: Engine) -> None:
    with pytest.raises(UnsupportedLanguageError):
        transcribe(engine, silence(1), "klingon")


def test_a_call_that_fails_does_not_spoil_the_others(engine: Engine) -> None:
    audio, reference = recording("en", 2, seed=66)
    samples = (audio / 32768).astype(np.float32)
    languages = ("en", "klingon", "en")
    first, second, third = engine.transcribe([Call(samples, Options(name)) for name in languages], threads=2)
    assert isinstance(second, UnsupportedLanguageError)
    for output in (first, third):
        assert isinstance(output, EngineOutput)
        assert word_error_rate(reference, text(output)) == 0


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("content", [b"", b"abc", b"not a model at all" * 100, MODEL.read_bytes()[:-1]])
def test_files_that_are_not_models_are_rejected(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / "ggml-x.bin"
    path.write_bytes(content)
    with pytest.raises(ModelFileError):
        build(EngineSpec(name, path))
    with pytest.raises(ModelMissingError):
        build(EngineSpec(name, tmp_path / "none"))
    assert ModelCatalogue([tmp_path]).names() == []


def test_a_folder_that_cannot_be_read_has_no_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a stale mount: the models of the other folders stay available, and the heartbeat goes on."""
    catalogue = ModelCatalogue([tmp_path, MODEL.parent])
    expected, iterdir, stat = catalogue.names(), Path.iterdir, Path.stat

    def stale(call: Any) -> Any:
        def checked(path: Path, *words: Any, **named: Any) -> Any:
            if path.is_relative_to(tmp_path) and (path != tmp_path or call is iterdir):
                raise PermissionError(errno.EACCES, "stale", str(path))
            return call(path, *words, **named)

        return checked

    monkeypatch.setattr(Path, "iterdir", stale(iterdir))
    monkeypatch.setattr(Path, "stat", stale(stat))
    with structlog.testing.capture_logs() as logs:
        assert catalogue.names() == catalogue.names() == expected
        assert catalogue.path(expected[0]).parent == MODEL.parent
        assert list(catalogue.checksums()) == expected
    assert [line["action"] for line in logs] == ["models_unreadable"], "once, not with every heartbeat"


def test_the_catalogue_lists_models(tmp_path: Path) -> None:
    catalogue = ModelCatalogue([tmp_path / "none", tmp_path, MODEL.parent])
    assert catalogue.names() == ["demo-q5_0"]
    assert len(catalogue.sha256("demo-q5_0")) == 64
    write_tiny(tmp_path / "ggml-tiny.bin")
    assert catalogue.names() == ["demo-q5_0", "tiny"]
    assert catalogue.path("tiny").parent == tmp_path
    with pytest.raises(ModelMissingError):
        catalogue.path("large")


def test_a_damaged_model_is_not_listed_until_it_is_whole(tmp_path: Path) -> None:
    """A file that is being copied grows; its refusal is logged once. A whole one in the next folder serves."""
    path, other = tmp_path / "ggml-tiny.bin", tmp_path / "other"
    other.mkdir()
    catalogue = ModelCatalogue([tmp_path, other])
    whole = tiny()
    with structlog.testing.capture_logs() as logs:
        for size in (100, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:size])
            assert (catalogue.names(), catalogue.checksums(), catalogue.find("tiny", None)) == ([], {}, None)
    assert [(line["action"], line["model"]) for line in logs] == [("model_refused", "ggml-tiny.bin")]
    write_tiny(other / path.name)
    assert catalogue.path("tiny").parent == other
    path.write_bytes(whole)
    assert catalogue.path("tiny") == path


def test_folders_are_listed_for_engines_that_read_them(tmp_path: Path) -> None:
    folder = write_ctranslate2(tmp_path / "faster-whisper-small", TinyModel(0.5))
    write_tiny(tmp_path / "ggml-tiny.bin")
    write_tiny(tmp_path / "other.bin")
    write_tiny(tmp_path / "ggml-base.bin.part")
    (tmp_path / "empty").mkdir()
    (tmp_path / ".hidden").mkdir()
    assert ModelCatalogue([tmp_path], model_formats("whisper_cpp")).names() == ["tiny"]
    catalogue = ModelCatalogue([tmp_path], model_formats("openvino"))
    assert catalogue.names() == ["small", "tiny"]
    assert catalogue.path("small") == folder
    first = catalogue.sha256("small")
    assert catalogue.find("small", first) == folder
    (folder / "vocabulary.json").write_text(json.dumps(["a"] * 51865))
    assert catalogue.find("small", first) is None
    assert len({first, catalogue.sha256("small"), catalogue.sha256("tiny")}) == 3
    (folder / "model.bin").write_bytes((folder / "model.bin").read_bytes()[:-1])
    assert catalogue.names() == ["tiny"]
    inside = ModelCatalogue([tmp_path / "empty"], model_formats("openvino"))
    for name in ("../faster-whisper-small", "..", ".", "", "/", str(folder)):
        with pytest.raises(ModelMissingError):
            inside.path(name)


@pytest.mark.parametrize("name", ENGINES)
def test_formats_are_known_without_an_import(name: str) -> None:
    assert declared_formats(name) == import_adapter(name).MODEL_FORMATS


def test_the_error_for_an_unknown_engine_names_it() -> None:
    with pytest.raises(SettingsError, match="ENGINE"):
        adapter("vosk")
    with pytest.raises(SettingsError, match="ENGINE"):
        adapter("no.such.engine")


def test_threads_of_whisper_cpp_sleep_while_they_wait() -> None:
    """libgomp reads the variable when it is loaded, and reports it if asked to."""
    code = "from worker import whisper_builds as builds; builds.load_binding(None)"
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    run = [sys.executable, "-c", code]
    report = subprocess.run(
        run, env={**environment, "OMP_DISPLAY_ENV": "true"}, capture_output=True, text=True, check=True
    )
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in report.stderr


def test_letters_split_across_tokens_are_joined_before_decoding() -> None:
    encoded = " ổn".encode()
    tokens = [Token(encoded[:2], 0.9, 0.1), Token(encoded[2:], 0.7, 0.2)]
    assert decode(tokens) == "ổn"
    words = list(group_words(TokenSegment(0.0, 0.2, tuple(tokens))))
    assert [(word.word, round(word.probability, 2)) for word in words] == [("ổn", 0.8)]


def test_text_is_normalised_to_nfc() -> None:
    """Clients compare and count letters: `ổ` is one, even if a model writes it as `o` and two accents."""
    tokens = [Token(unicodedata.normalize("NFD", text).encode(), 0.9, 0.1) for text in (" Hà", " Nội")]
    assert decode(tokens) == "Hà Nội"
    assert len(decode(tokens)) == len("Hà Nội") == 6
    assert [word.word for word in group_words(TokenSegment(0.0, 0.2, tuple(tokens)))] == ["Hà", "Nội"]


def test_windows_cover_all_samples() -> None:
    samples = np.random.default_rng(1).standard_normal(100 * RATE).astype(np.float32)
    spans = list(windows(samples))
    assert spans[0][0] == 0
    assert spans[-1][1] == len(samples)
    assert all(first[1] == other[0] for first, other in itertools.pairwise(spans))
    assert all(last - first <= 30 * RATE for first, last in spans)
