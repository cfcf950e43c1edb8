"""Owns the way of an upload from the socket into memory: size, form, type, declared pixels."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import Request
from python_multipart.exceptions import FormParserError
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from shared.errors import (
    GatewayBusy,
    InvalidImage,
    MissingImage,
    UnsupportedMediaType,
    UploadTooLarge,
)
from shared.image_header import ImageHeader, read_header
from shared.settings import Settings

_FORM_OVERHEAD_BYTES = 64 * 1024
"""What a form may have around its file: boundaries, part headers, small fields."""


@dataclass(frozen=True, slots=True)
class Upload:
    image: bytes
    header: ImageHeader


class UploadBudget:
    """Bounds the bytes of uploads that the gateway holds at once, over all clients."""

    def __init__(self, limit_bytes: int) -> None:
        self._free = limit_bytes

    @asynccontextmanager
    async def reserve(self, size: int) -> AsyncIterator[None]:
        """Hold `size` bytes for the length of a request. Raises `GatewayBusy`."""
        if size > self._free:
            raise GatewayBusy(
                "Too many uploads at this moment; try again shortly.", retry_after_seconds=1
            )
        self._free -= size
        try:
            yield
        finally:
            self._free += size


class _InMemoryParser(MultiPartParser):
    """Starlette's parser without its detour over a temporary file for parts above 1 MB; the
    stream that feeds it is bounded."""

    spool_max_size = 1 << 62


def announced_bytes(request: Request, settings: Settings) -> int:
    """Size of the request's body: as announced, or else the most it may be.

    Raises `UploadTooLarge` if it announces too much.
    """
    limit = settings.max_upload_bytes + _FORM_OVERHEAD_BYTES
    announced = request.headers.get("content-length", "")
    if not announced.isdigit():
        return limit
    if int(announced) > limit:
        raise _too_large(settings)
    return int(announced)


async def receive(request: Request, settings: Settings) -> Upload:
    """Read the image out of a form's `file` field or a raw body, and check its header.

    Raises the `UploadError`s.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == "multipart/form-data":
        image = await _from_form(request, settings)
    elif content_type.startswith("image/") or content_type == "application/octet-stream":
        body = bytearray()
        async for chunk in _bounded(request, settings.max_upload_bytes, settings):
            body += chunk
        image = bytes(body)
    else:
        raise UnsupportedMediaType(
            "Send the image as multipart/form-data with a field `file`, or as the body with its "
            "own Content-Type, e.g. image/jpeg."
        )
    if not image:
        raise MissingImage("The image is empty.")
    if len(image) > settings.max_upload_bytes:
        raise _too_large(settings)
    return Upload(image, read_header(image, max_pixels=settings.max_image_pixels))


async def _from_form(request: Request, settings: Settings) -> bytes:
    stream = _bounded(request, settings.max_upload_bytes + _FORM_OVERHEAD_BYTES, settings)
    parser = _InMemoryParser(
        Headers(raw=request.headers.raw), stream, max_files=1, max_fields=20, max_part_size=4096
    )
    try:
        form = await parser.parse()
    except (MultiPartException, FormParserError, KeyError, ValueError) as error:
        message = getattr(error, "message", None) or "The form cannot be parsed"
        raise InvalidImage(f"{message.rstrip('.')}; send one image as the field `file`.") from error
    try:
        part = form.get("file")
        if not isinstance(part, UploadFile):
            raise MissingImage("The form has no file in the field `file`.")
        return await part.read()
    finally:
        await form.close()


async def _bounded(request: Request, limit: int, settings: Settings) -> AsyncGenerator[bytes, None]:
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > limit:
            raise _too_large(settings)
        yield chunk


def _too_large(settings: Settings) -> UploadTooLarge:
    return UploadTooLarge(f"The image is larger than {settings.max_upload_bytes:,} bytes.")
