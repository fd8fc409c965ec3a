"""What a configuration holds. Each key is described here once: its kind, its default, its meaning.

From these classes come the check of the files, the names in the environment, what `serve --show-config`
prints, and zotctl.toml(5)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from zotctl.config.schema import (
    BOOLEAN,
    CERTIFICATE_ATTRIBUTE,
    DURATION,
    ENDPOINT,
    FIELD_NAME,
    GLOB,
    NETWORK,
    PATH,
    PATTERN,
    PORT,
    RATE,
    ROOT,
    SECRET,
    SIZE,
    TEXT,
    TIMEOUT,
    URL,
    USER,
    WINDOW,
    IPNetwork,
    Key,
    Kind,
    Table,
    Tables,
    TimeWindow,
    choice,
    integer,
    parse_duration,
    words,
)
from zotctl.errors import NameInvalid
from zotctl.oci.reference import parse_name

LONGEST_URL_S = 7 * 86400
"""AWS signs a URL for no longer."""
LEAST_UPLOAD_MEMORY_BYTES = 64 << 20
CANNED_ACLS = (
    "private", "public-read", "public-read-write", "aws-exec-read", "authenticated-read", "bucket-owner-read",
    "bucket-owner-full-control",
)  # fmt: skip


def _lifetime(value: object) -> float:
    if not 1 <= (seconds := parse_duration(value)) <= LONGEST_URL_S:
        raise ValueError(f"{value!r} is outside of '1s' to '7d', for which a URL can be signed")
    return seconds


def _memory(value: object) -> int:
    size: int = SIZE.read(value)
    if size < LEAST_UPLOAD_MEMORY_BYTES:
        raise ValueError(f"{value!r} is less than {SIZE.show(LEAST_UPLOAD_MEMORY_BYTES)}, which two uploads need")
    return size


LIFETIME = Kind("duration", _lifetime, show=lambda seconds: f"{seconds:g}s")
MEMORY = Kind("size", _memory, show=SIZE.show)


@dataclass(frozen=True, slots=True)
class S3Config:
    """One object store."""

    endpoint: Annotated[
        str | None,
        Key(URL, "The server, if it is not AWS: http://HOST:PORT.", "AWS_ENDPOINT_URL_S3, or else AWS"),
    ] = None
    region: Annotated[str | None, Key(TEXT, "The region.", "AWS_REGION, the profile, or else us-east-1")] = None
    access_key: Annotated[
        str | None, Key(TEXT, "The access key. Without it: AWS_ACCESS_KEY_ID, ~/.aws, or the role.")
    ] = None
    secret_key: Annotated[
        str | None, Key(SECRET, "The secret key. It is never shown; prefer AWS_SECRET_ACCESS_KEY or ~/.aws.")
    ] = field(default=None, repr=False)
    session_token: Annotated[str | None, Key(SECRET, "The session token of temporary keys.")] = field(
        default=None, repr=False
    )
    profile: Annotated[str | None, Key(TEXT, "The profile in ~/.aws.", "AWS_PROFILE")] = None
    addressing: Annotated[
        str,
        Key(
            choice("auto", "path", "virtual"),
            "Where a URL names the bucket: in the path or in the host name. auto: in the path if an endpoint is set.",
        ),
    ] = "auto"
    dual_stack: Annotated[
        bool, Key(BOOLEAN, "Use the dual-stack endpoint of AWS, which supports IPv6.", "AWS_USE_DUALSTACK_ENDPOINT")
    ] = False
    accelerate: Annotated[
        bool, Key(BOOLEAN, "Use Transfer Acceleration of AWS, which must be enabled for the bucket.")
    ] = False
    ca: Annotated[
        str | None,
        Key(
            PATH,
            "Certificate authorities, PEM, that the endpoint is checked against.",
            "AWS_CA_BUNDLE, or else the system's",
        ),
    ] = None
    insecure: Annotated[bool, Key(BOOLEAN, "Accept any certificate of the endpoint.")] = False
    storage_class: Annotated[
        str | None, Key(TEXT, "Storage class of new objects, such as STANDARD_IA.", "the bucket's")
    ] = None
    encryption: Annotated[
        str | None,
        Key(choice("AES256", "aws:kms", "aws:kms:dsse"), "Encryption by the object store.", "the bucket's"),
    ] = None
    kms_key: Annotated[str | None, Key(TEXT, "The key for aws:kms.", "the account's")] = None
    acl: Annotated[
        str | None,
        Key(choice(*CANNED_ACLS), "Canned ACL of new objects.", "the bucket's"),
    ] = None
    redirect: Annotated[
        bool,
        Key(
            BOOLEAN,
            "Answer a GET of a blob of 64 KiB or more with a signed URL of the bucket, so that its bytes do not pass "
            "through this server. Clients must be able to reach the endpoint.",
        ),
    ] = False
    redirect_lifetime: Annotated[float, Key(LIFETIME, "How long such a URL is valid.")] = 600.0
    single_writer: Annotated[
        bool,
        Key(
            BOOLEAN,
            "Only one process writes to this bucket: for object stores without conditional writes, on which two "
            "writers would lose each other's pushes. The server then has one worker, and jobs that write run only "
            "while no server does. ZOTCTL_SINGLE_WRITER sets it too.",
        ),
    ] = False
    upload_memory: Annotated[int, Key(MEMORY, "Memory of each process for uploads in progress.")] = 256 << 20
    max_connections: Annotated[int, Key(integer(1, 10_000), "Connections of each process to the object store.")] = 64


COUNT = integer(0)


def _name(value: object) -> str:
    try:
        return parse_name(str(value))
    except NameInvalid as error:
        raise ValueError(error.message) from None


def _prefix(value: object) -> str:
    return _name(str(value).removesuffix("/")) and str(value)


NAME = Kind("name", _name)
PREFIX = Kind("name", _prefix)


@dataclass(frozen=True, slots=True)
class Keep:
    """What a retention policy keeps: a manifest stays if any of the rules holds."""

    pulled_within: Annotated[float | None, Key(DURATION, "Pulled within this time.")] = None
    pushed_within: Annotated[float | None, Key(DURATION, "Pushed within this time.")] = None
    most_recently_pulled_count: Annotated[int, Key(COUNT, "Among this many tags that were pulled last.")] = 0
    most_recently_pushed_count: Annotated[int, Key(COUNT, "Among this many tags that were pushed last.")] = 0


@dataclass(frozen=True, slots=True)
class KeepTags(Keep):
    """What a policy keeps of the tags that match."""

    patterns: Annotated[tuple[str, ...], Key(words(PATTERN), "Regular expressions for tags; none means all tags.")] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """What stays in the repositories that match."""

    repositories: Annotated[
        tuple[str, ...], Key(words(GLOB), "Globs of repositories; the first policy that matches decides alone.")
    ] = ()
    delete_referrers: Annotated[
        bool, Key(BOOLEAN, "Delete the referrers of a deleted manifest, and the signatures that a tag attaches to it.")
    ] = False
    delete_untagged: Annotated[bool, Key(BOOLEAN, "Delete manifests that no tag and no index references.")] = True
    keep_tags: Annotated[
        tuple[KeepTags, ...],
        Key(
            Tables(KeepTags),
            "Which tags stay; a tag that no entry matches is deleted. Tags that name a digest (cosign's "
            "sha256-HEX.sig, the referrers tag sha256-HEX) stay with the manifest that they name, and are not counted.",
        ),
    ] = ()
    keep_untagged: Annotated[Keep | None, Key(Table(Keep), "Which untagged manifests stay.")] = None


@dataclass(frozen=True, slots=True)
class Retention:
    """Which tags and manifests stay in a root."""

    dry_run: Annotated[bool, Key(BOOLEAN, "Log what would be deleted, and delete nothing.")] = False
    delay: Annotated[
        float | None,
        Key(DURATION, "How old untagged manifests and referrers must be before they are deleted.", "gc_delay"),
    ] = None
    policies: Annotated[tuple[Policy, ...], Key(Tables(Policy), "The policies, in order.")] = ()


@dataclass(frozen=True, slots=True)
class RootSettings:
    """Settings of one root. In [storage], a key applies to each root that does not set it."""

    create: Annotated[
        bool,
        Key(
            BOOLEAN,
            "Create the directory if it does not exist, and accept an empty one. Otherwise an empty directory is "
            "refused: a share that is not mounted looks empty. A bucket is never created, and may be empty.",
        ),
    ] = False
    commit: Annotated[bool, Key(BOOLEAN, "Flush files and directories to disk before answering a push.")] = False
    dedupe: Annotated[
        bool,
        Key(
            BOOLEAN,
            "Store equal blobs of several repositories once: in a directory by hard links, in a bucket in _blobs, "
            "where other tools do not look for them.",
            "true; of a bucket false",
        ),
    ] = True
    gc: Annotated[bool, Key(BOOLEAN, "Collect unreachable content while serving.")] = True
    gc_untagged: Annotated[
        str,
        Key(
            choice("none", "pushed", "all"),
            "Which manifests without a tag are deleted a delay after the push, or the loss of the last tag: none, those"
            " that were pushed here, or all. Where retention policies are set, they decide, and 'all' only adds"
            " manifests that other tools wrote.",
        ),
    ] = "none"
    gc_delay: Annotated[float, Key(DURATION, "How long unreachable content is kept.")] = 3600.0
    gc_interval: Annotated[float, Key(DURATION, "Time between two collections; 0s: collect once.")] = 3600.0
    gc_time_window: Annotated[
        TimeWindow | None, Key(WINDOW, "Part of the day, in UTC, in which a collection may start.")
    ] = None
    trash: Annotated[float | None, Key(DURATION, "How long collected content can be restored.", "gc_delay")] = None
    retention: Annotated[Retention | None, Key(Table(Retention), "Which tags and manifests stay.")] = None
    min_free: Annotated[
        int | None,
        Key(SIZE, "Refuse uploads when less space than this is free.", "twice the reserve for deletes"),
    ] = None
    s3: Annotated[
        S3Config | None,
        Key(Table(S3Config, layered=True), "How to reach a bucket; only for roots that are s3://BUCKET/PREFIX."),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RootConfig(RootSettings):
    """One directory of repositories, or one bucket."""

    path: Annotated[str, Key(ROOT, "The directory, or s3://BUCKET/PREFIX.")]


DEFAULT_ROOT = RootConfig(path="./registry", create=True)


@dataclass(frozen=True, slots=True)
class Route:
    """The root for new repositories below a prefix."""

    prefix: Annotated[
        str,
        Key(
            PREFIX,
            "Leading components of names: 'a/b' matches 'a/b' and all names below it, 'a/b/' only the names below it. "
            "The longest match wins.",
        ),
    ]
    root: Annotated[
        RootConfig, Key(Table(RootConfig, short="path"), "The root: a path or address, or a table as in roots.")
    ]


@dataclass(frozen=True, slots=True)
class Quota:
    """How many bytes the repositories below a prefix may have together. [[storage.quotas]]"""

    prefix: Annotated[
        str,
        Key(PREFIX, "Leading components of names: 'a/b' is for 'a/b' and all names below it, 'a/b/' only for those."),
    ]
    bytes: Annotated[int, Key(SIZE, "The limit; what several repositories share counts once.")]


@dataclass(frozen=True, slots=True)
class LayoutConfig:
    """One image layout, served alone and never written."""

    path: Annotated[str, Key(PATH, "The directory with oci-layout and index.json, or a tar of it.")]
    name: Annotated[str, Key(NAME, "The name of its repository.")]


@dataclass(frozen=True, slots=True)
class StorageConfig:
    """The roots of a server, and which repository goes where. [storage]"""

    roots: Annotated[
        tuple[RootConfig, ...],
        Key(
            Tables(RootConfig, short="path"),
            "The roots: paths of directories (or of tars of layouts, which are only read), addresses of buckets "
            "(s3://BUCKET/PREFIX), or tables. A new repository goes to the root of its route, or else to the first "
            "root. All keys of a root except path may also stand in [storage], where they apply to every root.",
            "./registry, which is created",
        ),
    ] = (DEFAULT_ROOT,)
    routes: Annotated[
        tuple[Route, ...],
        Key(
            Tables(Route),
            "Roots for the repositories below a prefix. They stay available while other roots are away.",
        ),
    ] = ()
    single_layout: Annotated[
        LayoutConfig | None, Key(Table(LayoutConfig), "Serve this one image layout, read-only, instead of roots.")
    ] = None
    quotas: Annotated[
        tuple[Quota, ...],
        Key(Tables(Quota), "Limits on bytes: a push of a manifest that exceeds one is refused, with the numbers."),
    ] = ()
    max_repos: Annotated[int, Key(COUNT, "How many repositories there may be; 0: any number.")] = 0
    read_only: Annotated[bool, Key(BOOLEAN, "Write nothing, and refuse every push and delete.")] = False

    @property
    def every_root(self) -> tuple[RootConfig, ...]:
        """The roots, and those of routes."""
        return (*self.roots, *(route.root for route in self.routes))


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """The certificate of the server. [http.tls]"""

    cert: Annotated[str, Key(PATH, "The certificate chain, PEM.")]
    key: Annotated[str, Key(PATH, "Its private key, PEM.")]
    client_ca: Annotated[
        str | None,
        Key(
            PATH,
            "Certificate authorities, PEM, whose client certificates identify users. A request without a certificate "
            "needs another way in, or an anonymous policy.",
        ),
    ] = None
    client_auth: Annotated[
        str,
        Key(
            choice("optional", "required"),
            "optional: clients without a certificate may connect; required: they may not. Needs client_ca.",
        ),
    ] = "optional"


@dataclass(frozen=True, slots=True)
class MethodRate:
    """How often one method may be called. [[http.rate_limit.methods]]"""

    method: Annotated[str, Key(choice("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"), "The method.")]
    rate: Annotated[float, Key(RATE, "Requests per second.")]


@dataclass(frozen=True, slots=True)
class RateLimit:
    """How many requests a second are answered, by all workers together. [http.rate_limit]"""

    rate: Annotated[float | None, Key(RATE, "Requests per second, for all clients together.")] = None
    client_rate: Annotated[float | None, Key(RATE, "Requests per second, for each client address.")] = None
    methods: Annotated[tuple[MethodRate, ...], Key(Tables(MethodRate), "Limits for single methods.")] = ()


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """What one client may have under way in all workers of a server. [http.limits]

    A client is a user, or the address of a client without a login (of IPv6, a /64).
    """

    uploads_per_client: Annotated[
        int,
        Key(COUNT, "Uploads of blobs that are open at once. One to which nothing is sent for a minute does not count."),
    ] = 0
    bytes_per_client: Annotated[
        int, Key(SIZE, "Bytes of blobs that are being sent at once. A single upload is accepted at any size.")
    ] = 0


ACTIONS = ("read", "create", "update", "delete", "detectManifestCollision")
"""What an access policy can allow; the words are zot's."""
_ACTION_LIST = words(choice(*ACTIONS), frozenset)
_NAME_LIST = words(USER, frozenset)


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """What some users and groups may do. A user or group that two policies name may do what either allows."""

    users: Annotated[frozenset[str], Key(_NAME_LIST, "Names of users.")] = frozenset()
    groups: Annotated[frozenset[str], Key(_NAME_LIST, "Names of groups.")] = frozenset()
    actions: Annotated[
        frozenset[str],
        Key(
            _ACTION_LIST,
            "read: pull and list; create: push blobs, manifests and new tags; update: move tags; delete: delete tags, "
            "manifests and blobs; detectManifestCollision: refuse to delete a manifest that has several tags.",
        ),
    ] = frozenset()


