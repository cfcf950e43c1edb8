"""Reads an upload into memory and checks its size, speed, form and image header."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from fastapi import Request
from python_multipart.exceptions import FormParserError
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from api.upload_budget import Allocation
from shared.errors import (
    InvalidImage,
    MissingImage,
    UnsupportedMediaType,
    UploadTooLarge,
    UploadTooSlow,
)
from shared.image_header import FORMATS, ImageHeader, find_end, read_header
from shared.settings import Settings

_FORM_OVERHEAD_BYTES = 64 * 1024
"""For what a form has besides its files: boundaries, part headers, small fields."""
GRACE_SECONDS = 10.0
"""How long a body may take before its speed counts."""


@dataclass(frozen=True, slots=True)
class Upload:
    image: bytes
    header: ImageHeader


class _InMemoryParser(MultiPartParser):
    """Starlette's parser without temporary files for parts above 1 MB. What it reads is limited by
    `_body`."""

    spool_max_size = 1 << 62

    def on_headers_finished(self) -> None:
        super().on_headers_finished()
        field, part = self._current_part.field_name, self._current_part.file
        declared = (part and part.content_type) or ""
        if field in ("file", "files") and not _may_be_an_image(declared):
            raise UnsupportedMediaType(
                f"The part `{field}` has the type {declared[:80]}, which is not an image type; "
                f"send {FORMATS}."
            )


def _may_be_an_image(declared: str) -> bool:
    """Whether to look at the file itself, since many senders declare no type or a vague one."""
    kind = declared.partition(";")[0].strip().lower()
    return kind in ("", "application/octet-stream") or kind.startswith("image/")


def announced_bytes(request: Request, settings: Settings, *, files: int = 1) -> int:
    """The body's size by its Content-Length, 0 without one. Raises `UploadTooLarge`."""
    announced = request.headers.get("content-length", "")
    size = int(announced) if announced.isascii() and announced.isdigit() else 0
    if size > _body_limit(settings, files):
        raise _too_large(settings, files)
    return size


async def receive(request: Request, settings: Settings, allocation: Allocation) -> Upload:
    """Read the image from the form field `file` or a raw body, and check its header.

    Raises an `UploadError` or `GatewayBusy`.
    """
    content_type = _content_type(request)
    if content_type == "multipart/form-data":
        (image,) = await _from_form(request, settings, allocation, "file", files=1)
    elif _may_be_an_image(content_type):
        image = b"".join([chunk async for chunk in _body(request, settings, allocation)])
    else:
        raise UnsupportedMediaType(
            "Send the image as multipart/form-data in the field `file`, or as the raw body with "
            "its own Content-Type, e.g. image/jpeg."
        )
    return await _checked(image, settings)


async def receive_batch(
    request: Request, settings: Settings, allocation: Allocation
) -> list[Upload]:
    """Read the images from the form fields `files`, and check their headers.

    Raises the `UploadError` of the first bad image, or `GatewayBusy`.
    """
    if _content_type(request) != "multipart/form-data":
        raise UnsupportedMediaType(
            "Send the images as multipart/form-data, each in a field `files`."
        )
    limit = settings.max_batch_files
    images = await _from_form(request, settings, allocation, "files", files=limit)
    uploads = []
    for image in images:
        uploads.append(await _checked(image, settings))
        await asyncio.sleep(0)  # as in `_checked`
    return uploads


async def _checked(image: bytes, settings: Settings) -> Upload:
    if not image:
        raise MissingImage("The image is empty.")
    if len(image) > settings.max_upload_bytes:
        raise _too_large(settings)
    header = read_header(image, max_pixels=settings.max_image_pixels)
    for _ in find_end(image, header):
        await asyncio.sleep(0)  # let other requests run
    return Upload(image, header)


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _from_form(
    request: Request, settings: Settings, allocation: Allocation, field: str, *, files: int
) -> list[bytes]:
    parser = _InMemoryParser(
        Headers(raw=request.headers.raw),
        _body(request, settings, allocation, files=files),
        max_files=files,
        max_fields=20,
        max_part_size=4096,
    )
    try:
        form = await parser.parse()
    except (MultiPartException, FormParserError, KeyError, ValueError) as error:
        message = getattr(error, "message", None) or "The form is not valid"
        raise InvalidImage(f"{message.rstrip('.')}; send images in the field `{field}`.") from error
    try:
        parts = [part for part in form.getlist(field) if isinstance(part, UploadFile)]
        if not parts:
            raise MissingImage(f"The form has no file in the field `{field}`.")
        return [await part.read() for part in parts]
    finally:
        await form.close()


async def _body(
    request: Request, settings: Settings, allocation: Allocation, *, files: int = 1
) -> AsyncGenerator[bytes, None]:
    """The body's chunks, as long as it is not too large and arrives fast enough."""
    limit, rate = _body_limit(settings, files), settings.min_upload_bytes_per_second
    begin = asyncio.get_running_loop().time()
    chunks = request.stream()
    while True:
        try:
            async with asyncio.timeout_at(begin + GRACE_SECONDS + allocation.size_bytes / rate):
                chunk = await anext(chunks, None)
        except TimeoutError:
            raise UploadTooSlow(
                f"The body arrived at less than {rate:,} bytes per second; try again."
            ) from None
        if chunk is None:
            return
        if allocation.size_bytes + len(chunk) > limit:
            raise _too_large(settings, files)
        allocation.grow(len(chunk))
        yield chunk


def _body_limit(settings: Settings, files: int) -> int:
    most = files * settings.max_upload_bytes + _FORM_OVERHEAD_BYTES
    return min(most, settings.max_client_upload_bytes, settings.max_gateway_upload_bytes)


def _too_large(settings: Settings, files: int = 1) -> UploadTooLarge:
    text = f"An image may have at most {settings.max_upload_bytes:,} bytes"
    if files > 1:
        text += f", and all images of a request {_body_limit(settings, files):,}"
    return UploadTooLarge(f"{text}.")
