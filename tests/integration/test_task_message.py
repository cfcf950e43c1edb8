"""Our message against what the installed Celery itself puts on the wire."""

from __future__ import annotations

import json
import ssl

import pytest

from shared.job.keys import lanes_of
from shared.job.message import task_message
from shared.settings import Settings
from worker.app import create_app


@pytest.fixture
def app(settings: Settings):  # type: ignore[no-untyped-def]
    app = create_app(settings)
    yield app
    app.pool.force_close_all()
    app.close()


def test_it_has_the_form_of_celerys_own(app, settings: Settings) -> None:  # type: ignore[no-untyped-def]
    app.send_task("yolo.detect", task_id="the-id", ignore_result=True)
    with app.connection_for_read() as connection:
        client = connection.default_channel.client
        theirs = json.loads(client.rpop("yolo"))
    ours = json.loads(task_message("the-id", "yolo"))
    assert ours.keys() == theirs.keys()
    assert set(ours["headers"]) <= set(theirs["headers"])
    for name, value in ours["headers"].items():
        if name != "origin":
            assert theirs["headers"][name] == value, name
    assert ours["properties"].keys() == theirs["properties"].keys()
    for name in ("correlation_id", "delivery_mode", "priority", "body_encoding"):
        assert ours["properties"][name] == theirs["properties"][name]
    assert ours["body"] == theirs["body"]
    assert ours["content-type"] == theirs["content-type"]


def test_the_app_takes_json_alone_from_every_lane(app) -> None:  # type: ignore[no-untyped-def]
    assert app.conf.accept_content == ["json"]
    assert app.conf.result_accept_content == ["json"]
    assert app.conf.task_serializer == app.conf.result_serializer == "json"
    names = {queue.name for queue in app.conf.task_queues}
    assert names == {"yolo", *(f"yolo.{lane}" for lane in lanes_of("demo"))}


def test_tls_checks_certificates_unless_told_otherwise() -> None:
    secure = create_app(Settings(redis_url="rediss://:password@redis.example:6380/0"))
    parameters = secure.backend.connparams
    assert parameters["ssl_cert_reqs"] == ssl.CERT_REQUIRED
    assert secure.connection_for_read().ssl == {"ssl_cert_reqs": ssl.CERT_REQUIRED}
    secure.close()
