"""Work on model files: verifying, importing from other formats, and quantising.

Each function takes paths and a callback for its progress, returns a result or raises an SttError, and offers a model
under its name only once it is whole and has been tried.
"""

from __future__ import annotations

from collections.abc import Callable

Report = Callable[[str, float], None]
"""Callback with a phase (WRITING, CHECKING, TRYING) and the share of it that is done, 0..1."""
WRITING, CHECKING, TRYING = "writing", "checking", "trying"


def silent(_phase: str, _share: float) -> None:
    """Report nothing."""
