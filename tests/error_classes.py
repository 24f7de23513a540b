"""Every error class of the service."""

from __future__ import annotations

from collections.abc import Iterator

from core.error_base import SttError


def error_classes(base: type[SttError] = SttError) -> Iterator[type[SttError]]:
    """The class and its subclasses, direct and indirect."""
    yield base
    for kind in base.__subclasses__():
        yield from error_classes(kind)
