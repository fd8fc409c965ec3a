"""An identity that is missing is named before anything else goes wrong."""

from __future__ import annotations

import pytest

from zotctl.errors import PermissionRefused
from zotctl.storage.bucket.objects.client import Client
from zotctl.storage.bucket.objects.settings import BucketSettings


def test_no_credentials_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(PermissionRefused, match="AWS_ACCESS_KEY_ID"):
        Client(BucketSettings("bucket", "", "http://127.0.0.1:9", "us-east-1")).head("x")
