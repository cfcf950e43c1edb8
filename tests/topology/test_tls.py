"""Redis over TLS: one `rediss://` URL with a password works for every part."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest
import redis
from pydantic import SecretStr

from shared.redis_access.client import connect
from shared.settings import Settings
from tests.support.client import submit
from tests.support.images import encoded, noise
from tests.support.machine import missing
from tests.support.stack import ROOT, Stack, free_port, wait_until
from tests.support.tls import Authority, TlsProxy, have_openssl
from yolo_queue.server.embedded_redis import EmbeddedRedis

IMAGE = encoded(noise(40, 30), "PNG")
PASSWORD = "p/w@rd"
LOGIN = ":p%2Fw%40rd@"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    if not have_openssl():
        missing("openssl is not installed: no certificate for the test")
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[TlsProxy]:
    server = EmbeddedRedis(tmp_path_factory.mktemp("redis"), free_port(), max_bytes=1 << 30)
    server.start()
    try:
        with redis.Redis(port=server.port) as client:
            client.config_set("requirepass", PASSWORD)
        with TlsProxy(authority, server.port) as proxy:
            yield proxy
    finally:
        server.stop()


@pytest.fixture(scope="module")
def url(proxy: TlsProxy, authority: Authority) -> str:
    return f"rediss://{LOGIN}localhost:{proxy.port}/2?ssl_ca_certs={authority.ca}"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, url: str) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    with Stack(folder, REDIS_URL=url, RATE_LIMIT="1000/second") as stack:
        stack.start_gateway()
        stack.workers = [stack.start_worker(app="tests.support.simulated_app")]
        stack.wait_ready(processes=2)
        yield stack


def run(service: Stack, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        env={**service.environment, "COLUMNS": "300"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    assert "p%2Fw" not in done.stdout + done.stderr
    return done.stdout


def test_jobs_go_through(service: Stack, proxy: TlsProxy) -> None:
    with httpx.Client(base_url=service.url, timeout=30) as client:
        for _ in range(5):
            task_id = submit(client, IMAGE)["task_id"]
            # Held until the subscription, which is a connection of its own, tells of the end.
            job = client.get(f"/result/{task_id}", params={"wait": 10}).json()
            assert job["status"] == "completed"
    assert proxy.handshakes > 4, "gateway, parent and pool processes have connections of their own"


def test_celery_gives_a_task_and_its_result(service: Stack) -> None:
    code = (
        "import base64, sys; from worker.app import app;"
        "image = base64.b64encode(open(sys.argv[1], 'rb').read()).decode();"
        "result = app.send_task('yolo.detect', kwargs={'image': image});"
        "print(len(result.get(timeout=30)['detections']))"
    )
    path = service.folder / "image.png"
    path.write_bytes(IMAGE)
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env=service.environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.strip() == "1", done.stderr


def test_the_commands_know_tls(service: Stack) -> None:
    assert "pong" in run(service, "celery", "-A", "worker.app", "inspect", "--timeout=5", "ping")
    assert "attempts" in run(service, "yolo_queue.cli.main", "dead", "list")
    assert "rediss://***@localhost" in run(
        service, "yolo_queue.cli.main", "doctor", "--url", service.url
    )


def test_flower_sees_the_queue(service: Stack) -> None:
    port = free_port()
    flower = service.spawn(
        "flower",
        *(sys.executable, "-m", "celery", "--quiet", "-A", "worker.app", "flower"),
        *("--address=127.0.0.1", f"--port={port}", "--basic_auth=u:p"),
    )

    def seen() -> bool:
        try:
            answer = httpx.get(f"http://127.0.0.1:{port}/broker", auth=("u", "p"), timeout=10)
        except httpx.TransportError:
            return False
        return "yolo.demo.7" in answer.text

    wait_until(seen, seconds=40, what="Flower lists the lanes")
    flower.terminate()
    assert flower.wait(timeout=20) == 0


def test_a_server_that_cannot_prove_itself_is_refused(url: str, proxy: TlsProxy) -> None:
    unknown = f"rediss://{LOGIN}localhost:{proxy.port}/2"  # the authority is in no trust store
    with pytest.raises(redis.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
        connect(SecretStr(unknown), timeout_seconds=5).ping()
    trusting = SecretStr(f"{unknown}?ssl_cert_reqs=none&ssl_check_hostname=false")
    assert connect(trusting, timeout_seconds=5).ping()
    with pytest.raises(ValueError, match="is not a file"):
        Settings(redis_url=f"{unknown}?ssl_ca_certs=/nowhere/ca.pem")


def test_a_worker_says_so_in_its_log(service: Stack, proxy: TlsProxy) -> None:
    worker = service.spawn(
        "worker-distrustful",
        *(sys.executable, "-m", "celery", "--quiet", "-A", "tests.support.simulated_app", "worker"),
        *("--hostname", "distrustful@test", "--without-mingle", "--without-gossip"),
        REDIS_URL=f"rediss://{LOGIN}localhost:{proxy.port}/2",
    )
    log = service.log("worker-distrustful")
    for said in (
        "Cannot connect to rediss://",
        "Redis is unavailable",
    ):  # parent, children
        wait_until(lambda said=said: said in log.read_text(), seconds=30, what=said)
    assert log.read_text().count("CERTIFICATE_VERIFY_FAILED") >= 2
    worker.kill()
    worker.wait(timeout=30)


def test_no_password_is_in_a_log(service: Stack) -> None:
    logs = service.logs()
    assert logs
    assert PASSWORD not in logs
    assert "p%2Fw" not in logs
