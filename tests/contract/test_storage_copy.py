"""Copies of exactly the version that was measured, on both storages."""

# ruff: noqa: F811  fixtures of another file

from __future__ import annotations

import pytest

from core.errors import ObjectNotFound
from tests.contract.storages import KEY, AnyStorage
from tests.contract.test_storage import storage, unstarted  # noqa: F401  fixtures

TARGET = "uploads/job-1/0a/b.wav"


async def test_a_copy_is_independent_of_its_source(storage: AnyStorage) -> None:
    await storage.put_bytes(KEY, b"first")
    stat = await storage.stat(KEY)
    assert stat is not None
    await storage.copy(stat, TARGET)
    await storage.put_bytes(KEY, b"another one")
    assert await storage.get_bytes(TARGET) == b"first"
    await storage.delete(KEY)
    assert await storage.get_bytes(TARGET) == b"first"


@pytest.mark.parametrize("later", [b"other", b"longer than before", None])
async def test_another_version_is_not_copied(storage: AnyStorage, later: bytes | None) -> None:
    await storage.put_bytes(KEY, b"first")
    stat = await storage.stat(KEY)
    assert stat is not None
    if later is None:
        await storage.delete(KEY)
    else:
        await storage.put_bytes(KEY, later)
    with pytest.raises(ObjectNotFound):
        await storage.copy(stat, TARGET)
    assert await storage.stat(TARGET) is None


async def test_invalid_keys_are_rejected(storage: AnyStorage) -> None:
    await storage.put_bytes(KEY, b"first")
    stat = await storage.stat(KEY)
    assert stat is not None
    with pytest.raises(ValueError, match="key"):
        await storage.copy(stat, "../b")
