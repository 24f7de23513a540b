"""OpenVINO encoders for whisper.cpp, made on this machine from the model file and kept beside it or in the cache.

`python -m worker.whisper_encoder MODEL TARGET` makes one and runs it once. It is a process of its own, since its
libraries and the weights need memory, and since an instruction that the processor does not have would end it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import structlog
from filelock import FileLock

from worker import model_files
from worker.whisper.openvino_settings import FOLDER, limit_instructions
from worker.whisper_builds import cache_folder, cpu_flags

log = structlog.get_logger(__name__)
FORMAT = 2
"""Version of the files, part of their name."""
MAKING_SECONDS = 300.0


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
    parts = [_checksum(model), str(FORMAT), importlib.metadata.version("openvino"), *sorted(cpu_flags()), instructions]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def _checksum(model: Path) -> str:
    """Return the SHA-256 of a file, kept in the cache until the file changes: reading a large one takes seconds."""
    path, state = model.resolve(), [list(numbers) for numbers in model_files.state(model)]
    name = hashlib.sha256(str(path).encode()).hexdigest()[:24]
    kept = cache_folder() / "checksums" / f"{model.stem}-{name}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):
        known, checksum = json.loads(kept.read_text())
        if known == state and isinstance(checksum, str):
            return checksum
    with path.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    temporary = kept.with_suffix(f".{os.getpid()}")
    with contextlib.suppress(OSError):
        kept.parent.mkdir(mode=0o700, exist_ok=True)
        temporary.write_text(json.dumps([state, checksum]))
        temporary.replace(kept)
    return checksum


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

    from worker.whisper import graphs, runtime

    limit_instructions()
    core, weights = ov.Core(), model_files.open_model(model)
    graph = runtime.kept_graph(core, model, "encoder") or graphs.encoder(weights)
    shape = [1, weights.header.mels, 2 * weights.header.frames]
    graph.reshape(shape)
    options = runtime.precision(*runtime.supported(core))
    for option, value in options.items():
        graph.set_rt_info(str(value), ["runtime_options", option])
    compiled = core.compile_model(graph, "CPU", options)
    [output] = compiled(np.zeros(shape, np.float32)).values()
    if not np.isfinite(output).all():
        raise ValueError("the encoder's output is not finite")
    temporary = encoder.with_name(f"{os.getpid()}-{encoder.name}")
    ov.save_model(graph, temporary, compress_to_fp16=False)
    temporary.with_suffix(".bin").replace(encoder.with_suffix(".bin"))
    temporary.replace(encoder)


if __name__ == "__main__":
    make(Path(sys.argv[1]), Path(sys.argv[2]))
