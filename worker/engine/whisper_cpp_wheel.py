"""whisper.cpp adapter that always uses the wheel's build, for machines on which the build of `make engine` fails."""

from __future__ import annotations

from worker import model_files
from worker.engine.whisper_cpp import MODEL_FORMATS, WhisperCpp
from worker.transcriber import EngineSpec


def load(spec: EngineSpec) -> WhisperCpp:
    """Load a model in the wheel's build. Raises OutOfMemoryError, ModelMissingError, ModelFileError."""
    model_files.check(spec.model_path, MODEL_FORMATS)
    return WhisperCpp(spec, None)
