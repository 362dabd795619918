"""Sealing: encrypts personal data before it reaches the database. AES-256-GCM, from `cryptography`.

A sealed value names its key, so any number of keys can be in use: the first key seals, and all keys open. The
value is bound to its place (table, column and id): moved to another row, it does not open.

    1 byte    version, 1
    1 byte    length of the key's id
    n bytes   the key's id, ASCII
    12 bytes  nonce, random
    the rest  ciphertext and tag
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import secrets
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from notifier.domain.errors import CannotOpen, MissingPackage, add_extra

_VERSION = 1
_NONCE_BYTES = 12
KEY_BYTES = 32
#: The id of a key, for example a date such as 2026-11.
_KEY_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")


class Sealer:
    """Seals with the first of its keys and opens with any of them; without keys it is off. About 3 µs for each
    value."""

    def __init__(self, keys: Mapping[str, bytes] | None = None) -> None:
        self._ciphers = _ciphers(keys) if keys else {}

    def __repr__(self) -> str:
        return f"Sealer({', '.join(self._ciphers) or 'off'})"

    @property
    def is_on(self) -> bool:
        return bool(self._ciphers)

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The keys' ids. The first key seals."""
        return tuple(self._ciphers)

    @cached_property
    def header(self) -> bytes:
        """The beginning of every value that is sealed now; empty if there is no key."""
        if not self._ciphers:
            return b""
        key_id = self.key_ids[0].encode()
        return bytes((_VERSION, len(key_id))) + key_id

    def seal(self, place: str, content: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        sealed: bytes = self._ciphers[self.key_ids[0]].encrypt(nonce, content, place.encode())
        return b"".join((self.header, nonce, sealed))

    def open(self, place: str, sealed: bytes) -> bytes:
        """Decrypt a value. Raises `CannotOpen` if the key is missing, or the value was sealed for another
        place."""
        key_id, start = _key_of(sealed)
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise CannotOpen(
                f"sealed under the key {key_id}, which is missing: add it to NOTIFIER_ENCRYPTION_KEYS",
                key_id=key_id,
            )
        from cryptography.exceptions import InvalidTag

        nonce, rest = sealed[start : start + _NONCE_BYTES], sealed[start + _NONCE_BYTES :]
        try:
            opened: bytes = cipher.decrypt(nonce, rest, place.encode())
        except (InvalidTag, ValueError):
            raise CannotOpen(
                f"what is sealed under the key {key_id} does not open with it: it was changed, or the key of that "
                "id in NOTIFIER_ENCRYPTION_KEYS is another one",
                key_id=key_id,
            ) from None
        return opened


def _ciphers(keys: Mapping[str, bytes]) -> dict[str, Any]:
    # Imported here because the importing program may have no key, and the library takes a while to load.
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise MissingPackage(f"NOTIFIER_ENCRYPTION_KEYS needs one more package: {add_extra('worker')}") from None
    return {name: AESGCM(key) for name, key in keys.items()}


def _key_of(sealed: bytes) -> tuple[str, int]:
    """The key's id, and the position of the nonce."""
    start = 2 + sealed[1] if len(sealed) > 2 and sealed[0] == _VERSION else 0
    if not 2 < start <= len(sealed) - _NONCE_BYTES:
        raise CannotOpen("a sealed value is damaged, or of a later version of notifier", key_id="")
    return sealed[2:start].decode("ascii", "replace"), start


def read_keys(text: str) -> dict[str, bytes]:
    """Read the keys of NOTIFIER_ENCRYPTION_KEYS: `<id>:<32 bytes in base64>`, separated by commas, spaces or
    newlines.

    Raises:
        ValueError: says which key is wrong, and why. No text holds a key.
    """
    keys: dict[str, bytes] = {}
    for number, part in enumerate(re.split(r"[\s,]+", text.strip()), 1):
        key_id, colon, encoded = part.partition(":")
        if not colon or not _KEY_ID.fullmatch(key_id):
            raise ValueError(f"key {number} is not written as <id>:<base64>: make one with notifier db new-key")
        try:
            key = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            key = b""
        if len(key) != KEY_BYTES:
            raise ValueError(f"the key {key_id} is not {KEY_BYTES} bytes in base64: openssl rand -base64 32")
        if key_id in keys:
            raise ValueError(f"two keys have the id {key_id}: a new key needs a new id")
        keys[key_id] = key
    return keys


def new_key(key_id: str) -> str:
    """Make a key in the form of NOTIFIER_ENCRYPTION_KEYS. Raises `ValueError` if the id is not valid."""
    if not _KEY_ID.fullmatch(key_id):
        raise ValueError("an id has letters, digits, '.', '_' or '-', at most 32 of them")
    return f"{key_id}:{base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()}"
