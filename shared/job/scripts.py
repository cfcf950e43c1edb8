"""Runs the Lua scripts of `lua/`, alone or in one round trip with plain commands.

A script gets one argument, a JSON object; in Lua it is the table `arg`. What never changes while a
process lives (bounds, times to live, number of lanes) is written into the script as constants.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis
import redis.asyncio

from shared.job.keys import HEARTBEAT_SECONDS, LANES, MAX_BATCHED_ID_BYTES
from shared.redis_access.client import raise_refusal
from shared.settings import Settings
from shared.tiling import PART_PASSES

Command = tuple[Any, ...]
"""What `execute_command` takes."""

_LUA = Path(__file__).with_name("lua")


def script_text(name: str, settings: Settings) -> str:
    """One script: constants, the functions that all scripts share, then its own lines."""
    constants = "".join(f"local {name} = {value}\n" for name, value in _constants(settings).items())
    return constants + (_LUA / "common.lua").read_text() + (_LUA / f"{name}.lua").read_text()


def _constants(settings: Settings) -> dict[str, int]:
    return {
        "LANES": LANES,
        "MAX_BATCHED_ID_BYTES": MAX_BATCHED_ID_BYTES,
        "PART_WORK": PART_PASSES,
        "HEARTBEAT_MS": int(HEARTBEAT_SECONDS * 1000),
        "LEASE_MS": int(settings.lease_seconds * 1000),
        "MAX_ATTEMPTS": settings.max_attempts,
        "MAX_QUEUE_JOBS": settings.max_queue_jobs,
        "MAX_QUEUE_BYTES": settings.max_queue_bytes,
        "MAX_QUEUE_MS": settings.max_queue_seconds * 1000,
        "MAX_IMAGE_PIXELS": settings.max_image_pixels,
        "RECORD_TTL_SECONDS": settings.record_ttl_seconds,
        "RESULT_TTL_SECONDS": settings.result_ttl_seconds,
        "DEAD_MAX_JOBS": settings.dead_max_jobs,
        "DEAD_MAX_BYTES": settings.dead_max_bytes,
        "DEAD_TTL_SECONDS": settings.dead_ttl_seconds,
    }


class _Scripts:
    """Scripts of one service, and the commands that run them."""

    def __init__(self, client: Any, settings: Settings, *names: str) -> None:
        self._client, self._queue = client, settings.yolo_queue
        self._scripts = {
            name: client.register_script(script_text(name, settings)) for name in names
        }

    def _pipeline(
        self, name: str, before: Sequence[Command], after: Sequence[Command], arguments: object
    ) -> Any:
        pipe = self._client.pipeline(transaction=False)
        call = ("EVALSHA", self._scripts[name].sha, 1, self._queue, json.dumps(arguments))
        for command in (*before, call, *after):
            pipe.execute_command(*command)
        return pipe


class LuaScripts(_Scripts):
    """Blocking."""

    def run(self, name: str, **arguments: Any) -> Any:
        return self._scripts[name](keys=[self._queue], args=[json.dumps(arguments)])

    def run_among(
        self,
        name: str,
        *,
        before: Sequence[Command] = (),
        after: Sequence[Command] = (),
        **arguments: Any,
    ) -> list[Any]:
        """Run a script and plain commands around it in one round trip; returns all replies.

        (redis-py's own scripts, in a pipeline, first ask the server whether it knows them.)
        """
        while True:
            replies = self._pipeline(name, before, after, arguments).execute(raise_on_error=False)
            try:
                raise_refusal(replies)
            except redis.exceptions.NoScriptError:  # the server was restarted
                self._client.script_load(self._scripts[name].script)
            else:
                return list(replies)


class AsyncLuaScripts(_Scripts):
    """For asyncio."""

    async def run(self, name: str, **arguments: Any) -> Any:
        return await self._scripts[name](keys=[self._queue], args=[json.dumps(arguments)])

    async def run_among(
        self,
        name: str,
        *,
        before: Sequence[Command] = (),
        after: Sequence[Command] = (),
        **arguments: Any,
    ) -> list[Any]:
        while True:
            pipe = self._pipeline(name, before, after, arguments)
            replies = await pipe.execute(raise_on_error=False)
            try:
                raise_refusal(replies)
            except redis.exceptions.NoScriptError:  # the server was restarted
                await self._client.script_load(self._scripts[name].script)
            else:
                return list(replies)
