"""boto3 as this registry wants it, and the only module that imports it: a second that only users of
buckets pay.

Its own retries are off: they would report 412 for a conditional write of ours that was done. Checksums are ours, too.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, cast
from urllib.parse import urlsplit

import boto3  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]
from botocore.httpsession import ProxyConfiguration  # type: ignore[import-untyped]
from botocore.session import Session  # type: ignore[import-untyped]
from botocore.utils import get_environ_proxies, parse_timestamp  # type: ignore[import-untyped]
from urllib3 import Timeout

from zotctl import __version__
from zotctl.errors import ConfigError, PermissionRefused, Unavailable
from zotctl.storage.bucket.objects.errors import WAY_OUT, Where, translated
from zotctl.storage.bucket.objects.requests import Reply, Wire
from zotctl.storage.bucket.objects.settings import BucketSettings
from zotctl.storage.bucket.objects.signing import Identity
from zotctl.storage.clock import Clock

CONNECT, READ = 5.0, 60.0
"""Seconds without a byte before a request is given up."""
LONG_READ = 900.0
"""For what a server may do in silence: a copy, or making one object of 10,000 parts."""
LOOK_EVERY = 1.0
"""Seconds between two looks at the files of credentials."""
DEFAULT_REGION = "us-east-1"


class BucketConnection:
    """One bucket, for threads that share it. `ask` for what is asked often; botocore's clients for the rest: `s3`, and
    `patient` for what takes long."""

    def __init__(self, settings: BucketSettings, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        self._seen: tuple[float, float] | None = None
        self._header = ""
        self._lock, self._wire = threading.Lock(), cast(Wire | None, None)
        try:
            self._core = _session(settings)
            self._files, self._looked = _states(self._core), clock.elapsed()
            self._session = boto3.session.Session(**_credentials(settings), botocore_session=self._core)
            self._settle(settings.region or self._session.region_name or DEFAULT_REGION)
        except (BotoCoreError, ValueError) as error:
            raise ConfigError(f"{settings.label}: {error}{_way_out(error)}") from error

    def _settle(self, region: str) -> None:
        self._region = region
        addressing = self._addressing()
        self.s3: Any = self._client(addressing, READ)
        self.patient: Any = self._client(addressing, LONG_READ)
        self.endpoint = str(self.s3.meta.endpoint_url)
        self._require_trusted()
        self._wire = None  # at the end, for the next one is made of all this

    def _addressing(self) -> str:
        """Said outright: of "auto", botocore makes URLs of a region that may not be the bucket's."""
        settings = self._settings
        if settings.addressing != "auto":
            return settings.addressing
        endpoint = settings.endpoint or str(self._make("auto", READ).meta.endpoint_url)
        return "virtual" if _is_amazon(endpoint) and _is_label(settings.bucket) else "path"

    def _client(self, addressing: str, patience: float) -> Any:
        client = self._make(addressing, patience)
        client.meta.events.register("after-call.s3", self._answered)
        return client

    def _make(self, addressing: str, patience: float) -> Any:
        settings = self._settings
        return self._session.client(
            "s3",
            region_name=self._region,
            endpoint_url=settings.endpoint,
            verify=None if settings.verify is True else settings.verify,
            config=_config(settings, addressing, patience),
        )

    def translated(
        self, key: str, operation: str, *, write: bool = False, match: str = "", absent: bool = False
    ) -> AbstractContextManager[None]:
        """`match`: there must be such an object. `absent`: that there is none is no error."""
        return translated(self.where, key, operation, write=write, match=match, absent=absent)

    def where(self) -> Where:
        identity = self._session.get_credentials()
        known = f"the identity {identity.access_key}" if identity else "nobody (no credentials)"
        return Where(self._settings.label, self._settings.bucket, self.endpoint, known, self._region)

    def identity(self) -> Identity:
        """Renewed by boto3 where it is one that expires. PermissionRefused: there is none."""
        with self.translated("", "signing"):
            self._take_up()
            found = self._session.get_credentials()
            if found is None:
                raise PermissionRefused(f"{self._settings.label}: no credentials for {self.endpoint}; {WAY_OUT}")
            frozen = found.get_frozen_credentials()
            return Identity(frozen.access_key, frozen.secret_key, frozen.token, self._region)

    def _take_up(self) -> None:
        """Credentials that were replaced in their file, which is looked at once a second: boto3 reads it once. What
        can't be read, or names none, is half written: the old ones stay until the next look."""
        now = self._clock.elapsed()
        if self._settings.access_key or now - self._looked < LOOK_EVERY:
            return
        with self._lock:
            state, self._looked = _states(self._core), now
            if state == self._files:
                return
            with suppress(BotoCoreError):
                core = _session(self._settings)
                fresh = boto3.session.Session(botocore_session=core)
                if fresh.get_credentials() is not None:
                    self._core, self._session, self._files = core, fresh, state
                    wire = self._wire
                    self._settle(self._region)
                    self._wire = wire

    # -- requests that are asked often -----------------------------------------------------------

    def ask(self, method: str, key: str, operation: str, **asked: Any) -> Reply:
        """See `Wire.ask`. Raises what urllib3 and botocore raise."""
        wire = self.wire
        try:
            return wire.ask(method, key, operation, **asked)
        except ClientError as error:
            if not self._moved(wire, _told_region(error.response)):
                raise
        return self.wire.ask(method, key, operation, **asked)

    def _moved(self, wire: Wire, region: str) -> bool:
        """A server says where a bucket is when it is asked for in another region, and so does botocore ask again."""
        with self._lock:
            if region and region != self._region:
                self._settle(region)
            return self._wire is not wire

    @property
    def wire(self) -> Wire:
        """Made when it is used, for it needs an identity."""
        made = self._wire
        if made is None:
            with self._lock:
                made = self._wire = self._wire or self._make_wire()
        return made

    def _make_wire(self) -> Wire:
        settings, url = self._settings, self._url()
        return Wire(
            url,
            self.identity,
            self._heard,
            verify=self._trusted() if settings.verify is True else settings.verify,
            proxy=ProxyConfiguration(get_environ_proxies(url)).proxy_url_for(url),
            connections=settings.max_connections,
            timeout=Timeout(connect=CONNECT, read=READ),
        )

    def _require_trusted(self) -> None:
        """Raises ConfigError: the file of certificates isn't there, of which the libraries say less."""
        file = self._trusted() if self._settings.verify is True else self._settings.verify
        if isinstance(file, str) and self.endpoint.startswith("https:") and not os.access(file, os.R_OK):
            named = "ca" if self._settings.verify is not True else "AWS_CA_BUNDLE, REQUESTS_CA_BUNDLE or ca_bundle"
            raise ConfigError(
                f"{self._settings.label}: {file}, which {named} names, is no file of certificates that can be read here"
            )

    def _trusted(self) -> bool | str:
        """As botocore's clients find it."""
        return self._core.get_config_variable("ca_bundle") or True

    def _url(self) -> str:
        """Of the bucket, as this addressing has it."""
        with self.translated("", "signing"):
            signed = self.s3.generate_presigned_url("get_object", {"Bucket": self._settings.bucket, "Key": "x"})
        return _without_default_port(str(signed).partition("?")[0].removesuffix("/x"))

    @property
    def url(self) -> str:
        """Of the bucket; a key follows after "/"."""
        return self.wire.url

    # -- the server's clock ---------------------------------------------------------------------

    def _answered(self, http_response: Any, **_: object) -> None:
        self._heard(http_response.headers)

    def _heard(self, headers: Mapping[str, str]) -> None:
        """Of each answer, errors too."""
        header = headers.get("date")
        if header and header != self._header:
            with suppress(ValueError):  # it tells no time
                self._seen, self._header = (moment(header).timestamp(), self._clock.boottime()), header

    def date(self) -> float:
        """Never later than the server's own clock, as long as ours runs no faster."""
        if self._seen is None:
            with self.translated("", "HeadBucket"):
                self.s3.head_bucket(Bucket=self._settings.bucket)
        if self._seen is None:
            raise Unavailable(f"{self._settings.label}: {self.endpoint} gives no date in its answers")
        date, at = self._seen
        return date + self._clock.boottime() - at

    def close(self) -> None:
        self.s3.close()
        self.patient.close()
        if self._wire is not None:
            self._wire.close()


