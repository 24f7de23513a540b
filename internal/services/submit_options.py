"""What a sender may ask for besides his recording, checked in one place for every way in."""

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
from internal.bootstrap import Application
from repositories import workers

log = structlog.get_logger(__name__)
NO_WORKER = "No worker is running; the job waits until one starts."
MAX_URL, MAX_PROMPT, MAX_METADATA = 4096, 2000, 16_384
MAX_DEPTH, MAX_KEYS = 16, 256
"""Levels and keys of the metadata object, itself included: far below what any parser on its way gives up at."""
FIELDS = ("language", "model", "priority", "callback_url", "metadata", "prompt", "words", "temperature")
"""Names that a submit may carry; others are ignored."""
MODEL = re.compile(r"[A-Za-z0-9._-]{1,100}")
_TRUE, _FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off", "")


@dataclass(frozen=True, slots=True)
class SubmitOptions:
    """What the sender asked for, checked.

    asked_model: as it was sent; model: the full name it means, or what was sent where no worker lives to resolve it.
    """

    language: str
    model: str | None
    priority: Priority
    warning: str | None = None
    options: JobOptions = field(default_factory=JobOptions)
    callback_url: str | None = None
    metadata: dict[str, Any] | None = None
    asked_model: str = ""


async def check(parts: Application, fields: Mapping[str, Any]) -> SubmitOptions:
    """Raises UnsupportedLanguageError, InvalidFieldError, UnknownModelError; DatabaseUnavailable.

    Values are texts, or what JSON has for them; an empty one counts as left out.
    """
    language = _language(parts, fields)
    wanted = str(fields.get("priority") or Priority.NORMAL.value)
    if wanted not in list(Priority):
        raise InvalidFieldError(
            "priority",
            "`priority` {value} is unknown. Use {allowed}.",
            value=repr(wanted[:20]),
            allowed=", ".join(Priority),
        )
    named = str(fields.get("model") or "")
    model, warning = await _model(parts, named, language)
    return SubmitOptions(
        language,
        model,
        Priority(wanted),
        warning,
        _options(fields),
        _callback(parts.webhooks, str(fields.get("callback_url") or "")),
        _metadata(fields.get("metadata")),
        named,
    )


def _language(parts: Application, fields: Mapping[str, Any]) -> str:
    settings = parts.settings
    language = str(fields.get("language") or settings.default_language)
    allowed = (*settings.languages, AUTO)
    if language not in allowed:
        raise UnsupportedLanguageError(
            "`language` {value} is not supported. Use {allowed}.",
            value=repr(language[:20]),
            allowed=", ".join(allowed),
        )
    return language


async def _model(parts: Application, named: str, language: str) -> tuple[str | None, str | None]:
    """The full name of a live worker's model, and a warning."""
    async with parts.database.read() as session:
        alive = await workers.list_live(session)
    have = workers.available_models(alive)
    asked = named or parts.settings.default_model
    if not alive:
        if asked and not MODEL.fullmatch(asked):
            raise UnknownModelError("{value} is not a model name.", value=repr(asked[:50]))
        return asked or None, NO_WORKER
    model = choose(named, language, have, parts.settings.default_model)
    if model is None:
        raise UnknownModelError(
            "No worker has the model {value}. Available models: {allowed}.",
            value=repr(str(asked)[:50]),
            allowed=", ".join(have) or "none",
        )
    if not asked and model.startswith(DEMO):
        log.warning("the demo model transcribes nothing but its own sentences", action="demo_model", model=model)
    return model, None


def _options(fields: Mapping[str, Any]) -> JobOptions:
    prompt = str(fields.get("prompt") or "")
    if len(prompt) > MAX_PROMPT or "\0" in prompt or not _is_text(prompt):
        raise InvalidFieldError(
            "prompt", "`prompt` must have at most {limit} characters and no NUL character.", limit=MAX_PROMPT
        )
    words, temperature = _truth("words", fields.get("words")), _temperature(fields.get("temperature"))
    return JobOptions(prompt=prompt, words=words, temperature=temperature)


def _is_text(value: str) -> bool:
    """Half of a pair of surrogates, which JSON can spell, is no text: databases refuse it."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _truth(name: str, value: Any) -> bool:
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


def _callback(outbound: Outbound, url: str) -> str | None:
    if not url:
        return None
    if len(url) > MAX_URL:
        raise InvalidFieldError("callback_url", "`callback_url` is longer than {limit} characters.", limit=MAX_URL)
    try:
        outbound.check(url)
    except Refused as error:
        raise InvalidFieldError("callback_url", "`callback_url`: {reason}.", reason=str(error)) from None
    return url


def _metadata(value: Any) -> dict[str, Any] | None:
    """A JSON object, or its text; it comes back as it was sent. Of a key that is there twice the last value counts."""
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
