"""JSON that comes from clients: bounded where it comes in, harmless where it goes out."""

from __future__ import annotations

import json
from typing import Any

SHOWN_DEPTH = 64
"""Levels that are shown of what was stored before there was a bound; every encoder on the way takes them."""
_INTEGERS = range(-(2**63), 2**63)


class TooDeep(ValueError):
    """Nested deeper than allowed."""


class TooManyKeys(ValueError):
    """More keys, those of nested objects included, than allowed."""


def check_json(value: Any, max_depth: int, max_keys: int | None = None) -> None:
    """Raises TooDeep; ValueError for a zero character.

    With `max_keys` also TooManyKeys, and OverflowError for an integer beyond 64 bits.

    Walks without recursion, so that no depth can exhaust the stack.
    """
    keys = 0
    todo = [(value, 1)]
    while todo:
        one, depth = todo.pop()
        if isinstance(one, dict | list):
            if depth > max_depth:
                raise TooDeep
            inner = list(one.values()) if isinstance(one, dict) else one
            todo += ((item, depth + 1) for item in inner)
        if isinstance(one, dict):
            keys += len(one)
            if max_keys is not None and keys > max_keys:
                raise TooManyKeys
            for key in one:
                _check_text(key)
        elif isinstance(one, str):
            _check_text(one)
        elif max_keys is not None and isinstance(one, int) and one not in _INTEGERS:
            raise OverflowError


def _check_text(text: str) -> None:
    if "\0" in text:
        raise ValueError("a zero character, which PostgreSQL does not store")


def showable(value: Any) -> Any:
    """The stored value, or None where it cannot be sent: a row of an older release must not break a whole page."""
    try:
        check_json(value, SHOWN_DEPTH)
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, OverflowError, RecursionError, TypeError):
        return None
    return value
