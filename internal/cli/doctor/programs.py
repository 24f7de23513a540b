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
        return failed(f"ffmpeg does not start: {error}", "Install the package imageio-ffmpeg again, or ffmpeg itself.")
    return ok(done.stdout.splitlines()[0])


def models(settings: Settings) -> Finding:
    """Check that every model file is complete, and that the default model is there."""
    from worker import model_files
    from worker.models import ModelCatalogue

    folders = [folder for folder in settings.model_dirs if folder.is_dir()]
    for path in [path for folder in folders for path in sorted(folder.iterdir()) if model_of_file(path.name)]:
        try:
            model_files.check(path)
        except SttError as error:
            return failed(str(error), f"It is {path}.")
    names = ModelCatalogue(settings.model_dirs).names()
    if not names:
        return failed(f"no model in {settings.models_dir}", GET_MODEL)
    default = choose("", settings.default_language, names, settings.default_model)
    if default is None:
        return failed(f"DEFAULT_MODEL={settings.default_model} is not installed", GET_MODEL)
    if default.startswith(DEMO):
        return warning("only the demo model, which knows the sentences of two small grammars", GET_MODEL)
    return ok(f"{', '.join(names)}; default: {default}")


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
        return failed(str(error), "Check ENGINE and that its libraries are installed.")
    if outcome.error:
        text = f"{outcome.variant}: {outcome.error}"
        return failed(text, "Set ENGINE=whisper_cpp_wheel, or build the engine again with `make engine`.")
    speed = f"{outcome.audio_seconds:.0f} s of audio in {outcome.cpu_seconds:.1f} s of CPU time"
    return ok(f"{description}; {name}: {speed}")
