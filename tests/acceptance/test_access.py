"""Keys, ownership, rate limits and CORS, on a gateway of their own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.client import submit
from tests.support.images import encoded, noise
from tests.support.stack import Stack

IMAGE = encoded(noise(40, 30), "PNG")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A gateway with keys and a rate limit; no worker is needed for what is asked here."""
    with Stack(
        tmp_path_factory.mktemp("guarded"),
        API_KEYS="alice-key,bob-key",
        RATE_LIMIT="20/minute",
        CORS_ORIGINS="https://lab.example",
    ) as stack:
        yield stack.start(workers=0)


def as_client(stack: Stack, key: str | None, header: str = "X-API-Key") -> httpx.Client:
    headers = {} if key is None else {header: key}
    return httpx.Client(base_url=stack.url, headers=headers, timeout=30)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("X-API-Key", "wrong"),
        ("Authorization", "Bearer wrong"),
        ("Authorization", "Basic x"),
        (None, ""),
    ],
)
def test_a_missing_or_wrong_key_is_refused(guarded: Stack, header: str | None, value: str) -> None:
    with httpx.Client(base_url=guarded.url, headers={header: value} if header else {}) as client:
        for method, path in (("POST", "/predict/"), ("GET", "/result/x"), ("GET", "/queue")):
            answer = client.request(method, path, content=IMAGE if method == "POST" else None)
            assert answer.status_code == 401
            assert answer.json()["code"] == "not_authenticated"
            assert answer.headers["www-authenticate"] == "Bearer"
        assert client.get("/health").status_code == 200, "probes need no key"


def test_a_job_is_visible_to_its_key_alone(guarded: Stack) -> None:
    with (
        as_client(guarded, "alice-key") as alice,
        as_client(guarded, "Bearer alice-key", "Authorization") as alice_too,
        as_client(guarded, "bob-key") as bob,
    ):
        link = submit(alice, IMAGE)["links"]["self"]
        assert alice_too.get(link).status_code == 200
        stranger = bob.get(link)
        nobody = bob.get("/result/00000000-0000-4000-8000-000000000000")
        assert stranger.status_code == nobody.status_code == 404
        assert stranger.json() == nobody.json(), "it cannot be told from one that never existed"


def test_the_same_idempotency_key_of_another_client_is_another_job(guarded: Stack) -> None:
    with as_client(guarded, "alice-key") as alice, as_client(guarded, "bob-key") as bob:
        headers = {"Idempotency-Key": "k", "Content-Type": "image/png"}
        first = alice.post("/predict/", content=IMAGE, headers=headers)
        again = alice.post("/predict/", content=IMAGE, headers=headers)
        assert (first.status_code, again.status_code) == (201, 200)
        assert again.headers["idempotency-replayed"] == "true"
        assert first.json()["task_id"] == again.json()["task_id"]
        other = bob.post("/predict/", content=IMAGE, headers=headers)
        assert other.status_code == 201
        assert other.json()["task_id"] != first.json()["task_id"]
        changed = alice.post("/predict/?conf=0.9", content=IMAGE, headers=headers)
        assert changed.status_code == 422
        assert changed.json()["code"] == "idempotency_conflict"


def test_cors_is_for_the_listed_origins_alone(guarded: Stack) -> None:
    with as_client(guarded, None) as client:
        preflight = {"Access-Control-Request-Method": "POST"}
        allowed = client.options(
            "/predict/", headers={"Origin": "https://lab.example", **preflight}
        )
        assert allowed.headers["access-control-allow-origin"] == "https://lab.example"
        refused = client.options(
            "/predict/", headers={"Origin": "https://evil.example", **preflight}
        )
        assert "access-control-allow-origin" not in refused.headers


def test_zz_too_fast_is_429_for_that_client_alone(guarded: Stack) -> None:
    with as_client(guarded, "alice-key") as alice, as_client(guarded, "bob-key") as bob:
        answers = [alice.post("/predict/", files={"file": IMAGE}) for _ in range(21)]
        last = answers[-1]
        assert last.status_code == 429
        assert last.json()["code"] == "too_many_requests"
        assert 1 <= int(last.headers["retry-after"]) <= 60
        assert bob.post("/predict/", files={"file": IMAGE}).status_code == 201


def test_no_secret_is_in_a_log(guarded: Stack) -> None:
    logs = guarded.logs()
    assert "alice-key" not in logs
    assert "bob-key" not in logs


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Without keys, so that clients are told apart by their address."""
    with Stack(tmp_path_factory.mktemp("limited"), RATE_LIMIT="5/hour") as stack:
        yield stack.start(workers=0)


def test_each_image_of_a_batch_counts(limited: Stack) -> None:
    with httpx.Client(base_url=limited.url, timeout=30) as client:
        too_many = client.post("/predict/batch", files=[("files", IMAGE)] * 6)
        assert too_many.status_code == 413, "however long it waits, it never fits"
        assert too_many.json()["retryable"] is False
        assert "send fewer at a time" in too_many.json()["detail"]
        assert client.post("/predict/batch", files=[("files", IMAGE)] * 3).status_code == 201
        assert client.post("/predict/batch", files=[("files", IMAGE)] * 3).status_code == 429
        assert client.get("/queue").json()["depth"] == 3


def test_a_forwarded_address_is_not_believed_by_default(limited: Stack) -> None:
    with httpx.Client(base_url=limited.url, timeout=30) as client:
        statuses = {
            client.post(
                "/predict/", files={"file": IMAGE}, headers={"X-Forwarded-For": f"203.0.113.{n}"}
            ).status_code
            for n in range(6)
        }
    assert 429 in statuses, "from loopback, too"


def test_a_trusted_proxy_names_the_client(tmp_path: Path) -> None:
    with Stack(tmp_path, RATE_LIMIT="2/hour", TRUSTED_PROXIES="127.0.0.0/8") as stack:
        stack.start(workers=0)
        with httpx.Client(base_url=stack.url, timeout=30) as client:

            def status(forwarded: str) -> int:
                headers = {"X-Forwarded-For": forwarded}
                return client.post("/predict/", files={"file": IMAGE}, headers=headers).status_code

            assert [status("203.0.113.1") for _ in range(3)] == [201, 201, 429]
            assert status("203.0.113.2") == 201
            # What the client itself wrote stands in front of what the proxy added.
            assert status("203.0.113.9, 203.0.113.1") == 429


def test_trusted_proxies_must_be_addresses(tmp_path: Path) -> None:
    for wrong in ("*", "proxy.example"):
        stack = Stack(tmp_path, TRUSTED_PROXIES=wrong)
        gateway = stack.spawn("api", sys.executable, "-m", "api")
        assert gateway.wait(timeout=30) != 0
        assert "TRUSTED_PROXIES" in stack.log("api").read_text()
        assert "Traceback" not in stack.log("api").read_text()
