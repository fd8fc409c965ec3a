"""The connection to a bucket: its address, credentials and certificates, as botocore finds them.

The only module that imports botocore, which takes most of a second that only users of buckets pay. botocore itself
makes no request to the bucket: its retries would report 412 for a conditional write of ours that was done.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

from botocore import UNSIGNED  # type: ignore[import-untyped]
from botocore import exceptions as boto
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.httpsession import get_cert_path  # type: ignore[import-untyped]
from botocore.session import Session  # type: ignore[import-untyped]
from urllib3.exceptions import HTTPError

from zotctl.config.watched import FileState, file_state
from zotctl.errors import Changed, ConfigError, NotFound, PermissionRefused, StorageError, Unavailable
from zotctl.storage.bucket.objects.errors import SLOW_CODES, Where, broken, refused
from zotctl.storage.bucket.objects.replies import ErrorReply, parse_time
from zotctl.storage.bucket.objects.requests import Reply, Wire
from zotctl.storage.bucket.objects.signing import Credentials
from zotctl.storage.clock import Clock

if TYPE_CHECKING:
    from zotctl.storage.bucket.objects.client import BucketSettings

CREDENTIAL_FILES_EVERY_S = 1.0
"""Seconds between two looks at the files of credentials."""
SKEW_S = 60.0
"""Seconds by which a clock may be wrong before that is a reason why a request was refused. Servers bear 900."""
DEFAULT_REGION = "us-east-1"
NO_IDENTITY = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.TokenRetrievalError,
    boto.SSOError,
)
WAY_OUT = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or access_key and secret_key in the configuration"
)


class BucketConnection:
    """The connection to one bucket. Safe between threads. A request that went to the wrong region is sent again to the
    bucket's own, and one that was signed by a clock that is wrong, by the server's."""

    def __init__(self, settings: BucketSettings, clock: Clock) -> None:
        """Asks nothing of the bucket. Raises ConfigError: the settings, or what the environment says, can't be used."""
        self._settings, self._clock = settings, clock
        self._lock = threading.Lock()
        self._heard: tuple[str, float, float] | None = None
        """The last Date of the server, as text and in seconds, and when it came by our clock."""
        self._behind = 0.0
        """Seconds by which this machine's clock is behind the server's, as far as that mattered."""
        try:
            self._who = _Chain(settings, clock)
            region = settings.region or self._who.session.get_config_variable("region") or DEFAULT_REGION
            self.wire, self.endpoint = self._connect(region)
        except (boto.BotoCoreError, HTTPError, ValueError) as error:
            raise ConfigError(f"{settings.label}: {error}{_way_out(error)}") from error

    def _connect(self, region: str) -> tuple[Wire, str]:
        settings = self._settings
        place = locate(settings, region, self._who.session)
        wire = Wire(
            place.url,
            region,
            self.identity,
            self._answered,
            self._now,
            trusted=self._trusted(place.endpoint),
            proxy=_proxy(place.url),
            connections=settings.max_connections,
        )
        return wire, place.endpoint

    def _trusted(self, endpoint: str) -> str | None:
        """The file of certificates. Raises ConfigError: it isn't there, of which the libraries say less."""
        said = self._settings.verify
        if said is False:
            return None
        named = "ca" if said is not True else "AWS_CA_BUNDLE, REQUESTS_CA_BUNDLE or ca_bundle"
        file = said if said is not True else self._who.session.get_config_variable("ca_bundle")
        if not file:
            return str(get_cert_path(True))  # whom botocore itself trusts
        if endpoint.startswith("https:") and not os.access(file, os.R_OK):
            raise ConfigError(
                f"{self._settings.label}: {file}, which {named} names, is no file of certificates that can be read here"
            )
        return str(file)

    # -- requests -------------------------------------------------------------------------------

    def ask(self, method: str, path: str, **asked: Any) -> Reply:
        """See `Wire.ask`, whose errors it raises beside those of `identity`."""
        wire, signed = self.wire, self._now()
        try:
            return wire.ask(method, path, **asked)
        except ErrorReply as reply:
            if not (self._moved(wire, reply.region) or self._was_skewed(reply, signed)):
                raise
        return self.wire.ask(method, path, **asked)

    def _moved(self, wire: Wire, region: str) -> bool:
        """Follow a bucket to the region that the server names. False also if that can't be one."""
        with self._lock:
            if region and region != self.wire.region:
                with suppress(boto.BotoCoreError, HTTPError, ValueError):
                    self.wire, self.endpoint = self._connect(region)
            return self.wire is not wire

    def _now(self) -> float:
        """The time that a request is signed with."""
        return time.time() + self._behind

    def _was_skewed(self, reply: ErrorReply, signed: float) -> bool:
        """Was a request refused because of the time that it was `signed` with? Then the next are signed by the server's
        clock. By now another thread may have learnt that, or this machine's clock have been set."""
        if self._heard is None or reply.code not in ("RequestTimeTooSkewed", "403"):  # a HEAD's has no words
            return False
        now = self.date()
        if abs(now - signed) < SKEW_S:
            return False
        self._behind = now - time.time()
        return True

    @contextmanager
    def translated(self, key: str, operation: str, *, write: bool = False, match: str = "") -> Iterator[None]:
        """Raises a StorageError for whatever goes wrong inside. `operation`, as S3 calls it, on one object. `match`:
        there must be an object with this ETag."""
        try:
            yield
        except ErrorReply as reply:
            error = refused(self.where(), key, operation, reply, write=write)
            raise (Changed(error.message) if match and isinstance(error, NotFound) else error) from reply
        except (HTTPError, HTTPException, OSError) as broke:
            raise broken(self.where(), key, operation, broke, write=write) from broke

    def where(self) -> Where:
        """The bucket and the credentials, for messages."""
        return Where(self._settings.label, self._settings.bucket, self.endpoint, self._who.name, self.wire.region)

    # -- who we are -----------------------------------------------------------------------------

    def identity(self) -> Credentials:
        """Renewed by botocore where it is one that expires. PermissionRefused: there is none. Unavailable: the service
        that gives it is away, or what it gives is over. In all cases nothing was asked of the bucket."""
        try:
            found = self._who.current()
        except (boto.BotoCoreError, boto.ClientError, OSError, RuntimeError) as error:  # the last: "still expired"
            raise self._unidentified(f" ({error})", error) from error
        if found is None:
            raise self._unidentified("")
        return found

    def _unidentified(self, reason: str, error: Exception | None = None) -> StorageError:
        text = f"{self._settings.label}: no credentials for {self.endpoint}{reason}"
        if error is None or isinstance(error, NO_IDENTITY) or not _is_passing(error):
            return PermissionRefused(f"{text}; {WAY_OUT}")
        return Unavailable(text)

    # -- the server's clock ---------------------------------------------------------------------

    def _answered(self, headers: Mapping[str, str]) -> None:
        """Note the server's clock from the headers of an answer, even of an error."""
        date = headers.get("date")
        if date and (self._heard is None or date != self._heard[0]):
            with suppress(ValueError):  # it tells no time
                self._heard = date, parse_time(date), self._clock.boottime()

    def date(self) -> float:
        """The server's clock, seconds since 1970: never later than it is there, as long as ours runs no faster."""
        if self._heard is None:
            with self.translated("", "HeadBucket"):
                self.ask("HEAD", "")
        if self._heard is None:
            raise Unavailable(f"{self._settings.label}: {self.endpoint} gives no date in its answers")
        _, date, at = self._heard
        return date + self._clock.boottime() - at

    def close(self) -> None:
        """Close what is not in use."""
        self.wire.close()