@dataclass(frozen=True, slots=True)
class RepositoryAccess:
    """Who may do what in the repositories that match. [[http.access_control.repositories]]"""

    pattern: Annotated[
        str, Key(GLOB, "Glob of repositories: * within a component, ** across them. The longest match decides alone.")
    ]
    policies: Annotated[tuple[AccessPolicy, ...], Key(Tables(AccessPolicy), "What users and groups may do.")] = ()
    default_policy: Annotated[frozenset[str], Key(_ACTION_LIST, "Actions of every user who is logged in.")] = (
        frozenset()
    )
    anonymous_policy: Annotated[frozenset[str], Key(_ACTION_LIST, "Actions of clients without a login.")] = frozenset()


@dataclass(frozen=True, slots=True)
class UserGroup:
    """A name for several users. [[http.access_control.groups]]"""

    name: Annotated[str, Key(USER, "The name, as policies have it.")]
    users: Annotated[frozenset[str], Key(_NAME_LIST, "Names of users.")] = frozenset()


@dataclass(frozen=True, slots=True)
class MetricsAccess:
    """Who may read the metrics. [http.access_control.metrics]"""

    users: Annotated[frozenset[str], Key(_NAME_LIST, "Names of users.")] = frozenset()
    anonymous_policy: Annotated[frozenset[str], Key(_ACTION_LIST, "With read, clients without a login.")] = frozenset()


