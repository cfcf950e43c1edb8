"""Recognises API keys without keeping them in the clear."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable

from pydantic import SecretStr


class ApiKeys:
    """The accepted keys, as keyed hashes. False if there are none: then everyone may use the
    service."""

    def __init__(self, keys: Iterable[SecretStr]) -> None:
        self._salt = secrets.token_bytes(32)
        self._owners = [
            (self._digest(key.get_secret_value()), owner_of(key.get_secret_value())) for key in keys
        ]

    def __bool__(self) -> bool:
        return bool(self._owners)

    def owner(self, key: str) -> str | None:
        """The owner that a key stands for, or None. Compares with every key, in constant time."""
        digest = self._digest(key)
        found = None
        for known, owner in self._owners:
            if hmac.compare_digest(known, digest):
                found = owner
        return found

    def _digest(self, key: str) -> bytes:
        return hmac.digest(self._salt, key.encode(), "sha256")


def owner_of(key: str) -> str:
    """A name for a key that does not reveal it: the same on every gateway and after a restart."""
    return "key-" + hashlib.sha256(b"yolo-queue owner\0" + key.encode()).hexdigest()[:24]
