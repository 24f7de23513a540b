"""Files of transcripts: their names, what was written before, and writing them.

`.stt-transcripts.jsonl` in the folder of the transcripts has a line for each recording: the checksum of its content and
options, and the checksums of the files. So a folder that is given again is skipped by content, and only files that are
still as they were written are replaced.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from core.errors_command import OutputExistsError, OutputNotWritableError
from internal.cli import output
from internal.cli.transcribing.inputs import Input

RECORD = ".stt-transcripts.jsonl"
MAX_RECORD_BYTES = 64 * 1024 * 1024


@dataclass
class OutputFolder:
    """A folder of transcripts. records: the last one of each recording, by its checksum."""

    path: Path
    records: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> OutputFolder:
        """Create the folder if it is missing, check that it can be written, and read its records.

        Raises OutputNotWritableError.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                pass
        except OSError as error:
            raise _not_writable(path, error) from None
        folder = cls(path)
        with contextlib.suppress(OSError), _open_record(path, os.O_RDONLY) as file:
            for line in file.read(MAX_RECORD_BYTES).decode(errors="replace").splitlines():
                folder._remember(line)
        return folder

    def _remember(self, line: str) -> None:
        with contextlib.suppress(ValueError, RecursionError):
            record = json.loads(line)
            if isinstance(record, dict) and isinstance(record.get("outputs"), dict):
                self.records[str(record.get("digest"))] = record

    def find_done(self, digest: str, formats: Sequence[str]) -> list[Path] | None:
        """Return the files of an earlier run in all these formats; None if one is missing."""
        outputs = self.records.get(digest, {}).get("outputs", {})
        paths = [self._written(outputs.get(kind)) for kind in formats]
        return [path for path in paths if path] if all(paths) else None

    def _written(self, written: object) -> Path | None:
        """Return the path of a recorded file if it still exists."""
        name = written.get("name") if isinstance(written, dict) else None
        path = self.path / name if isinstance(name, str) and name and "/" not in name else None
        return path if path and path.is_file() else None

    def choose(self, entry: Input, formats: Sequence[str], *, full_name: bool, overwrite: bool) -> dict[str, Path]:
        """Return a path for each format: `a.txt` for a.mp3, or `a.mp3.txt` if that belongs to something else.

        full_name: another recording of this call has the same stem. Raises OutputExistsError.
        """
        stems = [entry.name] if full_name else [entry.stem, entry.name]
        for stem in stems:
            paths = {kind: self.path / f"{stem}.{kind}" for kind in formats}
            if all(self._is_free(path, entry, overwrite) for path in paths.values()):
                return paths
        name = output.printable(f"{stems[-1]}.{formats[0]}")
        text = "{value} exists and is not what stt wrote for this recording. Use --overwrite or --output_dir."
        raise OutputExistsError(text, value=name)

    def _is_free(self, path: Path, entry: Input, overwrite: bool) -> bool:
        try:
            path.lstat()
        except FileNotFoundError:
            return True
        except OSError as error:  # such as a name that is too long for a file
            raise _not_writable(path, error) from None
        if path.is_dir() or (
            entry.path is not None and entry.path.exists() and path.exists() and path.samefile(entry.path)
        ):
            return False
        return overwrite or any(
            record.get("file") == entry.name and self._is_unchanged(path, written)
            for record in self.records.values()
            for written in record["outputs"].values()
        )

    @staticmethod
    def _is_unchanged(path: Path, written: object) -> bool:
        if not isinstance(written, dict) or written.get("name") != path.name or not path.is_file():
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == written.get("sha256")

    def write(self, entry: Input, digest: str, contents: Mapping[str, bytes], paths: Mapping[str, Path]) -> None:
        """Write the files, each at once, and their record. Raises OutputNotWritableError."""
        try:
            for kind, data in contents.items():
                write_at_once(paths[kind], data)
            outputs = {
                kind: {"name": paths[kind].name, "sha256": hashlib.sha256(data).hexdigest()}
                for kind, data in contents.items()
            }
            earlier = self.records.get(digest, {}).get("outputs", {})
            line = json.dumps({"digest": digest, "file": entry.name, "outputs": {**earlier, **outputs}})
            if digest:
                self._remember(line)
                with _open_record(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT) as file:
                    file.write(f"{line}\n".encode())
        except OSError as error:
            raise _not_writable(self.path, error) from None


def write_at_once(path: Path, data: bytes) -> None:
    """Write a file under a temporary name and rename it, so that a reader never sees a part. Raises OSError."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".stt-", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o666 & ~_umask())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def _open_record(folder: Path, flags: int) -> BinaryIO:
    """Open the record of a folder, which may come from somebody else: a link would lead elsewhere, a pipe would block.

    Raises OSError.
    """
    descriptor = os.open(folder / RECORD, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, f"{RECORD} is not a file")
    return os.fdopen(descriptor, "ab" if flags & os.O_APPEND else "rb")


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _not_writable(path: Path, error: OSError) -> OutputNotWritableError:
    text = "{value} cannot be written: {reason}. Use --output_dir."
    return OutputNotWritableError(text, value=output.printable(str(path)), reason=error.strerror or str(error))