@dataclass(frozen=True, slots=True)
class AccessControl:
    """Who may do what. Without this table, users who are logged in may do everything. [http.access_control]"""

    repositories: Annotated[
        tuple[RepositoryAccess, ...],
        Key(Tables(RepositoryAccess), "Policies by glob. What no policy allows is refused."),
    ] = ()
    admin_policy: Annotated[
        AccessPolicy | None, Key(Table(AccessPolicy), "What administrators may do in every repository.")
    ] = None
    groups: Annotated[tuple[UserGroup, ...], Key(Tables(UserGroup), "Groups of users.")] = ()
    metrics: Annotated[
        MetricsAccess, Key(Table(MetricsAccess), "Who may read the metrics, if access is controlled.")
    ] = MetricsAccess()


@dataclass(frozen=True, slots=True)
class CertificateConfig:
    """Which part of a client certificate names the user. [http.auth.mtls]"""

    identity_attributes: Annotated[
        tuple[str, ...],
        Key(
            words(CERTIFICATE_ATTRIBUTE),
            "Attributes in the order in which they are tried: CommonName, Subject, Email, URI, DNSName.",
        ),
    ] = ("CommonName",)
    uri_san_pattern: Annotated[
        str | None, Key(PATTERN, "Regular expression for a URI; the name is its first group.", "the whole URI")
    ] = None
    uri_san_index: Annotated[int, Key(COUNT, "Which URI of the certificate, from 0.")] = 0
    dns_san_index: Annotated[int, Key(COUNT, "Which DNS name of the certificate, from 0.")] = 0
    email_san_index: Annotated[int, Key(COUNT, "Which e-mail address of the certificate, from 0.")] = 0


