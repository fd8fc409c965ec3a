"""How a bucket is reached: credentials that rotate, certificates that are missing, names and prefixes of all kinds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.buckets import ACCESS, SECRET, Bucket, bucket  # noqa: F401 - a fixture
from tests.object_faults import StillClock
from tests.object_proxy import Proxy
from tests.stores import bucket_store, push_image
from zotctl.errors import ConfigError, NotFound, PermissionRefused
from zotctl.storage import keys
from zotctl.storage.bucket.objects.client import BucketSettings, Client
from zotctl.storage.bucket.objects.retry import Retrying


def write(file: Path, access: str, secret: str) -> None:
    """As an agent does: a new file takes the place of the old one."""
    fresh = file.with_suffix(".new")
    fresh.write_text(f"[default]\naws_access_key_id = {access}\naws_secret_access_key = {secret}\n")
    fresh.replace(file)


def test_credentials_that_rotate_in_a_file(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    file, clock = tmp_path / "credentials", StillClock()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    write(file, "gone", "gone")
    client = Client(replace(bucket.settings, access_key=None, secret_key=None), clock)
    with pytest.raises(PermissionRefused, match="gone"):
        client.get("none")
    write(file, ACCESS, SECRET)
    clock.time += 2
    with pytest.raises(NotFound):
        client.get("none")
    client.put("file", b"x")
    assert client.abort_parts("file", client.start_parts("file")) is None
    file.write_text("[default]\naws_acc")  # half of it
    clock.time += 2
    assert client.head("file").size == 1
    write(file, "other", SECRET)
    clock.time += 2
    with pytest.raises(PermissionRefused, match="other"):
        client.put("file", b"y")


def test_a_missing_file_of_certificates_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = str(tmp_path / "ca.pem")
    settings = BucketSettings("bucket", "", "https://127.0.0.1:1", "us-east-1", "a", "b")
    with pytest.raises(ConfigError, match=f"{missing}, which ca names"):
        Client(replace(settings, verify=missing))
    for variable in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        with monkeypatch.context() as here:
            here.delenv("AWS_CA_BUNDLE", raising=False)
            here.setenv(variable, missing)
            with pytest.raises(ConfigError, match=f"s3://bucket: {missing}, which AWS_CA_BUNDLE"):
                Client(settings)
            Client(replace(settings, endpoint="http://127.0.0.1:1")).close()
            Client(replace(settings, verify=False)).close()


@pytest.mark.parametrize("prefix", ["my images", "my images/über uns", "a+b %20 &c", " "])
def test_prefixes_with_spaces(bucket: Bucket, prefix: str) -> None:  # noqa: F811
    client = bucket.client(prefix=prefix)
    store = bucket_store(Retrying(client), dedupe=True)
    push_image(store, "app", "v1")
    assert bucket_store(Retrying(bucket.client(prefix=prefix))).repository("app").tags() == ["v1"]
    assert list(store.repositories()) == ["app"]
    key = keys.index("app")
    assert client.copy(key, "copy").size == client.head(key).size
    client.execute(client.sign_deletes(["copy"], 60))
    client.execute(client.sign_deletes([key, keys.layout("app")], 60))
    assert all(found.key.startswith((".zotctl/", "_blobs/", "app/blobs/")) for found in client.list(""))


@pytest.mark.parametrize("name", ["My_Bucket", "with_underscore", "Capitals"])
def test_names_that_are_no_host_are_in_the_path(name: str) -> None:
    for endpoint in (None, "http://127.0.0.1:1"):
        client = Client(BucketSettings(name, "", endpoint, "us-east-1", "a", "b"))
        assert client.connection.wire.url.endswith(f"/{name}")
        client.close()


@pytest.mark.parametrize(
    ("conditions", "result"), [(True, "good for any number"), (False, "one process only"), (None, "one process only")]
)
def test_what_verify_says_of_a_bucket_in_which_nothing_is(
    bucket: Bucket, conditions: bool | None, result: str  # noqa: F811
) -> None:  # fmt: skip
    proxy = Proxy(bucket.server.endpoint, conditions=conditions)
    try:
        at = Bucket(replace(bucket.settings, endpoint=proxy.endpoint), bucket.server)
        done = subprocess.run(
            [sys.executable, "-m", "zotctl.cli", "verify", "--probe", "--json", bucket.url],
            env=os.environ | at.environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    finally:
        proxy.close()
    assert done.returncode == 0, done.stderr
    said = {item["ability"]: item["answer"] for item in json.loads(done.stdout)["items"]}
    assert said["verdict"].startswith(result)
    assert (said["checksum"], said["keeps_halves"], said["swaps"]) == ("sha256", False, conditions is True)
    assert said["signed_deletes"] is True
    assert list(bucket.client().list("")) == []
