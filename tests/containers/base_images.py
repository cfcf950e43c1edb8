"""Provides the images that docker-compose.yml and the Dockerfiles start from.

Where their registry can be reached, they are pulled. Elsewhere a stand-in gets their very name:
Debian bookworm with Debian's own Python, Redis or Prometheus. C library, users and folders are as
in the real ones; versions are Debian's. Grafana has no stand-in: Debian does not have it.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.containers.engine import Engine, EngineError

CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_PACKAGES = "python3,python3-venv,ca-certificates"


@dataclass(frozen=True, slots=True)
class StandIn:
    """Debian's `package`, on the stand-in for Python. `user` owns `folder`, a volume in the real
    image. `changes`: what else the real image sets, as in a Dockerfile."""

    package: str
    user: str
    folder: str
    changes: tuple[str, ...] = ()


_STAND_INS = {
    "redis": StandIn("redis-server", "redis", "/data"),
    "prom/prometheus": StandIn(
        # wget is in the real image; its health check uses it.
        "prometheus wget",
        "nobody",
        "/prometheus",
        ("USER nobody", 'ENTRYPOINT ["/usr/bin/prometheus"]'),
    ),
}


def provide(engine: Engine, python: str, others: Iterable[str]) -> list[str]:
    """Pull these images, or make stand-ins for them. Returns those that could not be had."""
    if not _has_or_pulls(engine, python):
        _make_python(engine, python)
    missing = []
    for name in others:
        if _has_or_pulls(engine, name):
            continue
        if stand_in := _STAND_INS.get(name.partition(":")[0]):
            _make(engine, name, stand_in, python)
        else:
            missing.append(name)
    return missing


def _has_or_pulls(engine: Engine, name: str) -> bool:
    for command in (("image", "inspect"), ("pull", "--quiet")):
        try:
            engine.docker(*command, name)
        except EngineError:
            continue
        return True
    return False


def _make_python(engine: Engine, name: str) -> None:
    """Debian with the certificates that this machine trusts, which may be more than Debian's."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree.tar")
        subprocess.run(
            [
                *("mmdebstrap", "--quiet", "--variant=minbase", f"--include={_PACKAGES}"),
                f"--customize-hook=copy-in {CERTIFICATES} {Path(CERTIFICATES).parent}",
                # Where the real image has its Python.
                '--customize-hook=ln -s /usr/bin/python3.11 "$1"/usr/local/bin/python',
                *("bookworm", tree),
            ],
            check=True,
        )
        variables = f"SSL_CERT_FILE={CERTIFICATES} PIP_CERT={CERTIFICATES}"
        engine.docker("import", "--change", f"ENV {variables}", tree, name)


def _make(engine: Engine, name: str, stand_in: StandIn, python: str) -> None:
    steps = (
        "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y "
        f"--no-install-recommends {stand_in.package} >/dev/null 2>&1 "
        f"&& install -d -o {stand_in.user} {stand_in.folder}"
    )
    changes = (*stand_in.changes, 'CMD ["sh"]')
    container = engine.docker("run", "--detach", python, "sh", "-c", steps).strip()
    try:
        if engine.docker("wait", container).strip() != "0":
            raise EngineError(f"{name}: {engine.docker('logs', container)}")
        options = [word for change in changes for word in ("--change", change)]
        engine.docker("commit", *options, container, name)
    finally:
        engine.docker("rm", "--force", container)