@dataclass(frozen=True, slots=True)
class BearerConfig:
    """Tokens of an authorization service: distribution's token authentication. [http.auth.bearer]"""

    realm: Annotated[str, Key(URL, "The URL at which clients get tokens.")]
    service: Annotated[str, Key(TEXT, "The name of this registry at that service, the audience of its tokens.")]
    issuer: Annotated[str | None, Key(TEXT, "The issuer that tokens must name.", "any")] = None
    cert: Annotated[
        str | None, Key(PATH, "The public key or certificate, PEM, that tokens are signed with; or give jwks.")
    ] = None
    jwks: Annotated[str | None, Key(PATH, "A JSON Web Key Set with the public keys; or give cert.")] = None
    check_audience: Annotated[
        bool, Key(BOOLEAN, "Refuse tokens whose audience is not the service.", "true; of zot's file false")
    ] = True


@dataclass(frozen=True, slots=True)
class AuthConfig:
    """The ways to log in. Without any of them every client may do what access_control allows. [http.auth]"""

    htpasswd: Annotated[
        str | None, Key(PATH, "File of users and their passwords, hashed by bcrypt: htpasswd -B. Read again on change.")
    ] = None
    fail_delay: Annotated[float, Key(DURATION, "How long a refused login waits for its answer.")] = 0.0
    mtls: Annotated[CertificateConfig, Key(Table(CertificateConfig), "How client certificates name users.")] = (
        CertificateConfig()
    )
    bearer: Annotated[BearerConfig | None, Key(Table(BearerConfig), "Let in clients with signed tokens.")] = None


