"""A stored failure, put into words in the language of its reader."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from core.errors import SttError
from core.texts import ENGLISH, format_template


def error_classes(base: type[SttError] = SttError) -> Iterator[type[SttError]]:
    """The class and all below it."""
    yield base
    for kind in base.__subclasses__():
        yield from error_classes(kind)


def error_class(code: str | None) -> type[SttError] | None:
    """The class that brings this code in."""
    return next((kind for kind in error_classes() if code is not None and kind.__dict__.get("code") == code), None)


def failure_text(code: str | None, details: dict[str, Any] | None, stored: str | None, language: str) -> str | None:
    """A stored failure in the reader's language. stored: its English text; None where nothing failed."""
    if code is None:
        return stored
    own = None
    if details is not None:
        own = format_template(details.get("detail", ""), language, details.get("values") or {})
    if not own and language == ENGLISH:
        own = stored
    return own or (error_class(code) or SttError).general(language)
