"""Translation of the database's unique-key errors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from sqlalchemy.exc import IntegrityError

from core.errors import AlreadyExists


@contextlib.contextmanager
def unique_key() -> Iterator[None]:
    """Raise AlreadyExists if the insert inside violates a unique key. The transaction has to be rolled back."""
    try:
        yield
    except IntegrityError as error:
        raise AlreadyExists from error
