"""Checks of JSON from clients, on its way in and on its way out."""

from __future__ import annotations

import json
from typing import Any

SHOWN_DEPTH = 64
"""Levels of stored JSON that may be sent: older versions stored any depth, and every encoder takes this one."""
_INTEGERS = range(-(2**63), 2**63)


class TooDeep(ValueError):
    """Nested deeper than allowed."""


class TooManyKeys(ValueError):
    """More keys, those of nested objects included, than allowed."""


def check_json(value: Any, max_depth: int, max_keys: int | None = None) -> None:
    """Check the value without recursion, so that no depth exhausts the stack.

    Raises TooDeep; ValueError for a zero character. With `max_keys` also TooManyKeys, and OverflowError for an integer
    beyond 64 bits.
    """
    keys = 0
    pending = [(value, 1)]
    while pending:
        node, depth = pending.pop()
        if isinstance(node, dict | list):
            if depth > max_depth:
                raise TooDeep
            children = list(node.values()) if isinstance(node, dict) else node
            pending += ((child, depth + 1) for child in children)
        if isinstance(node, dict):
            keys += len(node)
            if max_keys is not None and keys > max_keys:
                raise TooManyKeys
            for key in node:
                _check_text(key)
        elif isinstance(node, str):
            _check_text(node)
        elif max_keys is not None and isinstance(node, int) and node not in _INTEGERS:
            raise OverflowError


def _check_text(text: str) -> None:
    if "\0" in text:
        raise ValueError("a zero character, which PostgreSQL does not store")


def showable(value: Any) -> Any:
    """Return the stored value, or None if it cannot be sent: one old row must not break a whole page."""
    try:
        check_json(value, SHOWN_DEPTH)
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, OverflowError, RecursionError, TypeError):
        return None
    return value
