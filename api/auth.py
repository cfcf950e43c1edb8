"""Tells whose request it is. Jobs belong to an owner, and limits are counted by owner."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from api.services import services_of
from shared.errors import NotAuthenticated


async def authenticate(request: Request) -> str:
    """The request's owner: a name for its API key, or its address if the service has no keys.

    Raises `NotAuthenticated`.
    """
    keys = services_of(request).keys
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
            else "The API key is not valid."
        )
    return owner


Owner = Annotated[str, Depends(authenticate)]
