"""The Dockerfiles, parsed: what they copy exists, what they install is declared, nobody is root."""

from __future__ import annotations

import ast
import hashlib
import re
import signal
import socket
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from deploy.rehearsal.build_context import BuildContext
from deploy.rehearsal.dockerfiles import Stage, Step, argument, expand, pairs, read_stages

ROOT = Path(__file__).resolve().parents[2]
FILES = ("Dockerfile.api", "Dockerfile.worker", "deploy/space/Dockerfile")
each_file = pytest.mark.parametrize("file", FILES)


def stages(file: str, **build_args: str) -> list[Stage]:
    return read_stages(ROOT / file, build_args)[0]


def steps(file: str, *instructions: str, last_stage: bool = False) -> list[Step]:
    chosen = stages(file)[-1:] if last_stage else stages(file)
    return [s for stage in chosen for s in stage.steps if s.instruction in instructions]


def final_env(file: str) -> dict[str, str]:
    _, before_from = read_stages(ROOT / file, {})
    env: dict[str, str] = {}
    scope: dict[str, str] = {}
    for step in stages(file)[-1].steps:
        if step.instruction == "ARG":
            scope |= argument(step, scope, before_from, {})
        elif step.instruction == "ENV":
            env |= pairs(step, scope)
    return env


@each_file
def test_what_is_copied_is_tracked_and_not_ignored(file: str) -> None:
    tracked = set(
        subprocess.run(
            ["git", "ls-files"],  # noqa: S607
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
    )
    _, arguments = read_stages(ROOT / file, {})
    context = BuildContext(ROOT)
    names = {stage.name for stage in stages(file)}
    for step in steps(file, "COPY"):
        if "from" in step.flags:
            assert step.flags["from"] in names
            continue
        for source in step.words[:-1]:
            files = context.files(expand(source, arguments))
            assert files, f"{file}: COPY {source} would find nothing"
            assert tracked & {path.as_posix() for path in files}, f"{source} is not in git"


@each_file
def test_what_is_imported_is_copied(file: str) -> None:
    """Of this project's packages; what the code of one imports from another must come along."""
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    words = {word for step in steps(file, "COPY", last_stage=True) for word in step.words}
    copied = words & packages
    for package in copied:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                names += [n.name for n in node.names] if isinstance(node, ast.Import) else []
                needed = {name.partition(".")[0] for name in names} & packages
                assert needed <= copied, f"{path} imports {needed - copied}"


@each_file
def test_the_base_is_pinned_and_the_same_everywhere(file: str) -> None:
    names = {stage.name for stage in stages(file)}
    bases = {stage.base for stage in stages(file)} - names
    (base,) = bases
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", base)
    assert base == stages(FILES[0])[0].base


@each_file
def test_what_is_installed_is_declared_and_constrained(file: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    runs = [step.words[0] for step in steps(file, "RUN") if "pip install" in step.words[0]]
    assert len(runs) == 2
    for run in runs:
        assert "--constraint constraints.txt" in run
    groups = set(re.findall(r"--group (\w+)", runs[-1]))
    assert groups
    assert groups <= set(project["dependency-groups"])
    if file == "Dockerfile.api":
        assert groups == {"api", "otel"}
        assert "${WITH_OTEL:+--group otel}" in runs[-1], "only when it is asked for"


@each_file
def test_the_end_is_small_unprivileged_and_watched(file: str) -> None:
    last = stages(file)[-1]
    assert len(stages(file)) > 1
    users = steps(file, "USER", last_stage=True)
    assert users[-1].words[0].partition(":")[0] not in ("root", "0")
    text = " ".join(" ".join(step.words) for step in last.steps if step.instruction == "RUN")
    assert not re.search(r"apt-get|\bgcc\b|build-essential|\bpip\b|\buv\b", text)
    (check,) = steps(file, "HEALTHCHECK", last_stage=True)
    assert check.exec_form
    assert check.words[0] == "CMD"
    assert {"interval", "timeout", "start-period", "retries"} <= set(check.flags)
    (command,) = steps(file, "CMD", last_stage=True)
    assert command.exec_form, "a shell in between would swallow SIGTERM"
    assert command.words[0] == "python"


@each_file
def test_nothing_is_compiled_and_no_host_is_named(file: str) -> None:
    text = (ROOT / file).read_text()
    assert "--no-build" in text
    assert not re.search(r"https?://(?!127\.0\.0\.1)", text)
    assert "index-url" not in text


def test_the_gateway_listens_on_all_of_its_container() -> None:
    assert final_env("Dockerfile.api")["HOST"] == "0.0.0.0"
    copied = {
        word for step in steps("Dockerfile.api", "COPY", last_stage=True) for word in step.words
    }
    assert {"api", "shared", "models/samples"} <= copied
    assert not {"worker", "yolo_queue", "models", "."} & copied


def test_a_worker_serves_what_was_checked_and_exported() -> None:
    env = final_env("Dockerfile.worker")
    assert env["YOLO_MODEL"] == "/app/models/demo.pt"
    _, arguments = read_stages(ROOT / "Dockerfile.worker", {})
    digest = hashlib.sha256((ROOT / arguments["WEIGHTS"]).read_bytes()).hexdigest()
    assert arguments["WEIGHTS_SHA256"] == digest
    export = next(stage for stage in stages("Dockerfile.worker") if stage.name == "export")
    runs = [step.words[0] for step in export.steps if step.instruction == "RUN"]
    order = [
        i for i, run in enumerate(runs) for word in ("sha256sum --check", "prepare(") if word in run
    ]
    assert order == sorted(order), "loading a .pt executes code: first the check, then the export"
    assert f"YOLO_MODEL={env['YOLO_MODEL']}".replace("models/demo.pt", "${WEIGHTS}") in runs[-1]
    assert f"MODEL_CACHE_DIR={env['MODEL_CACHE_DIR']}" in runs[-1]
    (volume,) = steps("Dockerfile.worker", "VOLUME")
    assert volume.words == (env["MODEL_CACHE_DIR"],)
    (check,) = steps("Dockerfile.worker", "HEALTHCHECK")
    assert check.words == ("CMD", "python", "-m", "worker.health")


def test_other_weights_are_served_under_their_own_name() -> None:
    all_stages, before_from = read_stages(ROOT / "Dockerfile.worker", {"WEIGHTS": "yolov8n.pt"})
    assert before_from["WEIGHTS"] == "yolov8n.pt"
    copies = [s for stage in all_stages for s in stage.steps if s.words[:1] == ("${WEIGHTS}",)]
    assert len(copies) == 2
    assert {expand(step.words[1], before_from) for step in copies} == {"./yolov8n.pt"}


def test_the_space() -> None:
    env = final_env("deploy/space/Dockerfile")
    assert (env["HOST"], env["PORT"]) == ("0.0.0.0", "7860")
    assert env["DATA_DIR"].startswith("/home/user/")
    assert env["MODEL_CACHE_DIR"].startswith("/home/user/")
    (command,) = steps("deploy/space/Dockerfile", "CMD")
    assert command.words == ("python", "-m", "yolo_queue.cli.main", "up")
    text = (ROOT / "deploy/space/README.md").read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    assert (front["sdk"], front["app_port"]) == ("docker", 7860)
    assert front["license"] == "agpl-3.0"
    assert len(front["short_description"]) <= 60
    everything = text + (ROOT / "deploy/space/Dockerfile").read_text()
    assert not re.search(r"(?i)(password|token|key)\s*[=:]\s*\S", everything)


# -- how the files above are read -----------------------------------------------------------------


def test_expansion_is_dockers() -> None:
    variables = {"A": "1", "EMPTY": ""}
    assert expand("$A ${A} ${B} ${B:-x} ${EMPTY:-y}", variables) == "1 1  x y"
    assert expand("${A:+yes}${B:+no}", variables) == "yes"
    assert expand("/opt:$PATH", {"PATH": "/bin"}) == "/opt:/bin"


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("api/app.py", True),
        ("api/static/page/main.js", True),
        ("api/__pycache__/app.cpython-311.pyc", False),
        ("models/demo.pt", True),
        ("models/train.py", False),
        ("models/samples/coco/bus.jpg", True),
        ("yolov8n.pt", True),
        ("weights/mine.pt", True),
        ("data/mine.pt", False),
        (".env", False),
        (".git/config", False),
        ("tests/conftest.py", False),
        ("README.md", False),
    ],
)
def test_the_build_context_has_what_it_should(path: str, sent: bool) -> None:
    assert BuildContext(ROOT).sends(Path(path)) is sent


def test_dockerignore_is_read_as_docker_reads_it(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text("*.md\n!README.md\n**/tmp\ndocs/*.txt\n# a comment\n")
    context = BuildContext(tmp_path)
    assert [
        context.sends(Path(path))
        for path in ("a.md", "README.md", "deep/a.md", "x/tmp/y", "docs/a.txt", "docs/b/a.txt")
    ] == [False, True, True, False, False, True]


def test_a_write_to_a_closed_connection_is_an_error_and_no_signal() -> None:
    """Although the library that reads Dockerfiles brings a runtime with handlers of its own."""
    ours, theirs = socket.socketpair()
    with ours:
        theirs.close()
        with pytest.raises(BrokenPipeError):
            ours.send(b"x")
    status = Path("/proc/self/status").read_text()
    ignored = int(re.findall(r"SigIgn:\s+(\w+)", status)[0], 16)
    assert ignored & 1 << (signal.SIGPIPE - 1)
