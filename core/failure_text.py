"""The text of a stored failure in the language of its reader."""

from __future__ import annotations

from typing import Any

from core.error_base import SttError, error_class
from core.texts import ENGLISH, format_template


def failure_text(code: str | None, details: dict[str, Any] | None, stored: str | None, language: str) -> str | None:
    """Return the message of a stored failure.

    code: None without a failure. details: template and values as in `SttError.details`. stored: the English text.
    """
    if code is None:
        return stored
    own = None
    if details is not None:
        own = format_template(details.get("detail", ""), language, details.get("values") or {})
    if not own and language == ENGLISH:
        own = stored
    return own or (error_class(code) or SttError).general(language)
