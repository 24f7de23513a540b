"""The real engine on real speech."""

from __future__ import annotations

import itertools
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from core.domain.job_options import JobOptions
from core.errors import ModelMissingError, SettingsError, UnsupportedLanguageError
from tests.speech import MODEL, RATE, VOICES, Audio, recording, silence, word_error_rate
from worker.engine import adapter, build, engine_version
from worker.engine.whisper_cpp import Token, TokenSegment, decode, windows, words_of
from worker.models import ModelCatalogue
from worker.transcriber import Engine, EngineOutput, EngineSpec, Options

pytestmark = pytest.mark.speech


@pytest.fixture(scope="module")
def engine() -> Engine:
    return build(EngineSpec("whisper_cpp", MODEL))


def hear(engine: Engine, sound: Audio, language: str, **more: object) -> EngineOutput:
    return engine.transcribe(sound.astype(np.float32) / 32768, Options(language, **more))  # type: ignore[arg-type]


def text(heard: EngineOutput) -> str:
    return " ".join(segment.text for segment in heard.segments)


@pytest.mark.parametrize(("language", "voice"), [(name, voice) for name in VOICES for voice in VOICES[name]])
def test_one_encode_a_chunk_and_every_word(engine: Engine, language: str, voice: str) -> None:
    sound, reference = recording(language, 7, seed=61, pause=0.6, voice=voice)
    sound = sound[: 29 * RATE]
    heard = hear(engine, sound, language)
    assert heard.encodes == 1
    assert heard.cpu_seconds > 0
    assert word_error_rate(reference, text(heard)) <= 4
    assert text(heard) == unicodedata.normalize("NFC", text(heard))
    assert len(heard.segments) == 7
    assert all(0 <= s.start < s.end <= len(sound) / RATE for s in heard.segments)
    assert all(0.5 < segment.confidence <= 1 for segment in heard.segments)


def test_a_long_silence_at_the_end_costs_no_second_encode(engine: Engine) -> None:
    sound, reference = recording("en", 1, seed=62)
    heard = hear(engine, np.concatenate([sound, silence(20)]), "en")
    assert heard.encodes == 1
    assert word_error_rate(reference, text(heard)) == 0


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.5, 5, 30])
def test_silence_of_any_length_has_no_text(engine: Engine, seconds: float) -> None:
    heard = hear(engine, silence(seconds), "vi")
    assert heard.segments == ()


def test_over_thirty_seconds_is_two_windows(engine: Engine) -> None:
    sound, reference = recording("en", 14, seed=63, pause=0.8)
    heard = hear(engine, sound[: 58 * RATE], "en")
    assert heard.encodes == 2
    assert word_error_rate(reference, text(heard)) <= 6
    starts = [segment.start for segment in heard.segments]
    assert starts == sorted(starts)
    assert starts[-1] > 30


@pytest.mark.parametrize("language", ["en", "vi"])
def test_auto_takes_the_likeliest_of_the_languages_there_are(engine: Engine, language: str) -> None:
    sound, _ = recording(language, 3, seed=64)
    heard = hear(engine, sound, "auto")
    assert (heard.language, heard.encodes) == (language, 2)
    other = "vi" if language == "en" else "en"
    assert hear(engine, sound, "auto", languages=(other,)).language == other


def test_words_lie_inside_their_segments(engine: Engine) -> None:
    sound, _ = recording("vi", 3, seed=65)
    for segment in hear(engine, sound, "vi", job=JobOptions(words=True)).segments:
        assert " ".join(word.word for word in segment.words) == segment.text
        times = [time for word in segment.words for time in (word.start, word.end)]
        assert times == sorted(times)
        assert segment.start <= times[0]
        assert times[-1] <= segment.end


def test_unknown_languages_are_refused(engine: Engine) -> None:
    with pytest.raises(UnsupportedLanguageError):
        hear(engine, silence(1), "klingon")


@pytest.mark.parametrize("content", [b"", b"abc", b"not a model at all" * 100])
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ggml-x.bin"
    path.write_bytes(content)
    with pytest.raises(ModelMissingError):
        build(EngineSpec("whisper_cpp", path))
    with pytest.raises(ModelMissingError):
        build(EngineSpec("whisper_cpp", tmp_path / "none"))
    assert ModelCatalogue([tmp_path]).names() == []


def test_the_catalogue(tmp_path: Path) -> None:
    catalogue = ModelCatalogue([tmp_path / "none", tmp_path, MODEL.parent])
    assert catalogue.names() == ["demo-q5_0"]
    assert len(catalogue.sha256("demo-q5_0")) == 64
    (tmp_path / "ggml-tiny.bin").write_bytes(MODEL.read_bytes()[:100])
    assert catalogue.names() == ["demo-q5_0", "tiny"]
    assert catalogue.path("tiny").parent == tmp_path
    with pytest.raises(ModelMissingError):
        catalogue.path("large")


def test_an_unknown_engine_is_named() -> None:
    with pytest.raises(SettingsError, match="ENGINE"):
        adapter("vosk")
    with pytest.raises(SettingsError, match="ENGINE"):
        adapter("no.such.engine")
    assert engine_version().startswith("pywhispercpp ")


def test_letters_split_across_tokens_are_joined_before_decoding() -> None:
    whole = " ổn".encode()
    tokens = [Token(whole[:2], 0.9, 0.1), Token(whole[2:], 0.7, 0.2)]
    assert decode(tokens) == "ổn"
    words = list(words_of(TokenSegment(0.0, 0.2, tuple(tokens))))
    assert [(word.word, round(word.probability, 2)) for word in words] == [("ổn", 0.8)]


def test_text_is_composed_whatever_the_model_writes() -> None:
    """Clients compare and count letters: `ổ` is one, even if a model writes it as `o` and two accents."""
    tokens = [Token(unicodedata.normalize("NFD", text).encode(), 0.9, 0.1) for text in (" Hà", " Nội")]
    assert decode(tokens) == "Hà Nội"
    assert len(decode(tokens)) == len("Hà Nội") == 6
    assert [word.word for word in words_of(TokenSegment(0.0, 0.2, tuple(tokens)))] == ["Hà", "Nội"]


def test_windows_cover_everything() -> None:
    samples = np.random.default_rng(1).standard_normal(100 * RATE).astype(np.float32)
    found = list(windows(samples))
    assert found[0][0] == 0
    assert found[-1][1] == len(samples)
    assert all(one[1] == other[0] for one, other in itertools.pairwise(found))
    assert all(last - first <= 30 * RATE for first, last in found)
