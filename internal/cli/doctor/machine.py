"""Checks of the machine: port, clock, memory, disk, permissions."""

from __future__ import annotations

import shutil
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from core.domain.models import choose
from core.error_base import SttError
from internal import data_folder
from internal.cli.doctor.findings import Finding, failed, ok, warning
from internal.cli.doctor.stores import sqlite_file, with_application

if TYPE_CHECKING:
    from core.config import Settings
    from internal.bootstrap import Application

GIGABYTE = 1024**3
LEAST_DISK, LOW_DISK = 256 * 1024**2, 2 * GIGABYTE
"""Free bytes below which a disk fails, or gets a warning."""
FOOTPRINT = 1.3
"""Memory of an engine process by the size of its model file; beyond it, its buffers (docs/performance.md)."""
SKEW_SECONDS = 5.0
SUM = "{processes} processes × {model} ({size} GB × {factor}) = {needed} GB, {free} GB free"
MEMORY_FILES = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def running(settings: Settings) -> data_folder.Address | None:
    """Return the embedded service that runs on DATA_DIR, or None."""
    try:
        return data_folder.find(settings.data_dir)
    except data_folder.Starting:
        return None


def service(settings: Settings) -> Finding:
    """Say if the embedded service of DATA_DIR runs, and if it answers."""
    import httpx

    address = running(settings)
    if address is None:
        return ok("none runs on {folder}", folder=str(settings.data_dir))
    try:
        health = httpx.get(f"{address.url}/health", timeout=5, trust_env=False).json()
    except (httpx.HTTPError, ValueError) as error:
        return failed(
            "{url} does not answer: {reason}",
            "See its log; its process is {pid}.",
            url=address.url,
            reason=str(error),
            pid=address.pid,
        )
    if health.get("status") != "healthy":
        faults = {**health.get("checks", {}), **health.get("workers_sick", {})}
        return failed("{url} is unhealthy: {faults}", "See docs/operations.md.", url=address.url, faults=str(faults))
    return ok("runs at {url}", url=address.url)


def port(settings: Settings) -> Finding:
    """Check that the service can listen on API_HOST and API_PORT."""
    name = f"{settings.api_host}:{settings.api_port}"
    address = running(settings)
    if address is not None and address.url.endswith(f":{settings.api_port}"):
        return ok("{name} is that of the running service", name=name)
    family = socket.AF_INET6 if ":" in settings.api_host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.api_host, settings.api_port))
        except OSError as error:
            return warning(
                "{name} cannot be used: {reason}",
                "Set API_PORT, or stop the other program.",
                name=name,
                reason=error.strerror,
            )
    return ok("{name} is free", name=name)


def clock(settings: Settings) -> Finding:
    """Compare this machine's clock with the database's, or with the files of DATA_DIR."""
    file = sqlite_file(settings)
    if file is not None:
        newest = max((path.stat().st_mtime for path in settings.data_dir.glob("stt.db*")), default=0.0)
        if newest > time.time() + SKEW_SECONDS:
            return warning("the database was written in the future", "Check the date; was the clock set back?")
        return ok("the time here is {time}", time=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()))

    async def seconds(application: Application) -> float:
        from sqlalchemy import text

        async with application.database.read() as session:
            return float((await session.execute(text("SELECT extract(epoch FROM clock_timestamp())"))).scalar_one())

    try:
        skew = with_application(settings, seconds) - time.time()
    except SttError:
        return warning("not compared without the database", "See the line of the database.")
    if abs(skew) > SKEW_SECONDS:
        return warning("{skew} s from the database's clock", "Synchronise both machines (NTP).", skew=f"{skew:+.0f}")
    return ok("{skew} s from the database's clock", skew=f"{skew:+.1f}")


def available_memory() -> int:
    """Return the bytes that processes can still use, by /proc/meminfo and the limit of the container."""
    free = 0
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    for file in MEMORY_FILES:
        if file.exists() and (limit := file.read_text().strip()).isdigit():
            free = min(free, int(limit))
    return free


def memory(settings: Settings) -> Finding:
    """Compare the free memory with that of the engine processes with the default model."""
    from worker import model_files
    from worker.models import ModelCatalogue

    catalogue = ModelCatalogue(settings.model_dirs)
    name = choose("", settings.default_language, catalogue.names(), settings.default_model)
    free = available_memory()
    if name is None:
        return ok("{free} GB free", free=_gigabytes(free))
    size = sum(file.stat().st_size for file in model_files.files(catalogue.path(name)))
    needed = int(size * FOOTPRINT) * settings.worker_concurrency
    sums = {
        "processes": settings.worker_concurrency,
        "model": name,
        "size": f"{size / GIGABYTE:.2f}",
        "factor": FOOTPRINT,
        "needed": f"{needed / GIGABYTE:.2f}",
        "free": _gigabytes(free),
    }
    if needed > free and running(settings) is None:
        return failed(SUM, "Lower WORKER_CONCURRENCY, or use a smaller or quantised model.", **sums)
    return ok(SUM, **sums)


def _gigabytes(count: float) -> str:
    return f"{count / GIGABYTE:.1f}"


def disk(settings: Settings) -> Finding:
    """Check that the folders that are written to have room and can be written."""
    from core.files import check_disk

    shown = []
    for folder in dict.fromkeys((*settings.written_folders, settings.temp_dir)):
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        try:
            check_disk(existing)
        except SttError as error:
            return failed(
                "{name} cannot be used: {reason}",
                "Check its permissions and free space, or set DATA_DIR or TEMP_DIR.",
                name=str(existing),
                reason=error,
            )
        free = shutil.disk_usage(existing).free
        if free < LEAST_DISK:
            return failed("{folder}: {free} MB free", "Free some space.", folder=str(folder), free=free // 1024**2)
        if free < LOW_DISK:
            return warning(
                "{folder}: {free} GB free",
                "An hour of audio needs 115 MB while it runs.",
                folder=str(folder),
                free=_gigabytes(free),
            )
        shown.append(f"{folder}: {free / GIGABYTE:.0f} GB")
    return ok("free: {folders}", folders="; ".join(shown))


def permissions(settings: Settings) -> Finding:
    """Check that other users of the machine cannot read the secret, the database and the recordings."""
    private = (settings.data_dir / "secret.key", *settings.data_dir.glob("stt.db*"), settings.data_dir / "objects")
    readable = [path for path in private if path.exists() and path.stat().st_mode & 0o077]
    if readable:
        names = ", ".join(path.name for path in readable)
        return warning(
            "{names} can be read by other users",
            "Run `chmod -R go= {folder}`.",
            names=names,
            folder=str(settings.data_dir),
        )
    if not settings.data_dir.exists():
        return ok("nothing is there yet")
    return ok("{folder} is private", folder=str(settings.data_dir))
