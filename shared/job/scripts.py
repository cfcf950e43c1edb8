"""Owns how the Lua scripts of `lua/` run: alone, or in one round trip with plain commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis
import redis.asyncio

from shared.job.keys import script
from shared.redis_access.client import raise_refusal

Command = tuple[Any, ...]
"""What `execute_command` takes."""


class LuaScripts:
    """Scripts of one queue, blocking."""

    def __init__(self, client: Any, queue: str, *names: str) -> None:
        self._client, self._queue = client, queue
        self._scripts = {name: client.register_script(script(name)) for name in names}

    def run(self, name: str, *args: Any) -> Any:
        return self._scripts[name](keys=[self._queue], args=list(args))

    def run_among(
        self, name: str, *args: Any, before: Sequence[Command] = (), after: Sequence[Command] = ()
    ) -> list[Any]:
        """A script and plain commands around it, in one round trip: what each of them gave.

        redis-py's own scripts, in a pipeline, first ask the server whether it knows them."""
        script = self._scripts[name]
        while True:
            pipe = self._client.pipeline(transaction=False)
            for command in (*before, ("EVALSHA", script.sha, 1, self._queue, *args), *after):
                pipe.execute_command(*command)
            replies = pipe.execute(raise_on_error=False)
            try:
                raise_refusal(replies)
            except redis.exceptions.NoScriptError:  # the server was restarted
                self._client.script_load(script.script)
            else:
                return list(replies)


class AsyncLuaScripts:
    """The asyncio twin of `LuaScripts`."""

    def __init__(self, client: redis.asyncio.Redis, queue: str, *names: str) -> None:
        self._client, self._queue = client, queue
        self._scripts = {name: client.register_script(script(name)) for name in names}

    async def run(self, name: str, *args: Any) -> Any:
        return await self._scripts[name](keys=[self._queue], args=list(args))

    async def run_among(
        self, name: str, *args: Any, before: Sequence[Command] = (), after: Sequence[Command] = ()
    ) -> list[Any]:
        script = self._scripts[name]
        while True:
            pipe = self._client.pipeline(transaction=False)
            for command in (*before, ("EVALSHA", script.sha, 1, self._queue, *args), *after):
                pipe.execute_command(*command)
            replies = await pipe.execute(raise_on_error=False)
            try:
                raise_refusal(replies)
            except redis.exceptions.NoScriptError:  # the server was restarted
                await self._client.script_load(script.script)
            else:
                return replies
