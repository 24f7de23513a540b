"""Refusal of a start whose engine processes do not fit into memory."""

from __future__ import annotations

from core.config import Settings
from core.domain.models import choose
from core.errors import ModelFileError, ModelMissingError, SettingsError
from core.machine import memory_limit
from worker.memory import process_bytes
from worker.models import ModelCatalogue


def check_memory(settings: Settings, catalogue: ModelCatalogue) -> None:
    """Compare the engine processes with the machine's memory if each has loaded the model of jobs that name none.

    Raises SettingsError with the arithmetic. Without a model, or with MEMORY_CHECK=false, nothing is compared.
    """
    if not settings.memory_check:
        return
    name = choose(None, settings.default_language, catalogue.names(), settings.default_model)
    if name is None:
        return
    try:
        each = process_bytes(settings.engine, catalogue.path(name))
    except (OSError, ModelMissingError, ModelFileError):  # removed at this moment
        return
    processes, memory = settings.worker_concurrency, memory_limit()
    if processes * each <= memory:
        return
    raise SettingsError(
        f"WORKER_CONCURRENCY: {processes} engine processes × {each / 1e9:.1f} GB with the model {name} "
        f"= {processes * each / 1e9:.1f} GB, but this machine has {memory / 1e9:.1f} GB. "
        f"Set WORKER_CONCURRENCY={max(memory // each, 1)}, or DEFAULT_MODEL to a smaller model, "
        "or MEMORY_CHECK=false to start nevertheless"
    )
