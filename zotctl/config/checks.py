"""Checks that need the whole configuration: keys that contradict each other, and values that are probably not meant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address

from zotctl.config.address import is_bucket, parse_address
from zotctl.config.layers import within
from zotctl.config.model import AccessControl, AccessPolicy, CertificateConfig, Config, HttpConfig, RootConfig, S3Config
from zotctl.config.problems import Problems


def check_whole(config: Config, origins: Mapping[str, str], problems: Problems) -> None:
    """Add a mistake to `problems` for each contradiction, and a warning for each value that is probably not meant."""
    if not config.storage.roots and config.storage.single_layout is None:
        problems.mistake(origins.get("storage.roots", "storage.roots"), "no root; name a directory or a bucket")
    _check_routes(config, origins, problems)
    _check_access(config.http, origins, problems)
    for path, root in _roots(config):
        _check_root(path, root, origins, problems)
        if is_bucket(root.path):
            _check_bucket(f"{path}.s3", root.s3 or S3Config(), origins, problems)
            _check_acceleration(f"{path}.s3", root, origins, problems)


def _check_routes(config: Config, origins: Mapping[str, str], problems: Problems) -> None:
    prefixes = Counter(route.prefix for route in config.storage.routes)
    for i, route in enumerate(config.storage.routes):
        if prefixes[route.prefix] > 1:
            path = f"storage.routes[{i}].prefix"
            problems.mistake(origins.get(path, path), f"{route.prefix!r} has two routes")


def _check_access(http: HttpConfig, origins: Mapping[str, str], problems: Problems) -> None:
    """Check the ways to log in, and whether something needs them."""

    def where(path: str) -> str:
        return origins.get(path, path)

    auth, access, tls = http.auth, http.access_control, http.tls
    if tls is not None and tls.client_auth == "required" and tls.client_ca is None:
        problems.mistake(
            where("http.tls.client_auth"), "needs http.tls.client_ca, the authorities of such certificates"
        )
    if auth.mtls != CertificateConfig() and (tls is None or tls.client_ca is None):
        problems.mistake(_said(origins, "http.auth.mtls"), "needs http.tls with client_ca")
    if auth.bearer is not None and (auth.bearer.cert is None) == (auth.bearer.jwks is None):
        problems.mistake(
            _said(origins, "http.auth.bearer"), "give either cert or jwks, the keys that tokens are signed with"
        )
    if auth.bearer is not None and (auth.htpasswd is not None or access is not None):
        problems.warn(
            _said(origins, "http.auth.bearer"),
            "tokens alone decide: passwords are not asked for, and access_control is not looked at",
        )
    if http.user_header is not None and not http.trusted_proxies:
        problems.mistake(where("http.user_header"), "needs trusted_proxies, the addresses from which it is believed")
    if access is not None:
        _check_policies(access, origins, problems)
        if not ways_in(http) and not _only_anonymous(access):
            problems.unsafe(
                _said(origins, "http.access_control"),
                "http.access_control",
                "names users, and there is no way to log in; add http.auth.htpasswd, or another way",
            )
    if auth.htpasswd is not None and tls is None and not http.trusted_proxies and not is_loopback(http.address):
        problems.exposed(where("http.auth.htpasswd"), "passwords cross the network in the clear: there is no http.tls")


def _said(origins: Mapping[str, str], table: str) -> str:
    """Where a key of `table` was set, for a message about the table as a whole."""
    return next((origin for path, origin in origins.items() if within(path, table)), table)


def open_to_all(config: Config, reached: str) -> str | None:
    """What to say of a server that other hosts reach at `reached`. None: not everybody may do everything there."""
    http, storage = config.http, config.storage
    only_read = storage.read_only or storage.single_layout is not None
    if only_read or ways_in(http) or http.access_control is not None:
        return None
    return (
        f"ANYONE WHO CAN REACH {reached} MAY PUSH, PULL AND DELETE: it is not a loopback address, and there is neither "
        "http.auth nor http.access_control. Set one of them, or use --read-only or --listen 127.0.0.1:5000."
    )


def ways_in(http: HttpConfig) -> bool:
    """Whether users can log in at all."""
    certificates = http.tls is not None and http.tls.client_ca is not None
    return bool(http.auth.htpasswd or http.auth.bearer or http.user_header or certificates)


def is_loopback(address: str) -> bool:
    """Whether only programs on this machine reach a listener at `address`."""
    try:
        found = ip_address(address)
        return (getattr(found, "ipv4_mapped", None) or found).is_loopback
    except ValueError:
        return address == "localhost"


def _only_anonymous(access: AccessControl) -> bool:
    return access.admin_policy is None and not any(
        repository.default_policy or repository.policies for repository in access.repositories
    )


def _check_policies(access: AccessControl, origins: Mapping[str, str], problems: Problems) -> None:
    patterns = Counter(repository.pattern for repository in access.repositories)
    groups = {group.name for group in access.groups}
    for i, repository in enumerate(access.repositories):
        path = f"http.access_control.repositories[{i}]"
        if patterns[repository.pattern] > 1:
            problems.mistake(
                origins.get(f"{path}.pattern", path), f"{repository.pattern!r} has two tables of policies; join them"
            )
        for j, policy in enumerate(repository.policies):
            _check_groups(policy, f"{path}.policies[{j}].groups", groups, origins, problems)
    if access.admin_policy is not None:
        _check_groups(access.admin_policy, "http.access_control.admin_policy.groups", groups, origins, problems)


def _check_groups(
    policy: AccessPolicy, path: str, groups: set[str], origins: Mapping[str, str], problems: Problems
) -> None:
    for name in sorted(policy.groups - groups):
        problems.warn(origins.get(path, path), f"{name!r} is no group of http.access_control.groups")


def _roots(config: Config) -> list[tuple[str, RootConfig]]:
    """Every root, with the path of its table in the configuration."""
    return [
        *((f"storage.roots[{i}]", root) for i, root in enumerate(config.storage.roots)),
        *((f"storage.routes[{i}].root", route.root) for i, route in enumerate(config.storage.routes)),
    ]


def _check_root(path: str, root: RootConfig, origins: Mapping[str, str], problems: Problems) -> None:
    if root.gc and root.gc_delay < 60:
        problems.warn(origins[f"{path}.gc_delay"], "under a minute: a slow push may lose what it has sent")
    for i, policy in enumerate(root.retention.policies if root.retention else ()):
        if not policy.repositories:
            where = f"{path}.retention.policies[{i}].repositories"
            problems.warn(origins.get(where, where), "an empty list matches no repository")


def _check_bucket(path: str, s3: S3Config, origins: Mapping[str, str], problems: Problems) -> None:
    def where(name: str) -> str:
        return origins.get(f"{path}.{name}", f"{path}.{name}")

    if (s3.access_key is None) != (s3.secret_key is None):
        said, other = ("secret_key", "access_key") if s3.access_key is None else ("access_key", "secret_key")
        problems.mistake(where(said), f"is there without {other}; give both, or none and let AWS_* or ~/.aws say it")
    elif s3.session_token is not None and s3.access_key is None:
        problems.mistake(where("session_token"), "belongs to an access_key and a secret_key; give all three, or none")
    if s3.kms_key is not None and not (s3.encryption or "").startswith("aws:kms"):
        problems.mistake(where("kms_key"), 'is for encryption = "aws:kms"; write that too')
    if s3.insecure and s3.ca is not None:
        problems.warn(where("ca"), "ignored: insecure takes any certificate")


def _check_acceleration(path: str, root: RootConfig, origins: Mapping[str, str], problems: Problems) -> None:
    """Transfer Acceleration exists on AWS only, and only for buckets whose name can be part of a host name."""
    if root.s3 is None or not root.s3.accelerate:
        return
    where = origins.get(f"{path}.accelerate", f"{path}.accelerate")
    if root.s3.endpoint is not None:
        problems.mistake(where, f"is for AWS; the endpoint is {root.s3.endpoint}: leave out one of the two")
    if "." in (bucket := parse_address(root.path).bucket):
        problems.mistake(where, f"is not for buckets with a dot in their name, such as {bucket}")


def apply_single_writer(config: Config, origins: Mapping[str, str], problems: Problems) -> Config:
    """The configuration, with one worker and without collection inside `serve` if a bucket has `single_writer`.

    A larger `http.workers` that was written down is then a mistake."""
    storage = config.storage
    if not any(_has_single_writer(root) for root in storage.every_root):
        return config
    if (where := origins.get("http.workers")) and config.http.workers > 1:
        problems.mistake(where, "single_writer is for one process; write workers = 1, or leave it out")
    storage = replace(
        storage,
        roots=tuple(_without_collection(root) for root in storage.roots),
        routes=tuple(replace(route, root=_without_collection(route.root)) for route in storage.routes),
    )
    return replace(config, storage=storage, http=replace(config.http, workers=1))


def _has_single_writer(root: RootConfig) -> bool:
    return root.s3 is not None and root.s3.single_writer


def _without_collection(root: RootConfig) -> RootConfig:
    """The collection inside `serve` is a process of its own, and so would be a second writer. The operator runs
    `zotctl gc` while `serve` is down."""
    return replace(root, gc=False) if _has_single_writer(root) else root
