"""Response bodies of the OpenAI-compatible routes."""

from __future__ import annotations

import math
import zlib
from collections.abc import Set
from typing import Any

from core.domain.result import Result, ResultSegment

NAMES = {"en": "english", "vi": "vietnamese"}


def transcription(result: Result) -> dict[str, Any]:
    return {"text": result.text, "usage": usage(result)}


def verbose(result: Result, temperature: float, granularities: Set[str]) -> dict[str, Any]:
    """Return a `verbose_json` body. Fields that the engine does not provide (tokens, no_speech_prob) are empty or 0."""
    language = result.detected_language or result.language
    body: dict[str, Any] = {
        "task": "transcribe",
        "language": NAMES.get(language, language),
        "duration": result.duration_seconds,
        "text": result.text,
    }
    if "segment" in granularities:
        body["segments"] = [_segment(segment, temperature) for segment in result.segments]
    if "word" in granularities:
        words = [word for segment in result.segments for word in segment.words]
        body["words"] = [{"word": word.word, "start": word.start, "end": word.end} for word in words]
    return body | {"usage": usage(result)}


def usage(result: Result) -> dict[str, Any]:
    return {"type": "duration", "seconds": math.ceil(result.duration_seconds)}


def _segment(segment: ResultSegment, temperature: float) -> dict[str, Any]:
    return {
        "id": segment.id,
        "seek": round(segment.start * 100),
        "start": segment.start,
        "end": segment.end,
        "text": segment.text,
        "tokens": [],
        "temperature": temperature,
        "avg_logprob": round(math.log(max(segment.confidence, 1e-6)), 4),
        "compression_ratio": compression(segment.text),
        "no_speech_prob": 0.0,
    }


def compression(text: str) -> float:
    """Return the zlib compression ratio of the text, as Whisper computes it: high for repetitive text."""
    data = text.encode()
    return round(len(data) / len(zlib.compress(data)), 4)


def models(names: list[str], created: int) -> dict[str, Any]:
    data = [{"id": name, "object": "model", "created": created, "owned_by": "async-stt"} for name in names]
    return {"object": "list", "data": data}
