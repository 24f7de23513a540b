"""Checks of clients' JSON before it is stored and before it is returned."""

from __future__ import annotations

import json
from typing import Any

SHOWN_DEPTH = 64
"""Levels of stored JSON that may be returned. Older versions stored any depth; every encoder accepts this one."""
_INTEGERS = range(-(2**63), 2**63)


class TooDeep(ValueError):
    """The value is nested deeper than allowed."""


class TooManyKeys(ValueError):
    """The value has more keys than allowed, including those of nested objects."""


def check_json(value: Any, max_depth: int, max_keys: int | None = None) -> None:
    """Check the value without recursion, so that no depth exhausts the stack.

    Raises TooDeep; ValueError for a NUL character. With `max_keys` also TooManyKeys, and OverflowError for an integer
    that does not fit in 64 bits.
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
        raise ValueError("a NUL character, which PostgreSQL does not store")


def showable(value: Any) -> Any:
    """Return the stored value, or None if it cannot be encoded: one old row must not break a whole page."""
    try:
        check_json(value, SHOWN_DEPTH)
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, OverflowError, RecursionError, TypeError):
        return None
    return value
