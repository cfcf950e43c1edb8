"""Owns who is asking: API keys, and the name that a client's jobs and limits go by."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable

from fastapi import Request
from pydantic import SecretStr

from shared.errors import NotAuthenticated


class KeyRing:
    """The accepted keys, kept as keyed hashes only."""

    def __init__(self, keys: Iterable[SecretStr]) -> None:
        self._salt = secrets.token_bytes(32)
        self._hashes = [
            (self._digest(key.get_secret_value()), owner_of(key.get_secret_value())) for key in keys
        ]

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def owner(self, key: str) -> str | None:
        """The owner a key stands for, or None. Compares with every key, in constant time."""
        digest = self._digest(key)
        found = None
        for known, owner in self._hashes:
            if hmac.compare_digest(known, digest):
                found = owner
        return found

    def _digest(self, key: str) -> bytes:
        return hmac.digest(self._salt, key.encode(), "sha256")


def owner_of(key: str) -> str:
    """A name for a key that does not reveal it: the same on every gateway and after a restart."""
    return "key-" + hashlib.sha256(b"yolo-queue owner\0" + key.encode()).hexdigest()[:24]


async def authenticate(request: Request) -> str:
    """The client's name: its key's owner, or its address where no keys are set.

    Raises `NotAuthenticated`.
    """
    keys: KeyRing = request.app.state.keys
    if not keys:
        return f"addr-{request.client.host if request.client else 'unknown'}"
    given = request.headers.get("x-api-key", "")
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        given = token.strip()
    owner = keys.owner(given) if given else None
    if owner is None:
        raise NotAuthenticated(
            "Send your key as `Authorization: Bearer KEY` or `X-API-Key: KEY`."
            if not given
            else "This key is not known here."
        )
    return owner