def _config(settings: BucketSettings, addressing: str, patience: float) -> Any:
    return Config(
        signature_version="s3v4",
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": addressing, "payload_signing_enabled": False, **settings.ways()},
        max_pool_connections=settings.max_connections,
        retries={"total_max_attempts": 1},
        connect_timeout=CONNECT,
        read_timeout=patience,
        tcp_keepalive=True,
        parameter_validation=False,
        user_agent_extra=f"zotctl/{__version__}",
    )


def _credentials(settings: BucketSettings) -> dict[str, str | None]:
    if not settings.access_key:
        return {}
    return {
        "aws_access_key_id": settings.access_key,
        "aws_secret_access_key": settings.secret_key or "",
        "aws_session_token": settings.session_token,
    }


def _session(settings: BucketSettings) -> Any:
    trusted = ("ca_bundle", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"], None, None)
    session = Session(profile=settings.profile, session_vars={"ca_bundle": trusted})
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=moment)
    return session


_is_label = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", re.ASCII).fullmatch
"""Of a host's name, with a certificate for it: no dots, no capitals."""


def _states(session: Any) -> list[tuple[int, int, int] | None]:
    """Of the files that credentials may be in."""
    found: list[tuple[int, int, int] | None] = []
    for name in ("credentials_file", "config_file"):
        try:
            info = os.stat(os.path.expanduser(session.get_config_variable(name)))
            found.append((info.st_ino, info.st_mtime_ns, info.st_size))
        except (OSError, TypeError):
            found.append(None)
    return found


def _is_amazon(url: str) -> bool:
    host = url.partition("://")[2].partition("/")[0].partition(":")[0]
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))


def moment(text: str) -> datetime:
    """botocore's own takes 60 µs for what every reply has, which is an HTTP date or an ISO time."""
    try:
        found = parsedate_to_datetime(text) if text[3:4] == "," else datetime.fromisoformat(text)
    except ValueError:
        found = parse_timestamp(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _told_region(reply: Mapping[str, Any]) -> str:
    """Amazon has a header for it; others say it in their words alone, some of them in those of any error."""
    said = reply["Error"]
    words = said.get("Region", "") if said["Code"] == "AuthorizationHeaderMalformed" else ""
    return str(reply["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region") or words)


def _without_default_port(url: str) -> str:
    """A Host that is signed must be the one that arrives, and some clients and proxies leave such a port out."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.removesuffix(":443" if parts.scheme == "https" else ":80")).geturl()


def _way_out(error: Exception) -> str:
    """What the library doesn't say of an endpoint: AWS_ENDPOINT_URL_S3 is read by no other module before it."""
    return "; write it as http://HOST:PORT or https://HOST" if "Invalid endpoint" in str(error) else ""
