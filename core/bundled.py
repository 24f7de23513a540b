"""Files that are part of the program: the demo model, a recording with its text, and the web page."""

from __future__ import annotations

from pathlib import Path

_CORE = Path(__file__).resolve().parent
_ASSETS = _CORE.parent / "assets"
_INSTALLED = _CORE / "demo_model"
DEMO_MODELS = (_ASSETS / "model", _INSTALLED)
"""Folders of the demo model, in the repository and in an installed package."""


def sample() -> tuple[Path, str]:
    """Return a recording of English speech, 24 s, and the words in it. Raises FileNotFoundError."""
    for folder in (_ASSETS / "samples", _INSTALLED):
        recording = folder / "hello.en.mp3"
        if recording.exists():
            return recording, recording.with_suffix(".txt").read_text()
    raise FileNotFoundError("hello.en.mp3")


def page_folder() -> Path:
    """Return the folder of the web page, in the repository or in an installed package."""
    return next((folder for folder in (_ASSETS / "page", _INSTALLED / "page") if folder.is_dir()), _ASSETS / "page")
