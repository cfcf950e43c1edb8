"""The checks of `doctor` that need no service."""

from __future__ import annotations

from pathlib import Path

import pytest

from yolo_queue.cli.doctor_checks import check_environment


def test_a_checkout_checks_the_packages_of_client_and_server() -> None:
    _, packages = check_environment()
    assert packages.ok, packages.advice
    for name in ("httpx", "typer", "redis", "fastapi", "celery", "opentelemetry-sdk"):
        assert f"{name} " in packages.found


def test_versions_that_are_too_old_or_too_new_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, version in (("httpx", "0.27.2"), ("celery", "5.8.0"), ("kombu", "5.7.3")):
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
    monkeypatch.syspath_prepend(tmp_path)
    _, packages = check_environment()
    assert not packages.ok
    assert "celery 5.8.0" in packages.found
    assert packages.advice.endswith("pip install 'httpx>=0.28' 'celery[redis]>=5.7,<5.8'")