# -- who we are -----------------------------------------------------------------------------------


class _Chain:
    """botocore's chain of credentials: environment, profile, web identity, the role of the machine. For threads that
    share it."""

    def __init__(self, settings: BucketSettings, clock: Clock) -> None:
        self._settings, self._clock, self._lock = settings, clock, threading.Lock()
        self.session, self.name = _prepared_session(settings) or _session(settings), "no identity"
        if settings.access_key:
            self.session.set_credentials(settings.access_key, settings.secret_key or "", settings.session_token)
        self._files, self._looked = _states(self.session), clock.elapsed()

    def current(self) -> Credentials | None:
        """None: there is none. Raises BotoCoreError, and RuntimeError where new ones have expired already."""
        self._take_up()
        found = self.session.get_credentials()
        if found is None:
            return None
        frozen = found.get_frozen_credentials()
        self.name = f"the identity {frozen.access_key}"
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token)

    def _take_up(self) -> None:
        """Credentials that were replaced in their file, which is looked at once a second: botocore reads it once. What
        can't be read, or names none, is half written: the old ones stay until the next look."""
        now = self._clock.elapsed()
        if self._settings.access_key or now - self._looked < CREDENTIAL_FILES_EVERY_S:
            return
        with self._lock:
            state, self._looked = _states(self.session), now
            if state != self._files:
                with suppress(boto.BotoCoreError):
                    fresh = _session(self._settings)
                    if fresh.get_credentials() is not None:
                        self.session, self._files = fresh, state


