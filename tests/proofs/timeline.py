"""Runs the store's scripts on a real server, on states and at times that a test chooses.

Production runs a script on the one state there is, at the server's time. Here a state is a value
that can be kept, and every call says what the time is. So a test can go back and take another turn.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import redis

from shared.job.scripts import script_text
from shared.settings import Settings

_TIMELINE = Path(__file__).with_name("timeline.lua").read_text()

_COMMANDS = "for _, command in ipairs(cjson.decode(ARGV[1])) do redis.call(unpack(command)) end"
"""In place of a script: plain commands."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key of Redis. `value`: text, a dict (hash), a list of texts (list), a dict of scores
    (sorted set) or a list of dicts (stream). `ttl_ms`: milliseconds to live, None for ever."""

    kind: str
    value: Any
    ttl_ms: int | None


@dataclass(frozen=True)
class State:
    """All that is in Redis at `now_ms`, milliseconds since the epoch."""

    text: bytes
    now_ms: int

    @cached_property
    def keys(self) -> dict[str, Key]:
        return {
            name: Key(kind, _value(kind, value), None if ttl_ms == -1 else ttl_ms)
            for name, kind, value, ttl_ms in json.loads(self.text)
        }

    def value(self, key: str, default: Any = None) -> Any:
        return self.keys[key].value if key in self.keys else default


def _value(kind: str, value: Any) -> Any:
    if kind in ("hash", "zset"):
        pairs = zip(value[::2], value[1::2], strict=True)
        return {name: float(score) if kind == "zset" else score for name, score in pairs}
    if kind == "stream":
        return [dict(zip(event[::2], event[1::2], strict=True)) for event in value]
    return value


EMPTY = b"[]"


class Timeline:
    """`settings` decide the scripts' constants, such as bounds and times to live."""

    def __init__(self, port: int, settings: Settings) -> None:
        self._client, self.settings = redis.Redis(port=port), settings
        self.port = port
        self._scripts: dict[str, Any] = {}
        self.calls = 0

    def __enter__(self) -> Timeline:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def run(
        self, state: State, now_ms: int, script: str, argument: object
    ) -> tuple[Any, State, list[str]]:
        """Run a script of `lua/`, or plain commands (`commands`). Returns its reply, the state
        after it and what it published."""
        self.calls += 1
        if script not in self._scripts:
            text = _COMMANDS if script == "commands" else script_text(script, self.settings)
            self._scripts[script] = self._client.register_script(
                _TIMELINE.replace("--SCRIPT--", text)
            )
        reply, after, published = self._scripts[script](
            keys=[self.settings.yolo_queue],
            args=[json.dumps(argument), now_ms, now_ms - state.now_ms, state.text],
        )
        return reply, State(after, now_ms), [text.decode() for text in published]
