"""Reads a Dockerfile: its stages, and the state that the steps of a stage build up."""

from __future__ import annotations

import re
import shlex
import signal
from dataclasses import dataclass, field
from pathlib import Path

import dockerfile  # type: ignore[import-not-found]

# It is written in Go, whose runtime installs a handler for SIGPIPE when it is loaded. Python
# ignores that signal. With the handler, the next write to a closed connection ended a whole test
# run with SIGSEGV: the signal stack that Python has is too small for it.
signal.signal(signal.SIGPIPE, signal.SIG_IGN)

VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::([-+])([^{}]*))?\})")


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction as it stands in the file: `words` are not expanded."""

    instruction: str
    words: tuple[str, ...]
    flags: dict[str, str]
    exec_form: bool
    line: int


@dataclass(slots=True)
class Stage:
    """`base` is an image or the name of an earlier stage."""

    name: str
    base: str
    steps: list[Step] = field(default_factory=list)


@dataclass(slots=True)
class State:
    """What the steps of a stage have set so far; a stage that starts from another inherits it."""

    env: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "0"
    command: tuple[str, ...] = ()
    healthcheck: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()


def expand(text: str, variables: dict[str, str]) -> str:
    """A Dockerfile's own expansion: `$A`, `${A}`, `${A:-default}`, `${A:+text}`."""

    def value(match: re.Match[str]) -> str:
        found = variables.get(match[1] or match[2], "")
        if match[3] == "-":
            return found or match[4]
        if match[3] == "+":
            return match[4] if found else ""
        return found

    return VARIABLE.sub(value, text)


def read_stages(path: Path, build_args: dict[str, str]) -> tuple[list[Stage], dict[str, str]]:
    """The stages of a file, and its arguments before the first FROM with their values."""
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for command in dockerfile.parse_file(str(path)):
        flags = dict(flag.removeprefix("--").split("=", 1) for flag in command.flags)
        step = Step(command.cmd, command.value, flags, command.json, command.start_line)
        if step.instruction == "FROM":
            name = step.words[2] if len(step.words) == 3 else ""
            stages.append(Stage(name, expand(step.words[0], arguments)))
        elif stages:
            stages[-1].steps.append(step)
        else:
            arguments |= argument(step, arguments, arguments, build_args)
    return stages, arguments


def argument(
    step: Step, scope: dict[str, str], before_from: dict[str, str], build_args: dict[str, str]
) -> dict[str, str]:
    """What an ARG sets: the build's value, else its default, else the one from before FROM."""
    name, has_default, default = step.words[0].partition("=")
    if name in build_args:
        return {name: build_args[name]}
    if has_default:
        return {name: expand(unquoted(default), scope)}
    return {name: before_from.get(name, "")}


def pairs(step: Step, scope: dict[str, str]) -> dict[str, str]:
    """What an ENV sets. All of one ENV's values see the variables from before it."""
    names, values = step.words[::2], step.words[1::2]
    return {name: expand(unquoted(value), scope) for name, value in zip(names, values, strict=True)}


def unquoted(text: str) -> str:
    return "".join(shlex.split(text)) if text[:1] in ("'", '"') else text
