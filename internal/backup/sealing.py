"""Encryption of the files of a backup: AES-256-GCM in frames of 1 MiB.

A file is the magic number, a random salt and its frames. The key of a file follows from the master key, the salt and a
label, so a file that was put in the place of another one does not open. The nonce of a frame is its number and a byte
that marks the last one, so frames cannot be moved, left out or cut off. The construction is STREAM (Hoang,
Reyhanitabar, Rogaway, Vizár: "Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance", 2015), as in age
and Tink.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from Crypto.Cipher import AES

MAGIC = b"sttseal1"
SALT_BYTES = 32
FRAME_BYTES = 1024 * 1024
TAG_BYTES = 16
HEADER_BYTES = len(MAGIC) + SALT_BYTES
SCRYPT_COST, SCRYPT_BLOCK, SCRYPT_MEMORY = 2**15, 8, 64 * 1024 * 1024
"""Parameters of scrypt (RFC 7914): 32 MiB and about 0.1 s. They are fixed, so that no header can ask for more."""


class SealError(Exception):
    """The data is not what was sealed with this key and label."""


@dataclass(frozen=True, slots=True, repr=False)
class Keys:
    """The keys that follow from a passphrase and the salt of the folder: one seals files, one makes names."""

    sealing: bytes
    naming: bytes

    @classmethod
    def derive(cls, passphrase: str, salt: bytes) -> Keys:
        """Derive the keys; takes about 0.1 s."""
        material = hashlib.scrypt(
            passphrase.encode(), salt=salt, n=SCRYPT_COST, r=SCRYPT_BLOCK, p=1, maxmem=SCRYPT_MEMORY, dklen=64
        )
        return cls(material[:32], material[32:])

    def name(self, purpose: str, data: bytes) -> str:
        """Return a name of 64 hexadecimal digits, which shows nothing of `data` to those without the key."""
        return hmac.new(self.naming, purpose.encode() + b"\0" + data, hashlib.sha256).hexdigest()

    def of_file(self, label: str, salt: bytes) -> bytes:
        """Return the key of a file. The salt has a fixed length, so no two pairs have the same key."""
        return hmac.new(self.sealing, salt + label.encode(), hashlib.sha256).digest()


def sealed_size(size: int) -> int:
    """Return the length of a sealed file with `size` bytes of content."""
    frames = max(1, -(-size // FRAME_BYTES))
    return HEADER_BYTES + size + frames * TAG_BYTES


class Sealer:
    """A writer that seals what is written to it. `finish` writes the last frame; without it the file does not open."""

    def __init__(self, file: BinaryIO, keys: Keys, label: str) -> None:
        salt = os.urandom(SALT_BYTES)
        self._file, self._key = file, keys.of_file(label, salt)
        self._buffer = bytearray()
        self._number = 0
        file.write(MAGIC + salt)

    def write(self, data: bytes) -> None:
        """Seal the next bytes. Raises OSError."""
        self._buffer += data
        while len(self._buffer) > FRAME_BYTES:  # the last frame is never empty, unless the whole file is
            self._frame(bytes(self._buffer[:FRAME_BYTES]), last=False)
            del self._buffer[:FRAME_BYTES]

    def finish(self) -> None:
        """Seal the rest. Raises OSError."""
        self._frame(bytes(self._buffer), last=True)
        self._buffer.clear()

    def _frame(self, data: bytes, *, last: bool) -> None:
        sealed, tag = _cipher(self._key, self._number, last).encrypt_and_digest(data)
        self._file.write(sealed + tag)
        self._number += 1


def unsealed(file: BinaryIO, keys: Keys, label: str) -> Iterator[bytes]:
    """Yield the content of a sealed file in blocks of up to 1 MiB. Raises SealError, OSError.

    Each block is verified before it is yielded; that the file is complete is known after the last one.
    """
    header = file.read(HEADER_BYTES)
    if len(header) != HEADER_BYTES or not header.startswith(MAGIC):
        raise SealError("no header")
    key = keys.of_file(label, header[len(MAGIC) :])
    frame, number = file.read(FRAME_BYTES + TAG_BYTES), 0
    while True:
        following = file.read(FRAME_BYTES + TAG_BYTES) if len(frame) == FRAME_BYTES + TAG_BYTES else b""
        yield _opened(key, number, frame, last=not following)
        if not following:
            return
        frame, number = following, number + 1


def _opened(key: bytes, number: int, frame: bytes, *, last: bool) -> bytes:
    if len(frame) < TAG_BYTES:
        raise SealError("cut off")
    try:
        opened: bytes = _cipher(key, number, last).decrypt_and_verify(frame[:-TAG_BYTES], frame[-TAG_BYTES:])
    except ValueError:
        raise SealError("not authentic") from None
    return opened


def _cipher(key: bytes, number: int, last: bool) -> Any:
    return AES.new(key, AES.MODE_GCM, nonce=number.to_bytes(11, "big") + bytes([last]), mac_len=TAG_BYTES)