def default_workers() -> int:
    """One process for each core this process may use, at most 4."""
    return min(len(os.sched_getaffinity(0)), 4)


@dataclass(frozen=True, slots=True)
class HttpConfig:
    """Where to listen, and what clients may do. [http]"""

    address: Annotated[str, Key(TEXT, "Host name or address to listen on; '' and '::' mean all addresses.")] = (
        "127.0.0.1"
    )
    port: Annotated[int, Key(PORT, "Port, as a number or a string; 0: any free port.")] = 5000
    workers: Annotated[int, Key(integer(1, 256), "Number of worker processes.", "one per core, at most 4")] = field(
        default_factory=default_workers
    )
    tls: Annotated[TlsConfig | None, Key(Table(TlsConfig), "Serve HTTPS.")] = None
    auth: Annotated[AuthConfig, Key(Table(AuthConfig), "How users log in.")] = AuthConfig()
    access_control: Annotated[AccessControl | None, Key(Table(AccessControl), "What users may do.")] = None
    realm: Annotated[str, Key(TEXT, "What a client shows when it asks for a password.")] = "zotctl"
    trusted_proxies: Annotated[
        tuple[IPNetwork, ...],
        Key(
            words(NETWORK),
            "Addresses and networks of proxies whose Forwarded or X-Forwarded-For header names the client.",
        ),
    ] = ()
    user_header: Annotated[
        str | None,
        Key(FIELD_NAME, "Header in which trusted proxies name the user, who is then logged in.", "none"),
    ] = None
    max_manifest_size: Annotated[int, Key(SIZE, "Largest manifest that is accepted.")] = 4 << 20
    max_tags: Annotated[int, Key(integer(1), "How many tags one push of a manifest may set.")] = 46
    header_timeout: Annotated[float, Key(TIMEOUT, "Time in which the header of a request must arrive.")] = 10.0
    body_timeout: Annotated[float, Key(TIMEOUT, "Longest time without progress in the body of a request.")] = 60.0
    write_timeout: Annotated[float, Key(TIMEOUT, "Longest time without progress in sending an answer.")] = 60.0
    idle_timeout: Annotated[float, Key(TIMEOUT, "How long a connection may wait for its next request.")] = 75.0
    drain: Annotated[float, Key(DURATION, "How long requests in progress may take to finish after SIGTERM.")] = 30.0
    compat: Annotated[
        frozenset[str], Key(words(choice("docker2s2"), frozenset), "Formats of manifests to accept besides OCI.")
    ] = frozenset()
    delete: Annotated[bool, Key(BOOLEAN, "Let clients delete tags, manifests and blobs.")] = True
    rate_limit: Annotated[RateLimit | None, Key(Table(RateLimit), "Answer 429 above a rate.")] = None
    limits: Annotated[
        UploadLimits, Key(Table(UploadLimits), "Answer 429 to a client that has more under way; 0: no limit.")
    ] = UploadLimits()
    allow_origin: Annotated[
        str | None, Key(TEXT, "The origin whose pages may read answers (CORS); '*' allows every origin.")
    ] = None
    external_url: Annotated[
        str | None, Key(TEXT, "The URL under which clients reach this server, for Location headers.")
    ] = None
    referrers_page: Annotated[int, Key(integer(1), "How many referrers one answer may list.")] = 1000
    ui: Annotated[bool, Key(BOOLEAN, "Answer browsers at / with a read-only page for people.")] = True


