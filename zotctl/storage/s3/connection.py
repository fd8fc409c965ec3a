"""boto3 as this registry wants it (s3.md 8), and the only module that imports it: a second that only users of
buckets pay.

Its own retries are off: they would report 412 for a conditional write of ours that was done. Checksums are ours, too.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any, NamedTuple

import boto3  # type: ignore[import-untyped]
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]
from botocore.httpsession import URLLib3Session  # type: ignore[import-untyped]
from botocore.session import Session  # type: ignore[import-untyped]
from botocore.utils import get_environ_proxies, parse_timestamp  # type: ignore[import-untyped]

from zotctl import __version__
from zotctl.errors import ConfigError, PermissionRefused
from zotctl.storage.clock import Clock
from zotctl.storage.s3.settings import BucketSettings
from zotctl.storage.s3.signing import Identity
from zotctl.storage.s3.translation import WAY_OUT, Where, translated

CONNECT, READ = 5.0, 60.0
"""Seconds without a byte before a request is given up."""
LONG_READ = 900.0
"""For what a server may do in silence: a copy, or making one object of 10,000 parts."""
DEFAULT_REGION = "us-east-1"


class Reply(NamedTuple):
    status: int
    body: bytes


class Connection:
    """One bucket's clients, which threads share. `s3` for all calls, `patient` for those that take long."""

    def __init__(self, settings: BucketSettings, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        try:
            self._session = boto3.session.Session(**_credentials(settings), botocore_session=_session(settings))
            self._region = settings.region or self._session.region_name or DEFAULT_REGION
            addressing = self._addressing()
            self.s3 = self._client(addressing, READ)
            self.patient = self._client(addressing, LONG_READ)
        except (BotoCoreError, ValueError) as error:
            raise ConfigError(f"{settings.label}: {error}{_way_out(error)}") from error
        self.endpoint = str(self.s3.meta.endpoint_url)
        self._seen: tuple[float, float] | None = None
        self._header = ""
        self._http = URLLib3Session(
            verify=settings.verify,
            proxies=get_environ_proxies(self.endpoint),
            timeout=(CONNECT, READ),
            max_pool_connections=settings.max_connections,
        )

    def _addressing(self) -> str:
        """Said outright: of "auto", botocore makes URLs of a region that may not be the bucket's."""
        settings = self._settings
        if settings.addressing != "auto":
            return settings.addressing
        endpoint = settings.endpoint or str(self._make("auto", READ).meta.endpoint_url)
        return "virtual" if _is_amazon(endpoint) and "." not in settings.bucket else "path"

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
        return Where(self._settings.label, self._settings.bucket, self.endpoint, known)

    def identity(self) -> Identity:
        """Renewed by boto3 where it is one that expires. PermissionRefused: there is none."""
        with self.translated("", "signing"):
            found = self._session.get_credentials()
            if found is None:
                raise PermissionRefused(f"{self._settings.label}: no credentials for {self.endpoint}; {WAY_OUT}")
            frozen = found.get_frozen_credentials()
            return Identity(frozen.access_key, frozen.secret_key, frozen.token, self._region)

    # -- the server's clock ---------------------------------------------------------------------

    def _answered(self, http_response: Any, **_: object) -> None:
        """Each reply, errors too."""
        header = http_response.headers.get("date")
        if header and header != self._header:
            self._seen, self._header = (moment(header).timestamp(), self._clock.boottime()), header

    def date(self) -> float:
        """Never later than the server's own clock, as long as ours runs no faster."""
        if self._seen is None:
            with self.translated("", "HeadBucket"):
                self.s3.head_bucket(Bucket=self._settings.bucket)
        assert self._seen is not None
        date, at = self._seen
        return date + self._clock.boottime() - at

    # -- requests that were signed before -------------------------------------------------------

    def send(self, method: str, url: str, headers: dict[str, str], body: bytes) -> Reply:
        """Raises what botocore raises."""
        answer = self._http.send(AWSRequest(method, url, data=body, headers=headers).prepare())
        self._answered(answer)
        return Reply(answer.status_code, answer.content)

    @cached_property
    def url(self) -> str:
        """Of the bucket, as this addressing has it; a key follows after "/"."""
        with self.translated("", "signing"):
            signed = self.s3.generate_presigned_url("get_object", {"Bucket": self._settings.bucket, "Key": "x"})
        return str(signed).partition("?")[0].removesuffix("/x")

    def close(self) -> None:
        self.s3.close()
        self.patient.close()
        self._http.close()


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
    session = Session(profile=settings.profile)
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=moment)
    return session


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


def _way_out(error: Exception) -> str:
    """What the library doesn't say of an endpoint: AWS_ENDPOINT_URL_S3 is looked at by nobody before it."""
    return "; write it as http://HOST:PORT or https://HOST" if "Invalid endpoint" in str(error) else ""
