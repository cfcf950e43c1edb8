from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError
from standardwebhooks import Webhook

from shared.settings import Settings

KEY = bytes(range(200, 232))
TEXT = base64.b64encode(KEY).decode()


@pytest.mark.parametrize("secret", [f"whsec_{TEXT}", f"whsec_{TEXT.rstrip('=')}"])
def test_a_good_secret_signs_what_the_library_verifies(secret: str) -> None:
    settings = Settings(webhook_secret=secret)
    signer = Webhook(settings.webhook_secret.get_secret_value())
    now = datetime.now(UTC)
    headers = {
        "webhook-id": "1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signer.sign("1", now, "{}"),
    }
    assert Webhook(KEY).verify("{}", headers) == {}


@pytest.mark.parametrize(
    "secret",
    [
        "hunter2",
        TEXT,
        "whsec_",
        "whsec_not Base64, but long enough to be a secret",
        "whsec_" + base64.urlsafe_b64encode(b"\xff" * 32).decode(),
        "whsec_" + base64.b64encode(KEY[:23]).decode(),
        f"whsec_{TEXT}\n",
        f"whsec_{TEXT.rstrip('=')}AA",
        "whsec_gehört-zu-niemandem-und-ist-kein-base64",
    ],
)
def test_a_bad_secret_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        Settings(webhook_secret=secret)
    message = str(refusal.value)
    assert "openssl rand -base64 32" in message
    assert secret.removeprefix("whsec_").strip() not in message or secret == "whsec_"


def test_no_secret_is_no_webhooks() -> None:
    assert Settings(webhook_secret="").webhook_secret.get_secret_value() == ""
