"""Performs the steps of a Dockerfile: FROM, ARG, ENV, WORKDIR, USER, COPY, RUN and the rest.

A step it does not know is an error: nothing in a Dockerfile is passed over.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from deploy.rehearsal.build_context import BuildContext
from deploy.rehearsal.containers import Bind, Container, user_numbers
from deploy.rehearsal.dockerfiles import Stage, State, Step, argument, expand, pairs, read_stages

RUN_SECONDS = 1800
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class BuildError(Exception):
    """A step that failed or that makes no sense, in one line."""


@dataclass(frozen=True, slots=True)
class Image:
    """A stage when all of its steps have been performed."""

    root: Path
    state: State


class Builder:
    """Builds images of one context into `folder`, all of them from one base root."""

    def __init__(
        self,
        context: BuildContext,
        base: Path,
        folder: Path,
        log: IO[bytes],
        *,
        network_env: dict[str, str],
        network_binds: tuple[Bind, ...],
        caches: Callable[[str], Path],
    ) -> None:
        """`network_env` and `network_binds` reach RUN alone: how this machine gets to its package
        index. `caches` gives the folder for a `RUN --mount=type=cache` target."""
        self._context = context
        self._base = base
        self._folder = folder
        self._log = log
        self._network_env = network_env
        self._network_binds = network_binds
        self._caches = caches

    def build(self, file: Path, build_args: dict[str, str]) -> Image:
        """Perform every stage; returns the last. The others stay until `forget`."""
        stages, before_from = read_stages(file, build_args)
        images: dict[str, Image] = {}
        known = {name: build_args[name] for name in build_args if name in before_from}
        image = Image(self._base, State())
        for number, stage in enumerate(stages):
            name = stage.name or str(number)
            root = self._folder / f"{file.parent.name}-{file.name}-{name}"
            if stage.base in images:
                parent = images[stage.base]
                # Links: no step writes into a file of its parent's, it makes new ones.
                self._shell("cp", "-al", str(parent.root), str(root))
                state = deepcopy(parent.state)
            else:
                self._shell("cp", "-a", str(self._base), str(root))
                state = State(env={"PATH": SYSTEM_PATH})
            image = Image(root, state)
            self._perform(stage, image, before_from, known, images)
            images[name] = image
        return image

    def _perform(
        self,
        stage: Stage,
        image: Image,
        before_from: dict[str, str],
        build_args: dict[str, str],
        images: dict[str, Image],
    ) -> None:
        state = image.state
        arguments: dict[str, str] = {}
        for step in stage.steps:
            self._log.write(f"\n>>> {step.instruction} {' '.join(step.words)}\n".encode())
            self._log.flush()
            scope = {**arguments, **state.env}
            match step.instruction:
                case "ARG":
                    arguments |= argument(step, scope, before_from, build_args)
                case "ENV":
                    state.env |= pairs(step, scope)
                case "WORKDIR":
                    state.workdir = str(Path(state.workdir) / expand(step.words[0], scope))
                    (image.root / state.workdir.lstrip("/")).mkdir(parents=True, exist_ok=True)
                case "USER":
                    state.user = expand(step.words[0], scope)
                case "COPY":
                    self._copy(step, image, scope, images)
                case "RUN":
                    self._run(step, image, scope)
                case "VOLUME":
                    state.volumes += step.words
                case "CMD" if step.exec_form:
                    state.command = step.words
                case "HEALTHCHECK" if step.exec_form and step.words[0] == "CMD":
                    state.healthcheck = step.words[1:]
                case "EXPOSE" | "STOPSIGNAL" | "LABEL":
                    pass
                case _:
                    raise BuildError(f"line {step.line}: cannot perform this {step.instruction}")

    def _copy(
        self, step: Step, image: Image, scope: dict[str, str], images: dict[str, Image]
    ) -> None:
        *sources, target = (expand(word, scope) for word in step.words)
        destination = image.root / str(Path(image.state.workdir) / target).lstrip("/")
        into_folder = target.endswith("/") or len(sources) > 1
        for source in sources:
            if "from" in step.flags:
                origin = images[step.flags["from"]].root / source.lstrip("/")
                destination.parent.mkdir(parents=True, exist_ok=True)
                self._shell("cp", "-al", str(origin), str(destination))
            else:
                self._copy_from_context(step, source, destination, into_folder)
        if owner := step.flags.get("chown"):
            numbers = ":".join(user_numbers(image.root, owner))
            self._shell("chown", "-R", numbers, str(destination))

    def _copy_from_context(
        self, step: Step, source: str, destination: Path, into_folder: bool
    ) -> None:
        files = self._context.files(source)
        if not files:
            raise BuildError(f"line {step.line}: nothing in the build context at {source}")
        for file in files:
            inside = file.relative_to(source)
            if inside != Path():
                target = destination / inside
            else:
                target = destination / file.name if into_folder else destination
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self._context.root / file, target)
            target.chmod((self._context.root / file).stat().st_mode & 0o777)

    def _run(self, step: Step, image: Image, scope: dict[str, str]) -> None:
        binds = list(self._network_binds)
        if mount := step.flags.get("mount"):
            options = dict(option.split("=", 1) for option in mount.split(","))
            if options.get("type") != "cache":
                raise BuildError(f"line {step.line}: cannot perform --mount={mount}")
            binds.append(Bind(self._caches(options["target"]), options["target"]))
        state = image.state
        container = Container(
            image.root,
            {"HOME": "/root", **self._network_env, **scope},
            workdir=state.workdir,
            user=state.user,
            binds=tuple(binds),
            privileges=True,
        )
        command = step.words if step.exec_form else ("/bin/sh", "-c", step.words[0])
        status = container.run(command, self._log, seconds=RUN_SECONDS)
        if status:
            raise BuildError(f"line {step.line}: RUN ended with status {status}")

    def _shell(self, *command: str) -> None:
        subprocess.run(command, check=True, stdout=self._log, stderr=self._log)
