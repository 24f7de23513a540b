"""Installation of a model that is made here: written beside its place, verified and tried, renamed last."""

from __future__ import annotations

import re
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from core.domain.models import file_name
from core.errors import DiskFullError, InvalidFieldError, ModelExistsError, ModelLockedError
from core.files import sync
from worker.model_files import files
from worker.model_store import lock
from worker.model_store.store import FOLDER as OWN_FOLDER
from worker.model_tools import TRYING, Report
from worker.model_tools.trial import Heard, try_model
from worker.model_tools.verification import verify
from worker.whisper.openvino_settings import FOLDER as GRAPHS

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
FREE_BYTES = 100_000_000
"""Bytes that stay free on the disk."""
LOCK_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Installed:
    """A model that is offered to jobs. size: bytes; heard: what it heard in the samples."""

    name: str
    path: Path
    size: int
    heard: tuple[Heard, ...]


def check_name(name: str) -> str:
    """Return the name. Raises InvalidFieldError if it cannot be part of a file's name."""
    if NAME.fullmatch(name) is None:
        raise InvalidFieldError(
            "name",
            "The name {value} is not valid. Use letters, digits, `.`, `_` and `-`.",
            value=ascii(name[:100]),
        )
    return name


def install(
    name: str, folder: Path, size: int, write: Callable[[Path], None], report: Report, *, replace: bool, as_folder: bool
) -> Installed:
    """Install a model of `size` bytes that `write` writes to the path that it is given.

    Raises ModelExistsError, ModelLockedError, DiskFullError, ModelDamagedError, ModelUnusableError, OSError, and the
    errors of `write`. Nothing is left then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / (check_name(name) if as_folder else file_name(check_name(name)))
    own = folder / OWN_FOLDER
    own.mkdir(exist_ok=True)
    with lock.hold(own / "lock", name, _give_up(target)) as held:
        if target.exists() and not (replace and target.is_file() and not as_folder):
            raise ModelExistsError("{name} exists already.", name=target.name)
        free = shutil.disk_usage(folder).free
        if free < size + FREE_BYTES:
            raise DiskFullError(
                "{folder} has {free} MB free, the model needs {needed} MB. Free some space.",
                folder=str(folder),
                free=free // 1_000_000,
                needed=(size + FREE_BYTES) // 1_000_000,
            )
        for old in folder.glob(f".{target.name}.*.part"):  # of a process that was killed
            _remove(old)
        temporary = folder / f".{target.name}.{secrets.token_hex(4)}.part"
        try:
            write(temporary)
            verify(temporary, report)
            report(TRYING, 0)
            heard = try_model(temporary, name)
            report(TRYING, 1)
            _sync(temporary)
            held.confirm()
            temporary.rename(target)
        finally:
            for left in (temporary, *(folder / GRAPHS).glob(f"{temporary.name}*")):
                _remove(left)
    sync(folder)
    return Installed(name, target, sum(file.stat().st_size for file in files(target)), tuple(heard))


def _give_up(target: Path) -> Callable[[lock.Owner | None], None]:
    """Return a function for `lock.hold` that raises ModelLockedError once it has waited for LOCK_SECONDS."""
    since = time.monotonic()

    def wait(owner: lock.Owner | None) -> None:
        if time.monotonic() - since >= LOCK_SECONDS:
            raise ModelLockedError(
                "Another process is installing a model in {folder} ({owner}).",
                folder=str(target.parent),
                owner=str(owner or "?"),
            )

    return wait


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Write the model to the disk."""
    for file in files(path):
        sync(file)
    if path.is_dir():
        sync(path)
