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
        self.limit_bytes = limit_bytes
        self._free = limit_bytes

    @property
    def held_bytes(self) -> int:
        return self.limit_bytes - self._free

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


def announced_bytes(request: Request, settings: Settings, *, files: int = 1) -> int:
    """Size of the request's body: as announced, or else the most it may be.

    Raises `UploadTooLarge` if it announces too much.
    """
    limit = _body_limit(settings, files)
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
    content_type = _content_type(request)
    if content_type == "multipart/form-data":
        (image,) = await _from_form(request, settings, "file", files=1)
    elif content_type.startswith("image/") or content_type == "application/octet-stream":
        chunks = [c async for c in _bounded(request, settings.max_upload_bytes, settings)]
        image = b"".join(chunks)
    else:
        raise UnsupportedMediaType(
            "Send the image as multipart/form-data with a field `file`, or as the body with its "
            "own Content-Type, e.g. image/jpeg."
        )
    return _checked(image, settings)


async def receive_batch(request: Request, settings: Settings) -> list[Upload]:
    """Read the images of a form's `files` fields. Raises the first one's `UploadError`."""
    if _content_type(request) != "multipart/form-data":
        raise UnsupportedMediaType("Send the images as multipart/form-data, each a field `files`.")
    images = await _from_form(request, settings, "files", files=settings.max_batch_files)
    return [_checked(image, settings) for image in images]


def _checked(image: bytes, settings: Settings) -> Upload:
    if not image:
        raise MissingImage("The image is empty.")
    if len(image) > settings.max_upload_bytes:
        raise _too_large(settings)
    return Upload(image, read_header(image, max_pixels=settings.max_image_pixels))


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _from_form(
    request: Request, settings: Settings, field: str, *, files: int
) -> list[bytes]:
    stream = _bounded(request, _body_limit(settings, files), settings)
    parser = _InMemoryParser(
        Headers(raw=request.headers.raw), stream, max_files=files, max_fields=20, max_part_size=4096
    )
    try:
        form = await parser.parse()
    except (MultiPartException, FormParserError, KeyError, ValueError) as error:
        message = getattr(error, "message", None) or "The form cannot be parsed"
        raise InvalidImage(f"{message.rstrip('.')}; send images as the field `{field}`.") from error
    try:
        parts = [part for part in form.getlist(field) if isinstance(part, UploadFile)]
        if not parts:
            raise MissingImage(f"The form has no file in the field `{field}`.")
        return [await part.read() for part in parts]
    finally:
        await form.close()


async def _bounded(request: Request, limit: int, settings: Settings) -> AsyncGenerator[bytes, None]:
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > limit:
            raise _too_large(settings)
        yield chunk


def _body_limit(settings: Settings, files: int) -> int:
    return min(
        files * settings.max_upload_bytes + _FORM_OVERHEAD_BYTES, settings.max_gateway_upload_bytes
    )


def _too_large(settings: Settings) -> UploadTooLarge:
    return UploadTooLarge(f"An image may have {settings.max_upload_bytes:,} bytes at most.")
