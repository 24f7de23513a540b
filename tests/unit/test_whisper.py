"""Model files, features, vocabulary, token rules and alignment of the OpenVINO engine."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.domain.models import ORIGINALS
from tests.speech import MODEL
from worker.model_files import Weights, open_model
from worker.token_segments import Token, decode
from worker.whisper.decoding import MAX_TOKENS, Transcript, choose, restrict
from worker.whisper.features import log_mel
from worker.whisper.vocabulary import LANGUAGES, Vocabulary
from worker.whisper.word_times import ALIGNMENT_HEADS, alignment_heads, shortest_path, token_starts

RANDOM = np.random.default_rng(1)


@pytest.fixture(scope="module")
def model() -> Weights:
    return open_model(MODEL)


@pytest.fixture(scope="module")
def vocabulary(model: Weights) -> Vocabulary:
    return Vocabulary(model)


def test_features_of_a_tone_peak_in_its_band(model: Weights) -> None:
    seconds = np.arange(16000 * 5) / 16000
    tone = np.sin(2 * np.pi * 1000 * seconds).astype(np.float32)
    features = log_mel(tone, model.filters)
    assert features.shape == (80, 3000)
    band = int(np.argmax(model.filters[:, 25]))  # 1,000 Hz of 40 Hz a bin
    assert np.all(np.abs(features[:, 10:480].argmax(axis=0) - band) <= 1)
    assert features.max() - features.min() <= 2.0001, "eight powers of ten, divided by four"
    assert np.all(features[:, 510:] == features.min())


def test_features_of_no_samples_are_silence(model: Weights) -> None:
    assert len(np.unique(log_mel(np.zeros(0, np.float32), model.filters))) == 1


def test_special_tokens_have_their_numbers(vocabulary: Vocabulary) -> None:
    """The numbers of OpenAI's multilingual tokenizer with 99 languages."""
    assert vocabulary.multilingual
    assert (vocabulary.end_of_text, vocabulary.start) == (50257, 50258)
    assert vocabulary.language("en") == 50259
    assert vocabulary.language("vi") == 50259 + LANGUAGES.index("vi") == 50278
    assert (vocabulary.transcribe, vocabulary.previous, vocabulary.no_speech) == (50359, 50361, 50362)
    assert (vocabulary.no_timestamps, vocabulary.first_timestamp) == (50363, 50364)
    assert vocabulary.language("klingon") is None


@pytest.mark.parametrize(
    "text", ["Hello, world!", "Hà Nội 2024", "Đại tướng Võ Nguyên Giáp", "it's  5_000 😀", "first line\nsecond line"]
)
def test_prompts_survive_their_tokens(vocabulary: Vocabulary, text: str) -> None:
    tokens = vocabulary.encode(text)
    assert decode([Token(vocabulary.bytes(token), 1.0, 0.0) for token in tokens]) == text
    assert len(tokens) < len(text.encode())


def test_a_long_prompt_keeps_its_end(vocabulary: Vocabulary) -> None:
    prompt = vocabulary.prompt("vi", "một hai ba " * 200, 223)
    assert len(prompt) == 1 + 223 + 3
    assert prompt[0] == vocabulary.previous
    assert prompt[-3:] == [50258, 50278, 50359]
    assert vocabulary.prompt("en", "  ", 223) == [50258, 50259, 50359]


def allowed(vocabulary: Vocabulary, tokens: list[int]) -> np.ndarray:
    logits = np.zeros(vocabulary.size, np.float32)
    logits[100] = logits[vocabulary.end_of_text] = 20  # so that the total of timestamps does not exclude text
    restrict(logits, Transcript(tokens), vocabulary)
    return logits > -np.inf


def test_a_transcript_begins_with_a_timestamp_of_the_first_second(vocabulary: Vocabulary) -> None:
    first = vocabulary.first_timestamp
    assert np.flatnonzero(allowed(vocabulary, [])).tolist() == list(range(first, first + 51))


