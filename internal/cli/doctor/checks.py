"""All checks of `stt doctor`, in the order in which they are printed."""

from __future__ import annotations

from internal.cli.doctor import machine, programs, stores
from internal.cli.doctor.findings import Check

CHECKS = (
    Check("ffmpeg", programs.ffmpeg),
    Check("models", programs.models, seconds=60),
    Check("engine", programs.engine, seconds=180),
    Check("database", stores.database),
    Check("broker", stores.broker),
    Check("storage", stores.storage),
    Check("keys", stores.keys),
    Check("service", machine.service),
    Check("port", machine.port),
    Check("clock", machine.clock),
    Check("memory", machine.memory),
    Check("disk", machine.disk),
    Check("permissions", machine.permissions),
)
