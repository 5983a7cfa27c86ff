"""A fault server that the environment names as the S3 endpoint."""

from __future__ import annotations

import pytest
from fault_server import fault_server
from lora_foundry.loaders.remote import http

SETTINGS = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_SKIP_SIGNATURE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN",
            "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "AWS_DEFAULT_REGION", "LORA_FOUNDRY_S3_INSTANCE_ROLE")  # fmt: skip


@pytest.fixture(autouse=True)
def no_aws(monkeypatch, tmp_path):
    """Nothing of the machine's own: no credentials, no profile."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))


@pytest.fixture
def server(monkeypatch):
    """The fault server as S3, with credentials that it does not look at, and short pauses between tries."""
    pytest.importorskip("obstore", reason="run: pip install obstore")
    with fault_server() as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.url)
        monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "zugang")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "geheimnis")
        monkeypatch.setattr(http, "PAUSES", (0.01, 0.01, 0.02))
        yield running