def prepare(settings: BucketSettings) -> None:
    """Before processes are forked: make what each needs to find its credentials, so that they share the memory of it.
    Asks no one for anything. What is wrong with the settings, the process that uses them says."""
    with suppress(boto.BotoCoreError, OSError, ValueError):
        session = _session(settings)
        files = _states(session)
        if not settings.access_key:
            session.get_component("credential_provider")
        get_cert_path(True)
        "localhost".encode("idna")  # the first address of a process loads tables for it
        _prepared[settings.profile] = session, files


_prepared: dict[str | None, tuple[Any, list[FileState | None]]] = {}
"""By profile: a session, and its files before it read them."""


def _prepared_session(settings: BucketSettings) -> Any | None:
    """Once in a process, for a session keeps the credentials that it is given. None also if its files are others by
    now: a process may be forked long after it was made."""
    session, files = _prepared.pop(settings.profile, (None, []))
    return session if session is not None and _states(session) == files else None


def _session(settings: BucketSettings) -> Any:
    variables = {
        "region": ("region", ["AWS_REGION", "AWS_DEFAULT_REGION"], None, None),
        "ca_bundle": ("ca_bundle", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"], None, None),
        ENDPOINT_VARIABLE: ("", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"], None, None),
    }
    return Session(profile=settings.profile, session_vars=variables)


def _states(session: Any) -> list[FileState | None]:
    """Of the files that credentials may be in."""
    found: list[FileState | None] = []
    for name in ("credentials_file", "config_file"):
        try:
            found.append(file_state(os.path.expanduser(session.get_config_variable(name))))
        except (OSError, TypeError):
            found.append(None)
    return found


def _is_passing(error: Exception) -> bool:
    """May credentials be given another time? Yes where there was no answer, but for a certificate that is not
    trusted, and where the service was overloaded."""
    if not isinstance(error, boto.ClientError):
        return "CERTIFICATE_VERIFY_FAILED" not in str(error)
    said = error.response
    status, code = said.get("ResponseMetadata", {}).get("HTTPStatusCode", 0), said.get("Error", {}).get("Code")
    return status >= 500 or status == 429 or code in SLOW_CODES


# -- where the bucket is --------------------------------------------------------------------------

WAYS = {"use_accelerate_endpoint", "use_dualstack_endpoint", "use_arn_region"}
"""What a profile may wish of Amazon's endpoints."""
_is_plain = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?)(:\d{1,5})?/?").fullmatch
ENDPOINT_VARIABLE = "zotctl_endpoint"
"""A name for botocore's session: the endpoint, as the environment names it."""


class BucketAddress(NamedTuple):
    """`url` of the bucket; a key follows after "/"."""

    url: str
    endpoint: str


def locate(settings: BucketSettings, region: str, session: Any) -> BucketAddress:
    """Raises ValueError and BotoCoreError: there is no such endpoint."""
    return _address_in_path(settings, session) or _address_by_rules(settings, region)


def _address_in_path(settings: BucketSettings, session: Any) -> BucketAddress | None:
    """The bucket in the path of an endpoint that is named outright. botocore would give the same address, but load its
    model of S3 for it, which takes 15 MB of memory in each process. None: a case for botocore."""
    ask = session.get_config_variable
    endpoint = settings.endpoint or ("" if ask("ignore_configured_endpoint_urls") else ask(ENDPOINT_VARIABLE)) or ""
    special = settings.dual_stack or settings.accelerate or (ask("s3") or {}).keys() & WAYS
    if special or ask("use_dualstack_endpoint") or ask("use_fips_endpoint") or not _is_plain(endpoint):
        return None
    if settings.addressing != "path" and (settings.addressing != "auto" or _is_amazon(endpoint)):
        return None
    url = f"{endpoint.rstrip('/')}/{quote(settings.bucket, safe='-_.~')}"
    return BucketAddress(_without_default_port(url), endpoint)


def _address_by_rules(settings: BucketSettings, region: str) -> BucketAddress:
    """By botocore's rules: partitions, dual stack, acceleration, services of a profile. The addressing is always named:
    for "auto", botocore makes URLs of a region that may not be the bucket's.

    Only here boto3 itself is needed, which takes 3 MB more than its botocore. It adds methods to a botocore session and
    refuses to add them twice, so both clients come from one boto3 session.
    """
    import boto3.session  # type: ignore[import-untyped]

    session = boto3.session.Session(botocore_session=_session(settings))
    style = settings.addressing if settings.addressing != "auto" else "path"
    client = _client(session, settings, region, style)
    endpoint = str(client.meta.endpoint_url)
    if settings.addressing == "auto" and _is_amazon(endpoint) and _is_label(settings.bucket):
        client = _client(session, settings, region, "virtual")
    url = str(client.generate_presigned_url("get_object", {"Bucket": settings.bucket, "Key": "x"}))
    return BucketAddress(_without_default_port(url.partition("?")[0].removesuffix("/x")), endpoint)


def _client(session: Any, settings: BucketSettings, region: str, addressing: str) -> Any:
    """A client that is only asked for its address, so it has no identity. What the configuration does not ask for is
    left out, since AWS_* may ask for it."""
    wanted = {"use_dualstack_endpoint": settings.dual_stack, "use_accelerate_endpoint": settings.accelerate}
    ways = {name: True for name, value in wanted.items() if value}
    config = Config(signature_version=UNSIGNED, s3={"addressing_style": addressing, **ways})
    return session.client("s3", region_name=region, endpoint_url=settings.endpoint, config=config)


_is_label: Callable[[str], object] = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", re.ASCII).fullmatch
"""Of a host's name, with a certificate for it: no dots, no capitals."""


def _is_amazon(url: str) -> bool:
    host = url.partition("://")[2].partition("/")[0].partition(":")[0]
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))


def _without_default_port(url: str) -> str:
    """A Host that is signed must be the one that arrives, and some clients and proxies leave such a port out."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.removesuffix(":443" if parts.scheme == "https" else ":80")).geturl()


def _proxy(url: str) -> str | None:
    """As the environment names it: with or without a scheme."""
    parts = urlsplit(url)
    proxy = None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)
    if not proxy or proxy.startswith(("http:", "https:")):
        return proxy or None
    return f"http:{proxy}" if proxy.startswith("//") else f"http://{proxy}"


def _way_out(error: Exception) -> str:
    """What the library doesn't say of an endpoint: AWS_ENDPOINT_URL_S3 is read by no other module before it."""
    return "; write it as http://HOST:PORT or https://HOST" if "Invalid endpoint" in str(error) else ""
