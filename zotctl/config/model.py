"""What a configuration holds. Each key is described here once: its kind, its default, its meaning.

From these classes come the check of the files, the names in the environment, what `serve --show-config`
prints, and zotctl.toml(5).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from zotctl.config.s3 import S3Config
from zotctl.config.schema import Key, Table, Tables
from zotctl.config.values import (
    BOOLEAN,
    DURATION,
    ENDPOINT,
    PATH,
    PATTERN,
    PORT,
    RATE,
    ROOT,
    SIZE,
    TEXT,
    TIMEOUT,
    WINDOW,
    Kind,
    TimeWindow,
    choice,
    integer,
    words,
)
from zotctl.errors import NameInvalid
from zotctl.oci.reference import parse_name

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
    most_recently_pulled_count: Annotated[int, Key(COUNT, "Among so many that were pulled last.")] = 0
    most_recently_pushed_count: Annotated[int, Key(COUNT, "Among so many that were pushed last.")] = 0


@dataclass(frozen=True, slots=True)
class KeepTags(Keep):
    """What it keeps of the tags that match."""

    patterns: Annotated[tuple[str, ...], Key(words(PATTERN), "Regular expressions of tags; none means all.")] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """What stays in the repositories that it is for."""

    repositories: Annotated[
        tuple[str, ...], Key(words(), "Globs of repositories; the first policy that matches decides alone.")
    ] = ()
    delete_referrers: Annotated[
        bool, Key(BOOLEAN, "Delete referrers, and signatures by tag, of a manifest that is gone.")
    ] = False
    delete_untagged: Annotated[bool, Key(BOOLEAN, "Delete manifests that no tag and no index leads to.")] = True
    keep_tags: Annotated[
        tuple[KeepTags, ...],
        Key(
            Tables(KeepTags),
            "Which tags stay; a tag that no entry matches goes. Tags that name a digest (cosign's sha256-HEX.sig, the "
            "referrers tag sha256-HEX) stay with the manifest that they are about, and count nowhere.",
        ),
    ] = ()
    keep_untagged: Annotated[Keep | None, Key(Table(Keep), "Which untagged manifests stay.")] = None


@dataclass(frozen=True, slots=True)
class Retention:
    """Which tags and manifests stay in a root."""

    dry_run: Annotated[bool, Key(BOOLEAN, "Log what would go, and delete nothing.")] = False
    delay: Annotated[
        float | None, Key(DURATION, "Age of untagged manifests and referrers before they go.", "gc_delay")
    ] = None
    policies: Annotated[tuple[Policy, ...], Key(Tables(Policy), "The policies, in order.")] = ()


@dataclass(frozen=True, slots=True)
class RootSettings:
    """How one root is treated. Written in [storage], a key holds for each root that doesn't say otherwise."""

    create: Annotated[
        bool,
        Key(
            BOOLEAN,
            "Make the directory, or take an empty one. Without it an empty directory is refused: a share "
            "that is not mounted looks like that. A bucket is never made, and may be empty.",
        ),
    ] = False
    commit: Annotated[bool, Key(BOOLEAN, "Flush files and directories to the disk before a push is answered.")] = False
    dedupe: Annotated[
        bool,
        Key(
            BOOLEAN,
            "Keep equal blobs of several repositories once: in a directory by hard links, in a bucket in _blobs, where "
            "other tools don't look for them.",
            "true; of a bucket false",
        ),
    ] = True
    gc: Annotated[bool, Key(BOOLEAN, "Collect what no manifest reaches, while serving.")] = True
    gc_untagged: Annotated[
        str,
        Key(
            choice("pushed", "all", "none"),
            "Manifests without a tag that may be collected: those pushed here, all, none.",
        ),
    ] = "pushed"
    gc_delay: Annotated[float, Key(DURATION, "How long content stays after nothing reaches it.")] = 3600.0
    gc_interval: Annotated[float, Key(DURATION, "Time between two collections; 0s: once.")] = 3600.0
    gc_time_window: Annotated[
        TimeWindow | None, Key(WINDOW, "Part of the day, in UTC, in which a collection may begin.")
    ] = None
    trash: Annotated[float | None, Key(DURATION, "How long collected content can be restored.", "gc_delay")] = None
    retention: Annotated[Retention | None, Key(Table(Retention), "Which tags and manifests stay.")] = None
    min_free: Annotated[
        int | None,
        Key(SIZE, "Refuse uploads when less space than this is free.", "twice the reserve for deletes"),
    ] = None
    s3: Annotated[
        S3Config | None,
        Key(Table(S3Config, layered=True), "How a bucket is reached; only for roots that are s3://BUCKET/PREFIX."),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RootConfig(RootSettings):
    """One directory of repositories, or one bucket."""

    path: Annotated[str, Key(ROOT, "The directory, or s3://BUCKET/PREFIX.")]


DEFAULT_ROOT = RootConfig(path="./registry", create=True)


@dataclass(frozen=True, slots=True)
class Route:
    """Where new repositories below a prefix go."""

    prefix: Annotated[
        str,
        Key(
            PREFIX,
            "Leading components of names: 'a/b' takes 'a/b' and all below it, 'a/b/' only what is below it. "
            "The longest that fits wins.",
        ),
    ]
    root: Annotated[
        RootConfig, Key(Table(RootConfig, short="path"), "The root: a path or address, or a table as in roots.")
    ]


@dataclass(frozen=True, slots=True)
class LayoutConfig:
    """One image layout, served alone and never written."""

    path: Annotated[str, Key(PATH, "The directory with oci-layout and index.json.")]
    name: Annotated[str, Key(NAME, "The name of its repository.")]


@dataclass(frozen=True, slots=True)
class StorageConfig:
    roots: Annotated[
        tuple[RootConfig, ...],
        Key(
            Tables(RootConfig, short="path"),
            "The roots: paths, addresses of buckets (s3://BUCKET/PREFIX), or tables. A new repository goes by its "
            "route, else to the first root. The keys of a root but path may stand in [storage] too, and hold for all "
            "roots.",
            "./registry, created",
        ),
    ] = (DEFAULT_ROOT,)
    routes: Annotated[
        tuple[Route, ...],
        Key(
            Tables(Route),
            "Roots for the repositories below a prefix. What has a route goes on while other roots are away.",
        ),
    ] = ()
    single_layout: Annotated[
        LayoutConfig | None, Key(Table(LayoutConfig), "Serve this one image layout, read-only, and no root.")
    ] = None
    read_only: Annotated[bool, Key(BOOLEAN, "Write nothing, refuse every push and delete.")] = False


@dataclass(frozen=True, slots=True)
class TlsConfig:
    cert: Annotated[str, Key(PATH, "The certificate chain, PEM.")]
    key: Annotated[str, Key(PATH, "Its private key, PEM.")]
    cacert: Annotated[
        str | None, Key(PATH, "Authorities, PEM: a client certificate, if one is given, must come from them.")
    ] = None


@dataclass(frozen=True, slots=True)
class MethodRate:
    method: Annotated[str, Key(choice("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"), "The method.")]
    rate: Annotated[float, Key(RATE, "Requests a second.")]


@dataclass(frozen=True, slots=True)
class RateLimit:
    rate: Annotated[float | None, Key(RATE, "Requests a second, of all clients together.")] = None
    methods: Annotated[tuple[MethodRate, ...], Key(Tables(MethodRate), "Limits of single methods.")] = ()


def default_workers() -> int:
    """One process for each core this process may use, at most 4."""
    return min(len(os.sched_getaffinity(0)), 4)


@dataclass(frozen=True, slots=True)
class HttpConfig:
    address: Annotated[str, Key(TEXT, "Name or address to listen on; '' and '::' are all of them.")] = "127.0.0.1"
    port: Annotated[int, Key(PORT, "Port, as number or text; 0: a free one.")] = 5000
    workers: Annotated[int, Key(integer(1, 256), "Number of processes.", "one for each core, at most 4")] = field(
        default_factory=default_workers
    )
    tls: Annotated[TlsConfig | None, Key(Table(TlsConfig), "Serve HTTPS.")] = None
    max_manifest_size: Annotated[int, Key(SIZE, "Greatest manifest that is accepted.")] = 4 << 20
    max_tags: Annotated[int, Key(integer(1), "Most tags that one push of a manifest may set.")] = 46
    header_timeout: Annotated[float, Key(TIMEOUT, "Time for the head of a request.")] = 10.0
    body_timeout: Annotated[float, Key(TIMEOUT, "Time without progress in the body of a request.")] = 60.0
    write_timeout: Annotated[float, Key(TIMEOUT, "Time without progress in sending an answer.")] = 60.0
    idle_timeout: Annotated[float, Key(TIMEOUT, "Time that a connection may wait for its next request.")] = 75.0
    drain: Annotated[float, Key(DURATION, "Time for requests under way to end after SIGTERM.")] = 30.0
    compat: Annotated[
        frozenset[str], Key(words(choice("docker2s2"), frozenset), "Manifests to accept beside those of OCI.")
    ] = frozenset()
    delete: Annotated[bool, Key(BOOLEAN, "Let clients delete tags, manifests and blobs.")] = True
    rate_limit: Annotated[RateLimit | None, Key(Table(RateLimit), "Answer 429 above a rate.")] = None
    allow_origin: Annotated[
        str | None, Key(TEXT, "The origin whose pages may read answers (CORS); '*' is every one.")
    ] = None
    external_url: Annotated[
        str | None, Key(TEXT, "The URL by which clients reach this server, for the locations it answers.")
    ] = None
    referrers_page: Annotated[int, Key(integer(1), "Most referrers in one answer.")] = 1000


@dataclass(frozen=True, slots=True)
class ScrubConfig:
    interval: Annotated[
        float | None, Key(TIMEOUT, "Check every blob once in this time, spread over it, while serving.", "never")
    ] = None
    rate: Annotated[int | None, Key(SIZE, "Read at most so many bytes a second.", "20MiB")] = 20 << 20


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    enabled: Annotated[bool, Key(BOOLEAN, "Answer with metrics, as Prometheus reads them, to everybody.")] = False
    path: Annotated[str, Key(ENDPOINT, "Where they are answered.")] = "/metrics"


@dataclass(frozen=True, slots=True)
class LogConfig:
    level: Annotated[str, Key(choice("debug", "info", "warning", "error"), "The least that is logged.")] = "info"
    output: Annotated[str | None, Key(PATH, "File for the log, reopened on SIGHUP.", "standard error")] = None
    format: Annotated[str, Key(choice("auto", "json", "text"), "auto: text on a terminal, else lines of JSON.")] = (
        "auto"
    )
    audit: Annotated[str | None, Key(PATH, "File with a line for each write and who asked for it.", "none")] = None


@dataclass(frozen=True, slots=True)
class Source:
    """What a configuration was made of: enough to read it again."""

    path: str | None = None
    flags: Mapping[str, object] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    serving: bool = True
    waived: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Config:
    """A whole configuration. `origins` tells by path where a value was said; the rest are defaults."""

    storage: Annotated[StorageConfig, Key(Table(StorageConfig), "What is served.")] = StorageConfig()
    http: Annotated[HttpConfig, Key(Table(HttpConfig), "How it is served.")] = field(default_factory=HttpConfig)
    scrub: Annotated[ScrubConfig, Key(Table(ScrubConfig), "Checking content while serving.")] = ScrubConfig()
    metrics: Annotated[MetricsConfig, Key(Table(MetricsConfig), "What is counted while serving.")] = MetricsConfig()
    log: Annotated[LogConfig, Key(Table(LogConfig), "What is logged, and where.")] = LogConfig()
    origins: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    source: Source = field(default_factory=Source)
