"""Translation of the database's unique-key errors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from sqlalchemy.exc import IntegrityError

from core.errors import AlreadyExists


@contextlib.contextmanager
def unique_key() -> Iterator[None]:
    """Raise AlreadyExists if an insert in the block violates a unique key. The transaction must then be rolled back."""
    try:
        yield
    except IntegrityError as error:
        raise AlreadyExists from error
