"""Checks of the programs that work on recordings: ffmpeg, the models, the engine."""

from __future__ import annotations

import asyncio
import subprocess
from typing import TYPE_CHECKING

from core.domain.models import DEMO, choose, model_of_file
from core.error_base import SttError
from internal.cli.doctor.findings import Finding, failed, ok, warning

if TYPE_CHECKING:
    from core.config import Settings
    from worker.engine_trial import Outcome

ENGINE_SECONDS = 150.0
GET_MODEL = "`stt models pull` gets one; see docs/models.md."


def ffmpeg(settings: Settings) -> Finding:
    """Check that ffmpeg starts."""
    from worker.ffmpeg import program

    try:
        done = subprocess.run([program(), "-version"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return failed(
            "it does not start: {reason}",
            "Install the package imageio-ffmpeg again, or ffmpeg itself.",
            reason=str(error),
        )
    return ok("starts: {version}", version=done.stdout.splitlines()[0])


def models(settings: Settings) -> Finding:
    """Check that every model file is complete, and that the default model is there."""
    from worker import model_files
    from worker.models import ModelCatalogue

    folders = [folder for folder in settings.model_dirs if folder.is_dir()]
    for path in [path for folder in folders for path in sorted(folder.iterdir()) if model_of_file(path.name)]:
        try:
            model_files.check(path)
        except SttError as error:
            return failed("it cannot be used: {reason}", "Remove or replace {path}.", reason=error, path=str(path))
    names = ModelCatalogue(settings.model_dirs).names()
    if not names:
        return failed("no model in {folder}", GET_MODEL, folder=str(settings.models_dir))
    default = choose("", settings.default_language, names, settings.default_model)
    if default is None:
        return failed("DEFAULT_MODEL={name} is not installed", GET_MODEL, name=settings.default_model)
    if default.startswith(DEMO):
        return warning("only the demo model, which knows the sentences of two small grammars", GET_MODEL)
    return ok("{names}; default: {name}", names=", ".join(names), name=default)


def engine(settings: Settings) -> Finding:
    """Transcribe a recording in a child process, which may crash, with the engine that the service would use."""
    from core.errors import SettingsError
    from worker.engine_choice import EngineChoices
    from worker.engine_trial import try_variant
    from worker.models import ModelCatalogue

    catalogue = ModelCatalogue(settings.model_dirs)
    name = choose("", settings.default_language, catalogue.names(), settings.default_model)
    if name is None:
        return warning("not tried without a model", GET_MODEL)
    path = catalogue.path(name)

    async def trial() -> tuple[str, Outcome]:
        choice = await EngineChoices(settings.engine, settings.worker_concurrency).choose(path)
        return choice.description, await try_variant(choice.variant, path, seconds=ENGINE_SECONDS)

    try:
        description, outcome = asyncio.run(trial())
    except (SettingsError, SttError) as error:
        reason = error if isinstance(error, SttError) else str(error)
        return failed(
            "it cannot be used: {reason}", "Check ENGINE and that its libraries are installed.", reason=reason
        )
    if outcome.error:
        return failed(
            "{engine} failed: {reason}",
            "Set ENGINE=whisper_cpp_wheel, or build the engine again with `make engine`.",
            engine=str(outcome.variant),
            reason=outcome.error,
        )
    return ok(
        "{engine}; {model}: {audio} s of audio in {cpu} s of CPU time",
        engine=description,
        model=name,
        audio=round(outcome.audio_seconds),
        cpu=round(outcome.cpu_seconds, 1),
    )
