"""Choice of the next token: Whisper's rules on timestamps, and the measures of a transcript's quality.

The rules and thresholds are those of OpenAI's `whisper/decoding.py` and `whisper/transcribe.py`.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from worker.whisper.vocabulary import SPACE, Vocabulary

FIRST_TIMESTAMP_LIMIT = 50
"""Steps of 20 ms before which the first segment has to start."""
MAX_TOKENS = 224
"""Tokens of one transcript: half of the decoder's length."""
MAX_COMPRESSION = 2.4
"""Compression ratio of a text above which it counts as a repetition."""
MIN_LOG_PROBABILITY = -1.0
"""Mean log probability of tokens below which a transcript counts as failed."""
MAX_NO_SPEECH = 0.6
"""Probability of the no-speech token above which a transcript of low probability counts as silence."""
Logits = NDArray[np.float32]


@dataclass(slots=True)
class Transcript:
    """The tokens of one window with their probabilities. no_speech: probability of silence, 0..1."""

    tokens: list[int] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    no_speech: float = 0.0
    ended: bool = False

    def log_probability(self) -> float:
        """Return the mean log probability of the tokens."""
        return float(np.log(np.maximum(self.probabilities, 1e-10)).mean()) if self.probabilities else 0.0

    def is_silence(self) -> bool:
        return self.no_speech > MAX_NO_SPEECH and self.log_probability() < MIN_LOG_PROBABILITY

    def failed(self, vocabulary: Vocabulary) -> bool:
        """Return True if the window should be decoded again at a higher temperature."""
        if self.is_silence():
            return False
        text = b"".join(map(vocabulary.bytes, self.tokens))
        repeated = len(text) > MAX_COMPRESSION * len(zlib.compress(text))
        return repeated or self.log_probability() < MIN_LOG_PROBABILITY


def restrict(logits: Logits, transcript: Transcript, vocabulary: Vocabulary) -> None:
    """Set the logits of tokens that must not follow to -inf. logits: shape (vocabulary,)."""
    first, end = vocabulary.first_timestamp, vocabulary.end_of_text
    logits[vocabulary.start : first] = -np.inf
    tokens = transcript.tokens
    if not tokens:
        logits[SPACE] = -np.inf
        logits[: vocabulary.start] = -np.inf
        logits[first + FIRST_TIMESTAMP_LIMIT + 1 :] = -np.inf
        return
    follows_timestamp = tokens[-1] >= first
    in_pair = follows_timestamp and len(tokens) > 1 and tokens[-2] < first
    if follows_timestamp and in_pair:
        logits[:end] = -np.inf
    elif follows_timestamp:
        logits[first:] = -np.inf
    last = next((token for token in reversed(tokens) if token >= first), None)
    if last is not None:
        logits[first : last if in_pair else last + 1] = -np.inf
    best = logits[first:].max()
    if best > -np.inf and best + np.log(np.exp(logits[first:] - best).sum()) > logits[:first].max():
        logits[:first] = -np.inf


def choose(
    logits: Logits, transcript: Transcript, vocabulary: Vocabulary, temperature: float, random: np.random.Generator
) -> int:
    """Add the next token to the transcript and return it. temperature: 0 for the most likely token."""
    probabilities = np.exp(logits - logits.max())
    total = probabilities.sum()
    restrict(logits, transcript, vocabulary)
    if temperature > 0:
        weights = np.exp((logits - logits.max()) / temperature)
        token = int(random.choice(len(weights), p=weights.astype(np.float64) / weights.sum(dtype=np.float64)))
    else:
        token = int(logits.argmax())
    if token == vocabulary.end_of_text:
        transcript.ended = True
    else:
        transcript.tokens.append(token)
        transcript.probabilities.append(float(probabilities[token] / total))
        transcript.ended = len(transcript.tokens) >= MAX_TOKENS
    return token
