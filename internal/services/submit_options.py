"""Options of a submit, and their validation, common to every way to submit."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from core.domain.job import AUTO, Priority
from core.domain.job_options import JobOptions
from core.domain.json_values import TooDeep, TooManyKeys, check_json
from core.domain.models import DEMO, choose
from core.errors import InvalidFieldError, UnknownModelError, UnsupportedLanguageError
from core.outbound import Outbound, Refused
from internal.services.models import Models
from worker.model_store import registry

log = structlog.get_logger(__name__)
NO_WORKER = "No worker is running; the job waits until one starts."
INSTALLING = "The model is being installed; the job waits for it."
MAX_URL, MAX_PROMPT, MAX_METADATA = 4096, 2000, 16_384
MAX_DEPTH, MAX_KEYS = 16, 256
"""Maximum levels, itself included, and keys of the metadata object: far below the limits of all parsers involved."""
MODEL = re.compile(r"[A-Za-z0-9._-]{1,100}")
_TRUE, _FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off", "")


@dataclass(frozen=True, slots=True)
class SubmitOptions:
    """Validated options of a submit.

    asked_model: the name in the request; model: the full name it resolves to, or the same name if no worker is live.
    """

    language: str
    model: str | None
    priority: Priority
    warning: str | None = None
    options: JobOptions = field(default_factory=JobOptions)
    callback_url: str | None = None
    metadata: dict[str, Any] | None = None
    asked_model: str = ""


@dataclass(frozen=True, slots=True)
class SubmitOptionsValidator:
    """Validator of the options of a submit. webhooks: checks callback URLs."""

    models: Models
    webhooks: Outbound
    languages: tuple[str, ...]
    default_language: str
    default_model: str | None

    async def validate(self, fields: Mapping[str, Any]) -> SubmitOptions:
        """Return the validated options. Values are strings or JSON types; an empty one counts as missing.

        Raises UnsupportedLanguageError, InvalidFieldError, UnknownModelError; DatabaseUnavailable.
        """
        language = str(fields.get("language") or self.default_language)
        allowed = (*self.languages, AUTO)
        if language not in allowed:
            raise UnsupportedLanguageError(
                "`language` {value} is not supported. Use {allowed}.",
                value=repr(language[:20]),
                allowed=", ".join(allowed),
            )
        priority = str(fields.get("priority") or Priority.NORMAL.value)
        if priority not in list(Priority):
            raise InvalidFieldError(
                "priority",
                "`priority` {value} is unknown. Use {allowed}.",
                value=repr(priority[:20]),
                allowed=", ".join(Priority),
            )
        asked_model = str(fields.get("model") or "")
        model, warning = await self._resolve_model(asked_model, language)
        return SubmitOptions(
            language=language,
            model=model,
            priority=Priority(priority),
            warning=warning,
            options=_job_options(fields),
            callback_url=_callback_url(self.webhooks, str(fields.get("callback_url") or "")),
            metadata=_metadata(fields.get("metadata")),
            asked_model=asked_model,
        )

    async def _resolve_model(self, asked_model: str, language: str) -> tuple[str | None, str | None]:
        """Return the full name of the model, and a warning if no worker is live. Raises UnknownModelError."""
        live = await self.models.live()
        name = asked_model or self.default_model
        if not live.workers:
            if name and not MODEL.fullmatch(name):
                raise UnknownModelError("{value} is not a model name.", value=repr(name[:50]))
            return name or None, NO_WORKER
        model = choose(asked_model, language, live.names, self.default_model, live.pending)
        if model is None:
            raise _unknown_model(str(name), live.names)
        if model not in live.names:
            return model, INSTALLING
        if not name and model.startswith(DEMO):
            log.warning("the demo model transcribes only its own sentences", action="demo_model", model=model)
        return model, None


def _unknown_model(name: str, live: list[str]) -> UnknownModelError:
    """Return the error for a model that no worker has, with the way to install it if it is published."""
    allowed = ", ".join(live) or "none"
    entry = registry.find(name)
    if entry is None:
        return UnknownModelError(
            "No worker has the model {value}. Available models: {allowed}.", value=repr(name[:50]), allowed=allowed
        )
    return UnknownModelError(
        "No worker has the model {value}. Install it with `stt models pull {name}`, or use one of: {allowed}.",
        value=repr(name[:50]),
        name=entry.name,
        allowed=allowed,
    )


def _job_options(fields: Mapping[str, Any]) -> JobOptions:
    prompt = str(fields.get("prompt") or "")
    if len(prompt) > MAX_PROMPT or "\0" in prompt or not _is_encodable(prompt):
        raise InvalidFieldError(
            "prompt", "`prompt` must have at most {limit} characters and no NUL character.", limit=MAX_PROMPT
        )
    words, temperature = _boolean("words", fields.get("words")), _temperature(fields.get("temperature"))
    return JobOptions(prompt=prompt, words=words, temperature=temperature)


def _is_encodable(value: str) -> bool:
    """Return False if there is a lone surrogate, which JSON can contain and databases refuse."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _boolean(name: str, value: Any) -> bool:
    text = str(value if value is not None else "").lower()
    if text not in (*_TRUE, *_FALSE):
        raise InvalidFieldError(name, "`{name}` must be true or false.", name=name)
    return text in _TRUE


def _temperature(value: Any) -> float:
    try:
        number = float(value or 0)
    except (TypeError, ValueError):
        number = -1.0
    if not 0 <= number <= 1:
        raise InvalidFieldError("temperature", "`temperature` must be a number from 0 to 1.")
    return number


def _callback_url(webhooks: Outbound, url: str) -> str | None:
    if not url:
        return None
    if len(url) > MAX_URL:
        raise InvalidFieldError("callback_url", "`callback_url` is longer than {limit} characters.", limit=MAX_URL)
    try:
        webhooks.check(url)
    except Refused as error:
        raise InvalidFieldError("callback_url", "`callback_url`: {reason}.", reason=str(error)) from None
    return url


def _metadata(value: Any) -> dict[str, Any] | None:
    """Return the metadata, given as an object or as JSON text. Of a repeated key the last value counts."""
    if value in (None, ""):
        return None
    try:
        data = json.loads(value) if isinstance(value, str) else value
        check_json(data, MAX_DEPTH, MAX_KEYS)
        text = json.dumps(data, allow_nan=False, ensure_ascii=False)
        text.encode()
    except (TooDeep, RecursionError):
        raise InvalidFieldError(
            "metadata", "`metadata` is nested deeper than {limit} levels.", limit=MAX_DEPTH
        ) from None
    except TooManyKeys:
        raise InvalidFieldError("metadata", "`metadata` has more than {limit} keys.", limit=MAX_KEYS) from None
    except OverflowError:
        raise InvalidFieldError("metadata", "`metadata` contains a number that does not fit in 64 bits.") from None
    except (ValueError, TypeError):
        raise InvalidFieldError("metadata", "`metadata` is not valid JSON.") from None
    if not isinstance(data, dict) or len(text) > MAX_METADATA:
        raise InvalidFieldError(
            "metadata", "`metadata` must be a JSON object of at most {limit} characters.", limit=MAX_METADATA
        )
    return data
