"""Recordings that the arguments of `stt transcribe` name: files, folders, patterns, URLs and standard input."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from urllib.parse import unquote, urlsplit

from core.domain.recordings import is_recording
from core.errors_command import RecordingNotFoundError
from internal.cli import output

STANDARD_INPUT = "-"
STREAM_NAME = "standard-input.wav"
"""Name of a recording that has none; the service looks at the content."""
URLS = ("http://", "https://", "minio://")
MAX_NAME = 100
"""Characters of a name made from a URL."""


@dataclass(frozen=True, slots=True)
class Input:
    """A recording. Exactly one of path and url is set, none for standard input.

    name: file name with its extension; beside: folder of the recording; inside: folder below the given one, which
    --output_dir repeats.
    """

    name: str
    path: Path | None = None
    url: str | None = None
    beside: Path = Path()
    inside: Path = Path()

    @property
    def label(self) -> str:
        """The name that is shown."""
        return output.printable(str(self.path) if self.path else _without_query(self.url) if self.url else self.name)

    @property
    def stem(self) -> str:
        return PurePath(self.name).stem

    @property
    def is_stream(self) -> bool:
        """True for standard input and pipes, which can be read once."""
        return self.url is None and (self.path is None or not self.path.is_file())


def expand(words: Iterable[str], *, recursive: bool) -> list[Input]:
    """Return the recordings in the order of the arguments, each file once. Raises RecordingNotFoundError."""
    inputs: dict[object, Input] = {}
    for word in words:
        for entry in _expand_one(word, recursive):
            inputs.setdefault(_identity(entry), entry)
    return list(inputs.values())


def _expand_one(word: str, recursive: bool) -> Iterator[Input]:
    if word == STANDARD_INPUT:
        yield Input(STREAM_NAME)
        return
    if word.lower().startswith(URLS):
        try:
            yield Input(_name_of_url(word), url=word)
        except ValueError:
            raise RecordingNotFoundError("{value} is not a valid URL.", value=output.printable(word)) from None
        return
    path = Path(word)
    if os.path.lexists(path):
        yield from _of_path(path, recursive)
        return
    # Path.glob takes no absolute pattern
    matches = sorted(glob.glob(word, recursive=True)) if glob.has_magic(word) else []  # noqa: PTH207
    if not matches:
        raise RecordingNotFoundError("{value}: there is no such file or folder.", value=output.printable(word))
    for match in matches:
        yield from _of_path(Path(match), recursive)


def _of_path(path: Path, recursive: bool) -> Iterator[Input]:
    if not path.is_dir():
        if not path.exists():
            raise RecordingNotFoundError("{value}: the link leads nowhere.", value=output.printable(str(path)))
        if path.is_char_device() or path.is_block_device():  # such as /dev/zero, which never ends
            raise RecordingNotFoundError("{value} is a device, not a recording.", value=output.printable(str(path)))
        name = path.name if path.is_file() or is_recording(path.name) else STREAM_NAME
        yield Input(name, path, beside=path.parent)
        return
    found = False
    for folder, folders, names in os.walk(path, onerror=_note_unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if recursive else []
        for name in sorted(names):
            file = Path(folder, name)
            # hidden files are those of file systems and editors, such as ._a.mp3
            if is_recording(name) and not name.startswith(".") and file.is_file():
                found = True
                yield Input(name, file, beside=file.parent, inside=file.parent.relative_to(path))
    if not found:
        text = "{value}: no recordings" if recursive else "{value}: no recordings (without --recursive)"
        output.say(text, value=output.printable(str(path)))


def _note_unreadable(error: OSError) -> None:
    output.note(f"{output.printable(str(error.filename))}: {error.strerror}")


def _identity(entry: Input) -> object:
    if entry.path is None:
        return entry.url or STANDARD_INPUT
    state = entry.path.stat()
    return (state.st_dev, state.st_ino) if stat.S_ISREG(state.st_mode) else entry.path


def _without_query(url: str) -> str:
    """Return a URL without its query, which may be a signature, and without a password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _name_of_url(url: str) -> str:
    name = unquote(urlsplit(url).path.rsplit("/", 1)[-1]).replace("/", "_").replace("\0", "").lstrip(".")
    path = PurePath(name or "recording")
    return path.stem[:MAX_NAME] + path.suffix[:16]
