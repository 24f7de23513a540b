"""OpenVINO encoders for whisper.cpp, made on this machine from the model file and kept beside it or in the cache.

`python -m worker.whisper_encoder MODEL TARGET` makes one and runs it once. It is a process of its own, since its
libraries and the weights need memory, and since an instruction that the processor does not have would end it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import structlog
from filelock import FileLock

from worker.whisper.openvino_settings import FOLDER, QUANTISATION_GROUP, limit_instructions
from worker.whisper_builds import cache_folder, cpu_flags

log = structlog.get_logger(__name__)
FORMAT = 1
"""Version of the files, part of their name."""
MAKING_SECONDS = 300.0
OPTIONS = {"INFERENCE_PRECISION_HINT": "bf16", "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(QUANTISATION_GROUP)}
"""Properties of OpenVINO to compile the encoder with. Processors without bf16 compute with 32 bits."""


def encoder_for(model: Path) -> Path | None:
    """Return the encoder's file, made first if needed, or None if it cannot be made or does not work here."""
    try:
        name = f"{model.stem}-{_key(model, limit_instructions())}"
        for folder in _folders(model):
            with contextlib.suppress(OSError):
                if (encoder := _find_or_make(model, folder, name)) is not None:
                    return encoder
    except (OSError, importlib.metadata.PackageNotFoundError) as error:
        log.warning("no OpenVINO encoder", action="encoder_missing", model=model.name, reason=repr(error))
    return None


def _key(model: Path, instructions: str) -> str:
    """Return what an encoder depends on: the model's bytes, the versions, and the processor that it was tried on."""
    with model.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    parts = [checksum, str(FORMAT), importlib.metadata.version("openvino"), *sorted(cpu_flags()), instructions]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def _folders(model: Path) -> Iterator[Path]:
    yield model.parent / FOLDER
    yield cache_folder() / FOLDER


def _find_or_make(model: Path, folder: Path, name: str) -> Path | None:
    """Return the encoder in the folder; None if making it failed, now or earlier. Raises OSError if it is read-only."""
    encoder, failed = folder / f"{name}.xml", folder / f"{name}.failed"
    if encoder.exists():
        return encoder
    folder.mkdir(exist_ok=True)
    with FileLock(folder / f"{name}.lock", timeout=MAKING_SECONDS):
        if not encoder.exists() and not failed.exists():
            failed.write_text(_make(model, encoder))
            if encoder.exists():
                failed.unlink()
    return encoder if encoder.exists() else None


def _make(model: Path, encoder: Path) -> str:
    """Make the encoder in a child process. Return the reason if that fails."""
    command = [sys.executable, "-m", "worker.whisper_encoder", str(model), str(encoder)]
    root = Path(__file__).resolve().parents[1]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, timeout=MAKING_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        reason = f"not made within {MAKING_SECONDS:.0f} s"
    else:
        reason = done.stderr.decode(errors="replace")[-500:] or f"status {done.returncode}"
        if done.returncode == 0:
            return ""
    log.warning("no OpenVINO encoder", action="encoder_not_made", model=model.name, reason=reason)
    return reason


def make(model: Path, encoder: Path) -> None:
    """Write the encoder after it has run once. Its weights are read from the model file, of any quantisation."""
    import numpy as np
    import openvino as ov

    from worker.model_files import open_model
    from worker.whisper import graphs

    weights = open_model(model)
    graph = graphs.encoder(weights)
    shape = [1, weights.header.mels, 2 * weights.header.frames]
    graph.reshape(shape)
    for option, value in OPTIONS.items():
        graph.set_rt_info(value, ["runtime_options", option])
    compiled = ov.Core().compile_model(graph, "CPU", OPTIONS)
    [output] = compiled(np.zeros(shape, np.float32)).values()
    if not np.isfinite(output).all():
        raise ValueError("the encoder's output is not finite")
    temporary = encoder.with_name(f"{os.getpid()}-{encoder.name}")
    ov.save_model(graph, temporary, compress_to_fp16=False)
    temporary.with_suffix(".bin").replace(encoder.with_suffix(".bin"))
    temporary.replace(encoder)


if __name__ == "__main__":
    make(Path(sys.argv[1]), Path(sys.argv[2]))
