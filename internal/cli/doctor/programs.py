"""Checks of the programs that work on recordings: ffmpeg, the models, the engine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from core.domain.models import DEMO, choose, model_of_file
from core.error_base import SttError
from internal.cli.doctor.findings import Finding, failed, ok, warning

if TYPE_CHECKING:
    from core.config import Settings

ROOT = Path(__file__).resolve().parents[3]
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
    """Transcribe a recording in a child process, which may crash."""
    from worker.models import ModelCatalogue

    catalogue = ModelCatalogue(settings.model_dirs)
    name = choose("", settings.default_language, catalogue.names(), settings.default_model)
    if name is None:
        return warning("not tried without a model", GET_MODEL)
    task = json.dumps([settings.engine, str(catalogue.path(name)), settings.languages])
    call = [sys.executable, "-m", "internal.cli.doctor.engine_child", task]
    try:
        done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=ENGINE_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return failed(f"{settings.engine} did not end within {ENGINE_SECONDS:.0f} s", "Use a smaller model.")
    if done.returncode < 0:
        text = f"{settings.engine} crashed with signal {-done.returncode}"
        return failed(text, "Set ENGINE=whisper_cpp_wheel, or build the engine again with `make engine`.")
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        return failed(f"{settings.engine}: {reason}", "Check ENGINE and that its libraries are installed.")
    result = json.loads(done.stdout.splitlines()[-1])
    return ok(f"{result['version']}; {name}: {result['audio']:.0f} s of audio in {result['seconds']:.1f} s")
