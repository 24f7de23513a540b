"""The base class of all named errors, and the registry of their codes."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar

from core.texts import ENGLISH, VIETNAMESE, format_template


class Kind(StrEnum):
    """The way in which a consumer handles an error."""

    PERMANENT = "permanent"  # the job fails immediately
    WORK = "work"  # counted in `failures`, retried, then the job fails
    INFRASTRUCTURE = "infrastructure"  # not counted, retried in place
    MACHINE = "machine"  # a fault of this machine: not counted, the row is handed back for another machine
    REQUEST = "request"  # rejected by the API, never reaches a consumer
    USAGE = "usage"  # a command that cannot be run as it was given


class SttError(Exception):
    """Base of all named errors.

    A class that defines `code` is registered under it. `en` and `vi` are its general messages. An instance may have a
    message of its own: `detail`, a template of `core/texts.py`, with its values.
    """

    code: ClassVar[str] = "INTERNAL"
    kind: ClassVar[Kind] = Kind.PERMANENT
    http_status: ClassVar[int] = 500
    en: ClassVar[str] = "Something went wrong. Please try again later."
    vi: ClassVar[str] = "Đã xảy ra lỗi. Vui lòng thử lại sau."
    max_retries: ClassVar[int | None] = None  # None: MAX_RETRIES
    retry_after: float | None = None  # seconds
    field: str | None = None  # the invalid field of the request

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "code" in cls.__dict__:
            if cls.code in _BY_CODE:
                raise TypeError(f"{cls.__name__} and {_BY_CODE[cls.code].__name__} have the same code {cls.code}")
            _BY_CODE[cls.code] = cls

    def __init__(self, detail: str | None = None, *, retry_after: float | None = None, **values: Any) -> None:
        """detail: a template of `core/texts.py`; values: its values, strings or numbers; retry_after: seconds."""
        self.detail = detail
        self.values = values
        self.retry_after = retry_after or self.retry_after
        super().__init__(self.message())

    def message(self, language: str = ENGLISH) -> str:
        """Return the instance's own message, else the general one of its class."""
        own = None if self.detail is None else format_template(self.detail, language, self.values)
        return own or self.general(language)

    @classmethod
    def general(cls, language: str) -> str:
        return cls.vi if language == VIETNAMESE else cls.en

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the response that only this error has."""
        return {}

    @property
    def members(self) -> dict[str, Any]:
        """Members of the response's body that only this error has."""
        return {}

    @property
    def details(self) -> dict[str, Any] | None:
        """Template and values, which `failure_text` needs besides the code; None without a message of its own."""
        return None if self.detail is None else {"detail": self.detail, "values": self.values}


_BY_CODE: dict[str, type[SttError]] = {SttError.code: SttError}


def error_class(code: str | None) -> type[SttError] | None:
    """Return the class that defines this code, or None."""
    return None if code is None else _BY_CODE.get(code)
