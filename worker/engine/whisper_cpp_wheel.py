"""whisper.cpp adapter that always uses the wheel's build, for machines on which the build of `make engine` fails."""

from __future__ import annotations

from worker.engine.whisper_cpp import WhisperCpp
from worker.model_format import check_format
from worker.transcriber import EngineSpec


def load(spec: EngineSpec) -> WhisperCpp:
    """Load a model in the wheel's build. Raises OutOfMemoryError, ModelMissingError."""
    check_format(spec.model_path)
    return WhisperCpp(spec, None)
