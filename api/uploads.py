"""Reads an upload from the socket into memory: size, pace, form, type, declared pixels."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from fastapi import Request
from python_multipart.exceptions import FormParserError
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from api.upload_budget import Holding
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
"""What a form may have around its file: boundaries, part headers, small fields."""
GRACE_SECONDS = 10.0
"""How long a body may take before its rate counts."""


@dataclass(frozen=True, slots=True)
class Upload:
    image: bytes
    header: ImageHeader


class _InMemoryParser(MultiPartParser):
    """Starlette's parser without its detour over a temporary file for parts above 1 MB; the
    stream that feeds it is bounded."""

    spool_max_size = 1 << 62

    def on_headers_finished(self) -> None:
        super().on_headers_finished()
        field, part = self._current_part.field_name, self._current_part.file
        declared = (part and part.content_type) or ""
        if field in ("file", "files") and not _may_be_an_image(declared):
            raise UnsupportedMediaType(
                f"The part `{field}` is declared as {declared[:80]}, which is no image; "
                f"send {FORMATS}."
            )


def _may_be_an_image(declared: str) -> bool:
    """Whether a declared type leaves it to the file itself: many senders know no better."""
    kind = declared.partition(";")[0].strip().lower()
    return kind in ("", "application/octet-stream") or kind.startswith("image/")


def announced_bytes(request: Request, settings: Settings, *, files: int = 1) -> int:
    """Size of the request's body as announced; 0 if it is not.

    Raises `UploadTooLarge` if it announces too much.
    """
    announced = request.headers.get("content-length", "")
    size = int(announced) if announced.isascii() and announced.isdigit() else 0
    if size > _body_limit(settings, files):
        raise _too_large(settings, files)
    return size


async def receive(request: Request, settings: Settings, holding: Holding) -> Upload:
    """Read the image out of a form's `file` field or a raw body, and check its header.

    Raises the `UploadError`s, and `GatewayBusy`.
    """
    content_type = _content_type(request)
    if content_type == "multipart/form-data":
        (image,) = await _from_form(request, settings, holding, "file", files=1)
    elif _may_be_an_image(content_type):
        image = b"".join([chunk async for chunk in _body(request, settings, holding)])
    else:
        raise UnsupportedMediaType(
            "Send the image as multipart/form-data with a field `file`, or as the body with its "
            "own Content-Type, e.g. image/jpeg."
        )
    return await _checked(image, settings)


async def receive_batch(request: Request, settings: Settings, holding: Holding) -> list[Upload]:
    """Read the images of a form's `files` fields.

    Raises the first one's `UploadError`, and `GatewayBusy`.
    """
    if _content_type(request) != "multipart/form-data":
        raise UnsupportedMediaType("Send the images as multipart/form-data, each a field `files`.")
    limit = settings.max_batch_files
    images = await _from_form(request, settings, holding, "files", files=limit)
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
        await asyncio.sleep(0)  # other requests have their turn
    return Upload(image, header)


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _from_form(
    request: Request, settings: Settings, holding: Holding, field: str, *, files: int
) -> list[bytes]:
    parser = _InMemoryParser(
        Headers(raw=request.headers.raw),
        _body(request, settings, holding, files=files),
        max_files=files,
        max_fields=20,
        max_part_size=4096,
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


async def _body(
    request: Request, settings: Settings, holding: Holding, *, files: int = 1
) -> AsyncGenerator[bytes, None]:
    """The body's chunks, as long as it keeps to its size and comes fast enough."""
    limit, rate = _body_limit(settings, files), settings.min_upload_bytes_per_second
    begin = asyncio.get_running_loop().time()
    chunks = request.stream()
    while True:
        try:
            async with asyncio.timeout_at(begin + GRACE_SECONDS + holding.size_bytes / rate):
                chunk = await anext(chunks, None)
        except TimeoutError:
            raise UploadTooSlow(
                f"The body has come at less than {rate:,} bytes a second; send it again."
            ) from None
        if chunk is None:
            return
        if holding.size_bytes + len(chunk) > limit:
            raise _too_large(settings, files)
        holding.add(len(chunk))
        yield chunk


def _body_limit(settings: Settings, files: int) -> int:
    most = files * settings.max_upload_bytes + _FORM_OVERHEAD_BYTES
    return min(most, settings.max_client_upload_bytes, settings.max_gateway_upload_bytes)


def _too_large(settings: Settings, files: int = 1) -> UploadTooLarge:
    text = f"An image may have {settings.max_upload_bytes:,} bytes at most"
    if files > 1:
        text += f", all images of a request {_body_limit(settings, files):,}"
    return UploadTooLarge(f"{text}.")
