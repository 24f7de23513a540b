"""The key of backups: a parameter of `stt backup` and `stt restore`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

VARIABLE = "STT_BACKUP_KEY"
LONGEST_KEY = 4096
KeyFile = Annotated[
    Path | None,
    typer.Option("--key-file", metavar="FILE", help=f"File with the key; default: the variable {VARIABLE}."),
]


def passphrase(file: Path | None) -> str:
    """Return the key, without spaces around it. Raises BackupKeyNeededError, also for a file that cannot be read."""
    from core.errors_backup import BackupKeyNeededError

    if file is None:
        return os.environ.get(VARIABLE, "").strip()
    try:
        with file.open("rb") as source:
            return source.read(LONGEST_KEY).decode().strip()
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise BackupKeyNeededError(
            "The key file {path} cannot be read: {reason}.", path=str(file), reason=reason
        ) from None
