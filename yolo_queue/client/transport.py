"""Sets up httpx: timeouts, proxies, the key, and the arguments of a `Call`."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any
from urllib.parse import urlsplit

import httpx

from yolo_queue.client.flows import Call

DEFAULT_URL = "http://127.0.0.1:8000"
ANSWER_SECONDS = 30.0
"""How long an answer may take, on top of the time that it is held."""


def options(url: str, api_key: str | None) -> dict[str, Any]:
    """Arguments of `httpx.Client` and `httpx.AsyncClient`. Redirects are not followed, so that an
    image and a key go to no other host. Raises ValueError if `url` is not a URL."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is not the URL of a service, such as {DEFAULT_URL}")
    headers = {"User-Agent": f"yolo-queue-client/{_version()}", "Accept": "application/json, */*"}
    if api_key:
        headers["Authorization"] = f"Bearer {api_key}"
    return {
        "base_url": url,
        "headers": headers,
        # A proxy set in the environment cannot reach the loopback of this machine.
        "trust_env": not _is_loopback(parts.hostname),
        # Callers limit their own concurrency; a limit of the pool would only add waiting.
        "limits": httpx.Limits(max_connections=None, max_keepalive_connections=100),
    }


def arguments(call: Call) -> dict[str, Any]:
    """Arguments of `request` for one call."""
    read_seconds = ANSWER_SECONDS + call.hold_seconds
    return {
        "method": call.method,
        "url": call.path,
        "params": call.params,
        "headers": call.headers,
        "content": call.content,
        "timeout": httpx.Timeout(ANSWER_SECONDS, connect=5, read=read_seconds),
    }


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _version() -> str:
    try:
        return version("yolo-queue")
    except PackageNotFoundError:
        return "0"