def test_timestamps_come_in_pairs_and_never_go_back(vocabulary: Vocabulary) -> None:
    first, end = vocabulary.first_timestamp, vocabulary.end_of_text
    after_start = allowed(vocabulary, [first])
    assert after_start[100]
    assert not after_start[first:].any()
    in_text = allowed(vocabulary, [first + 5, 100])
    assert in_text[100]
    assert in_text[end]
    assert np.flatnonzero(in_text[first:])[0] == 6
    after_end = allowed(vocabulary, [first + 5, 100, first + 9])
    assert not after_end[:end].any()
    assert after_end[end]
    assert np.flatnonzero(after_end[first:])[0] == 9
    assert not allowed(vocabulary, [first, 100])[vocabulary.start : first].any()


def test_likely_timestamps_together_exclude_text(vocabulary: Vocabulary) -> None:
    logits = np.zeros(vocabulary.size, np.float32)
    logits[100] = 2
    restrict(logits, Transcript([vocabulary.first_timestamp, 100]), vocabulary)
    assert not (logits[: vocabulary.first_timestamp] > -np.inf).any()


def test_a_transcript_ends_at_its_limit(vocabulary: Vocabulary) -> None:
    transcript = Transcript()
    while not transcript.ended:
        logits = np.zeros(vocabulary.size, np.float32)
        logits[100] = 20
        choose(logits, transcript, vocabulary, 0.0, RANDOM)
    assert len(transcript.tokens) == MAX_TOKENS
    assert transcript.failed(vocabulary), "one token over and over"


def test_quality_is_judged_by_probability_and_repetition(vocabulary: Vocabulary) -> None:
    text = vocabulary.encode("The quick brown fox jumps over the lazy dog.")
    assert not Transcript(text, [0.9] * len(text)).failed(vocabulary)
    assert Transcript(text, [0.1] * len(text)).failed(vocabulary)
    assert Transcript(text * 8, [0.9] * len(text) * 8).failed(vocabulary)
    silence = Transcript(text, [0.1] * len(text), no_speech=0.9)
    assert silence.is_silence()
    assert not silence.failed(vocabulary)
    assert not Transcript().failed(vocabulary)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_the_path_is_the_cheapest(rows: int, columns: int, seed: int) -> None:
    costs = np.random.default_rng(seed).uniform(-1, 1, (rows, columns)).astype(np.float32)

    def cheapest(row: int, column: int) -> float:
        before = [(row - 1, column - 1), (row - 1, column), (row, column - 1)]
        earlier = [cheapest(*cell) for cell in before if min(cell) >= 0]
        return float(costs[row, column]) + (min(earlier) if earlier else 0)

    path = list(zip(*shortest_path(costs), strict=True))
    assert path[0] == (0, 0)
    assert path[-1] == (rows - 1, columns - 1)
    steps = {(after[0] - before[0], after[1] - before[1]) for before, after in itertools.pairwise(path)}
    assert steps <= {(1, 1), (1, 0), (0, 1)}
    assert sum(float(costs[cell]) for cell in path) == pytest.approx(cheapest(rows - 1, columns - 1), abs=1e-4)


def test_tokens_start_where_attention_moves_to_them() -> None:
    attention = np.full((2, 4, 1500), 1e-4, np.float32)
    for token, frame in enumerate([0, 40, 90, 160]):
        attention[:, token, frame : [40, 90, 160, 200][token]] = 1
    assert token_starts(attention, 200) == pytest.approx([0.0, 0.8, 1.8, 3.2], abs=0.1)


def test_known_models_have_their_heads(model: Weights) -> None:
    last = [(layer, head) for layer in (1, 2, 3) for head in (0, 1)]
    assert alignment_heads("ggml-demo-q5_0.bin", model) == last
    assert alignment_heads("ggml-tiny.bin", model) == last, "the demo model has no head 5"
    assert tuple(ALIGNMENT_HEADS) == ORIGINALS
