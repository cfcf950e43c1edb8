"""Lets the steps of a build reach the package index that this machine reaches: its variables,
certificates and name servers are passed on at run time, and nothing of them is kept."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from deploy.rehearsal.containers import Bind

CERTIFICATES = "/run/rehearsal-certificates.pem"
PASSED_ON = ("PIP_", "UV_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")
FROM_PIP = ("index-url", "extra-index-url", "trusted-host", "proxy")


def index_env() -> dict[str, str]:
    """Variables for pip and uv. What names files of this machine is left out: a chroot has none."""
    env = _pip_settings()
    env |= {name: value for name, value in os.environ.items() if name.upper().startswith(PASSED_ON)}
    env = {name: value for name, value in env.items() if not value.startswith(("/", "file:"))}
    if _certificates():
        env |= dict.fromkeys(("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE"), CERTIFICATES)
    env["PIP_ROOT_USER_ACTION"] = "ignore"
    return env


def index_binds() -> tuple[Bind, ...]:
    """This machine's name servers, hosts and certificates."""
    binds = [
        Bind(Path(path).resolve(), path, read_only=True)
        for path in ("/etc/resolv.conf", "/etc/hosts")
        if Path(path).exists()
    ]
    if path := _certificates():
        binds.append(Bind(path, CERTIFICATES, read_only=True))
    return tuple(binds)


def uv_cache() -> Path:
    """This machine's uv cache; a second rehearsal downloads nothing."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}") or "uv"
    out = subprocess.run([uv, "cache", "dir"], capture_output=True, text=True, check=True)
    folder = Path(out.stdout.strip())
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _certificates() -> Path | None:
    for name in ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE"):
        if (path := Path(os.environ.get(name, ""))).is_file():
            return path.resolve()
    return None


def _pip_settings() -> dict[str, str]:
    out = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    env: dict[str, str] = {}
    for line in out.stdout.splitlines():
        key, _, value = line.partition("=")
        option = key.rpartition(".")[2]
        if option in FROM_PIP:
            words = [word for word in value.strip("'\"").split() if not word.startswith("file:")]
            env["PIP_" + option.upper().replace("-", "_")] = " ".join(words)
    return {name: value for name, value in env.items() if value}
