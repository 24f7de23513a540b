"""Tokens of a Whisper model: special tokens by number, text tokens by their bytes."""

from __future__ import annotations

import re
import unicodedata

from worker.model_files import Weights

_CODES = (
    "en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr bg lt la "
    "mi ml cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo so af oc ka be "
    "tg sd gu am yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha ba jw su yue"
)
LANGUAGES = _CODES.split()
"""Language codes in the order of their tokens (OpenAI's `whisper/tokenizer.py`)."""
TEXT_TOKENS = 51765
"""Tokens of a vocabulary without its languages, of an English-only model."""
SPACE = 220
"""The token of a single space."""
_PIECES = re.compile(r"'(?:s|t|re|ve|m|ll|d)| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+")


class Vocabulary:
    """Numbers of the special tokens, and the text of the others."""

    def __init__(self, model: Weights) -> None:
        size = model.header.vocabulary
        self.size = size
        self.multilingual = size > TEXT_TOKENS + 99
        languages = size - TEXT_TOKENS - int(self.multilingual)
        self.end_of_text = 50257 if self.multilingual else 50256
        self.start = self.end_of_text + 1
        self.languages = LANGUAGES[:languages] if self.multilingual else LANGUAGES[:1]
        after = self.start + 1 + languages
        self.transcribe, self.previous, self.no_speech, self.no_timestamps = after + 1, after + 3, after + 4, after + 5
        self.first_timestamp = after + 6
        text = model.tokens[: self.end_of_text]
        self._bytes = [*text, *[b""] * (self.end_of_text - len(text))]
        self._ids = {data: index for index, data in reversed(list(enumerate(text)))}

    def language(self, code: str) -> int | None:
        """Return the token of a language; None if the model does not have it."""
        return self.start + 1 + self.languages.index(code) if code in self.languages else None

    def bytes(self, token: int) -> bytes:
        return self._bytes[token] if token < self.end_of_text else b""

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a prompt: of each word, the longest known pieces, as whisper.cpp does."""
        tokens: list[int] = []
        for piece in _PIECES.findall(unicodedata.normalize("NFC", text)):
            data = piece.encode()
            while data:
                length = next((size for size in range(len(data), 0, -1) if data[:size] in self._ids), 0)
                if length:
                    tokens.append(self._ids[data[:length]])
                data = data[max(length, 1) :]
        return tokens

    def prompt(self, language: str, previous: str, longest: int) -> list[int]:
        """Return the tokens that precede the transcript. previous: text before it; longest: tokens of it, the last."""
        start = [self.start]
        if self.multilingual and (token := self.language(language)) is not None:
            start += [token, self.transcribe]
        context = self.encode(f" {previous.strip()}")[-longest:] if previous.strip() else []
        return [self.previous, *context, *start] if context else start