@dataclass(frozen=True, slots=True)
class ScrubConfig:
    """How often `serve` hashes what is stored. [scrub]"""

    interval: Annotated[
        float | None, Key(TIMEOUT, "Hash every blob once in this time, evenly spread, while serving.", "never")
    ] = None
    rate: Annotated[int | None, Key(SIZE, "Bytes to read per second at most.", "20MiB")] = 20 << 20


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """Whether and where Prometheus reads metrics. [metrics]"""

    enabled: Annotated[bool, Key(BOOLEAN, "Serve metrics in the text format of Prometheus, to every client.")] = False
    path: Annotated[str, Key(ENDPOINT, "The path of the metrics.")] = "/metrics"


@dataclass(frozen=True, slots=True)
class LogConfig:
    """What is logged, and where to. [log]"""

    level: Annotated[str, Key(choice("debug", "info", "warning", "error"), "The lowest level that is logged.")] = "info"
    output: Annotated[str | None, Key(PATH, "File for the log, reopened on SIGHUP.", "standard error")] = None
    format: Annotated[
        str, Key(choice("auto", "json", "text"), "auto: text on a terminal, otherwise lines of JSON.")
    ] = "auto"
    audit: Annotated[
        str | None,
        Key(
            PATH,
            "File with a line for each write, each refusal, each tag that is moved or removed and each delete, by "
            "clients and by jobs; gc and import-layout append to it, too.",
            "none",
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class Source:
    """The sources of a configuration: enough to load it again."""

    path: str | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    serving: bool = True
    waived: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Config:
    """A complete configuration. `origins` says by path where a value was set; the others are defaults."""

    storage: Annotated[StorageConfig, Key(Table(StorageConfig), "What to serve.")] = StorageConfig()
    http: Annotated[HttpConfig, Key(Table(HttpConfig), "How to serve it.")] = field(default_factory=HttpConfig)
    scrub: Annotated[ScrubConfig, Key(Table(ScrubConfig), "Checks of content while serving.")] = ScrubConfig()
    metrics: Annotated[MetricsConfig, Key(Table(MetricsConfig), "Metrics of the server.")] = MetricsConfig()
    log: Annotated[LogConfig, Key(Table(LogConfig), "What to log, and where.")] = LogConfig()
    origins: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    source: Source = field(default_factory=Source)
