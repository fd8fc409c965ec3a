"""Translates zot's configuration file, JSON, YAML or TOML, into a `Document`: each key of zot's with its rule.

The rules are those of zot's loader (pkg/cli/server/root.go): keys in any case, an unknown one is a mistake,
durations are Go's or whole nanoseconds. What is disabled is never warned about or refused. `ConfigReader` checks the
values later, and names zot's keys in its messages, because the origins do."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from zotctl.config import zot_s3
from zotctl.config.layers import Document
from zotctl.config.problems import Problems
from zotctl.config.zot_rules import (
    Keys,
    Rule,
    Translation,
    ZotValue,
    disabled,
    duration,
    each,
    enabled_if_empty,
    group,
    into,
    passed_over,
    refused,
    switch,
    text,
    to,
    unsafe,
    warned,
)

NO_DATABASE = warned("ignored: there is no database here, and none is needed")
ONE_THREAD = (
    "ignored: the jobs inside `serve` work in one thread, so that requests don't feel them; by hand there is --workers"
)
OTHER_METRICS = "honoured, but the metrics are others than zot's, with names of their own: zotctl_*"
NOT_STORAGE = warned("ignored: not a part of zotctl")

KEEP: Keys = {
    "pulledWithin": to("pulled_within", duration),
    "pushedWithin": to("pushed_within", duration),
    "mostRecentlyPulledCount": to("most_recently_pulled_count"),
    "mostRecentlyPushedCount": to("most_recently_pushed_count"),
}
POLICY: Keys = {
    "repositories": to("repositories"),
    "deleteReferrers": to("delete_referrers"),
    "deleteUntagged": to("delete_untagged"),
    "keepTags": each("keep_tags", {"patterns": to("patterns"), **KEEP}),
    "keepUntagged": into("keep_untagged", KEEP),
}
RETENTION: Keys = {
    "dryRun": to("dry_run"),
    "delay": to("delay", duration),
    "policies": each("policies", POLICY),
}


STORE: Keys = {
    "rootDirectory": to("path"),
    "dedupe": to("dedupe"),
    "commit": to("commit"),
    "gc": to("gc"),
    "gcDelay": to("gc_delay", duration),
    "gcInterval": to("gc_interval", duration),
    "gcTimeWindow": to("gc_time_window", text),
    "retention": into("retention", RETENTION),
    "maxRepos": passed_over,
    "redirectBlobURL": refused("blobs of a local directory can't be redirected; remove the key"),
    "storageDriver": zot_s3.other_driver,
    "cacheDriver": NO_DATABASE,
    "remoteCache": NO_DATABASE,
}
ON_S3: Keys = {
    **STORE,
    "rootDirectory": warned("ignored: with S3 only zot's cache.db lies there"),
    "dedupe": zot_s3.dedupe,
    "redirectBlobURL": zot_s3.redirect,
    "storageDriver": zot_s3.driver,
}
"""The keys of a store that lies in a bucket."""


def _store(translation: Translation, found: ZotValue, more: Keys) -> None:
    """Translate `storage`, or one of `subPaths`; `more`: keys that only this table has."""
    on_s3 = zot_s3.is_on_s3(found.value)
    said = f"{found.key}.storageDriver" if on_s3 else f"{found.key}.rootDirectory"
    translation.document.note(f"{found.path}.path", "", translation.where(said))
    translation.walk({**(ON_S3 if on_s3 else STORE), **more}, found)


def _sub_paths(translation: Translation, found: ZotValue) -> None:
    """The first component of a name chooses the root; a name of one component lies in the main root."""
    routes: list[dict[str, Any]] = translation.document.values["storage"].setdefault("routes", [])
    if not isinstance(found.value, dict):
        return translation.problems.mistake(translation.where(found.key), f"{found.value!r} is not a table")
    for name, value in found.value.items():
        if value is not None:
            _sub_path(translation, f'{found.key}["{name}"]', name.lower(), value, routes)


def _sub_path(translation: Translation, key: str, name: str, value: object, routes: list[dict[str, Any]]) -> None:
    if not re.fullmatch("/[^/]+", name):
        return translation.problems.mistake(
            translation.where(key), "matches no name in zot: a slash and one component; correct or remove it"
        )
    path = f"storage.routes[{len(routes)}]"
    root: dict[str, Any] = {}
    routes.append({"prefix": f"{name[1:]}/", "root": root})
    translation.document.note(f"{path}.prefix", "", translation.where(key))
    _store(translation, ZotValue(key, value, root, f"{path}.root"), {})
    translation.default(root, f"{path}.root", gc=False, dedupe=False, commit=False, gc_untagged="all")


def _max_repos(translation: Translation, found: ZotValue) -> None:
    """Honoured: our key is one of the whole store."""
    storage = translation.document.values["storage"]
    translation.set(ZotValue(found.key, None, storage, "storage"), "max_repos", found.value)


OF_STORAGE: Keys = {"subPaths": _sub_paths, "maxRepos": _max_repos, "fastRestart": NO_DATABASE}


def _idle(translation: Translation, found: ZotValue) -> object:
    translation.problems.warn(
        translation.where(found.key), "taken as the time without progress; a transfer that moves is never cut"
    )
    return duration(translation, found)


def _port(_: Translation, found: ZotValue) -> object:
    return 0 if found.value == "" else found.value


def _method(_: Translation, found: ZotValue) -> object:
    return found.value.upper() if isinstance(found.value, str) else found.value


BY_PROXY = (
    "zotctl does not log users in this way; remove the key, put a proxy in front that does (oauth2-proxy, Authelia, "
    "nginx), and let it name the user: trusted_proxies and user_header of zotctl's own file"
)
CONDITIONS = "zotctl does not evaluate conditions, and without them more would be allowed; write the policy without it"


def _seconds(_: Translation, found: ZotValue) -> object:
    """zot counts whole seconds here."""
    if isinstance(found.value, int) and not isinstance(found.value, bool):
        return f"{found.value}s" if found.value > 0 else "0s"
    return found.value


def _says_something(value: object) -> bool:
    """zot's loader sees values alone: a table without any, however deep, is not there."""
    if isinstance(value, dict):
        return any(_says_something(inner) for inner in value.values())
    return value is not None


def _keyed(name: str, keys: Keys, key: str) -> Rule:
    """Honoured: a table of tables, each under a name of the user's; ours is a list that has the name as `key`.

    zot's loader makes all keys of tables lower case, names of the user's as well, and nothing else.
    """

    def rule(translation: Translation, found: ZotValue) -> None:
        if not isinstance(found.value, dict):
            return translation.problems.mistake(translation.where(found.key), f"{found.value!r} is not a table")
        for written, value in found.value.items():
            if not _says_something(value):
                said = f'{found.key}["{written}"]'
                translation.problems.warn(translation.where(said), "ignored, as by zot: there is no value in it")
                continue
            tables = found.table.setdefault(name, [])
            said, path = f'{found.key}["{written}"]', f"{found.path}.{name}[{len(tables)}]"
            table: dict[str, Any] = {}
            tables.append(table)
            translation.set(ZotValue(said, written, table, path), key, written.lower())
            translation.walk(keys, ZotValue(said, value, table, path))

    return rule


AUTH: Keys = {
    "htpasswd": group({"path": to("htpasswd", text)}),
    "failDelay": to("fail_delay", _seconds),
    "mtls": into(
        "mtls",
        {
            "identityAttributes": to("identity_attributes"),
            "uriSanPattern": to("uri_san_pattern", text),
            "uriSanIndex": to("uri_san_index"),
            "dnsSanIndex": to("dns_san_index"),
            "emailSanIndex": to("email_san_index"),
        },
    ),
    "bearer": into(
        "bearer",
        {
            "realm": to("realm"),
            "service": to("service"),
            "cert": to("cert", text),
            "oidc": unsafe(BY_PROXY),
            "upstreamTokenEndpoint": unsafe("there is no token service in zotctl; let realm name it"),
            "awsSecretsManager": unsafe("write the public key to a file, and name it as cert"),
        },
    ),
    **{name: unsafe(BY_PROXY) for name in ("ldap", "openid", "apikey", "sessionDriver")},
    **dict.fromkeys(("sessionKeysFile", "secureSession"), warned("ignored: there are no sessions")),
}
ACCESS_POLICY: Keys = {
    "users": to("users"),
    "groups": to("groups"),
    "actions": to("actions"),
    "conditions": unsafe(CONDITIONS),
}
REPOSITORY_ACCESS: Keys = {
    "policies": each("policies", ACCESS_POLICY),
    "defaultPolicy": to("default_policy"),
    "anonymousPolicy": to("anonymous_policy"),
}
ACCESS_CONTROL: Keys = {
    "repositories": _keyed("repositories", REPOSITORY_ACCESS, "pattern"),
    "adminPolicy": into("admin_policy", ACCESS_POLICY),
    "groups": _keyed("groups", {"users": to("users")}, "name"),
    "metrics": into("metrics", {"users": to("users"), "anonymousPolicy": to("anonymous_policy")}),
}


def _access_control(translation: Translation, found: ZotValue) -> None:
    """A table that says something refuses what it does not allow."""
    into("access_control", ACCESS_CONTROL)(translation, found)
    if _says_something(found.value):
        found.table.setdefault("access_control", {})


def _auth(translation: Translation, found: ZotValue) -> None:
    """zot looks at no audience of a token."""
    into("auth", AUTH)(translation, found)
    auth = found.table.get("auth")
    if isinstance(auth, dict) and isinstance(bearer := auth.get("bearer"), dict):
        translation.default(bearer, f"{found.path}.auth.bearer", check_audience=False)


METHOD: Keys = {"method": to("method", _method), "rate": to("rate")}
HTTP: Keys = {
    "address": to("address"),
    "port": to("port", _port),
    "externalUrl": to("external_url", text),
    "allowOrigin": to("allow_origin", text),
    "readTimeout": to("body_timeout", _idle),
    "writeTimeout": to("write_timeout", _idle),
    "tls": into("tls", {"cert": to("cert", text), "key": to("key", text), "cacert": to("client_ca", text)}),
    "auth": _auth,
    "accessControl": _access_control,
    "realm": to("realm", text),
    "ratelimit": into(
        "rate_limit",
        {
            "rate": to("rate"),
            "methods": each("methods", METHOD),
        },
    ),
    "compat": to("compat"),
}

LEVELS = {"trace": "debug", "warn": "warning", "fatal": "error", "panic": "error"}


def _level(_: Translation, found: ZotValue) -> object:
    return LEVELS.get(found.value, found.value) if isinstance(found.value, str) else found.value


LOG: Keys = {"level": to("level", _level), "output": to("output", text), "audit": to("audit", text)}

SCRUB: Keys = {"enable": switch, "interval": to("interval", duration)}


def _section(translation: Translation, found: ZotValue, name: str, keys: Keys, **defaults: object) -> bool:
    """Translate an extension that is a top-level table here. False: it is disabled, so there is no table."""
    if disabled(found.value):
        return False
    table: dict[str, Any] = {}
    translation.document.values[name] = table
    translation.walk(keys, ZotValue(found.key, found.value, table, name))
    translation.default(table, name, **defaults)
    return True


def _scrub(translation: Translation, found: ZotValue) -> None:
    _section(translation, found, "scrub", SCRUB, interval="24h")


METRICS: Keys = {"enable": switch, "prometheus": group({"path": to("path", text)})}


def _metrics(translation: Translation, found: ZotValue) -> None:
    """Warns, since the metrics have our names: a dashboard for zot's metrics stays empty."""
    if _section(translation, found, "metrics", METRICS, enabled=True):
        translation.problems.warn(translation.where(found.key), OTHER_METRICS)


def _ui(translation: Translation, found: ZotValue) -> None:
    """Whether there is a page at /. Ours is there unless the file says that it shall not be."""
    http = translation.document.values.setdefault("http", {})
    translation.walk({"enable": switch}, replace(found, table=http))
    translation.set(replace(found, table=http, path="http"), "ui", not disabled(found.value))


EXTENSIONS: Keys = {
    "metrics": enabled_if_empty(_metrics),
    "scrub": enabled_if_empty(_scrub),
    "search": enabled_if_empty(NOT_STORAGE),
    "ui": enabled_if_empty(_ui),
    "trust": enabled_if_empty(NOT_STORAGE),
    "mgmt": NOT_STORAGE,
    "apikey": NOT_STORAGE,
    "events": warned("ignored: no event is sent"),
    "lint": unsafe("this version can't keep such pushes out; check before the push, and remove the key"),
    "sync": unsafe(
        "its clients expect content from upstream; copy that with another tool and remove the key, or serve what is "
        "here with --ignore-sync"
    ),
}


def _members(translation: Translation, found: ZotValue) -> None:
    if isinstance(found.value, list) and len(found.value) > 1:
        unsafe("remove it, and point all nodes at the same storage")(translation, found)


CLUSTER: Keys = {"members": _members, "hashKey": passed_over, "tls": passed_over}


def _storage(translation: Translation, found: ZotValue) -> None:
    path = "storage.roots[0]"
    root: dict[str, Any] = {}
    translation.document.values["storage"] = {"roots": [root]}
    _store(translation, ZotValue(found.key, found.value, root, path), OF_STORAGE)
    translation.default(root, path, gc_untagged="all")


TOP: Keys = {
    "distSpecVersion": passed_over,
    "storage": _storage,
    "http": into("http", HTTP),
    "log": into("log", LOG),
    "extensions": group(EXTENSIONS),
    "scheduler": group({"numWorkers": warned(ONE_THREAD)}),
    "cluster": group(CLUSTER),
}


def is_zot(values: dict[str, Any]) -> bool:
    """Whether a TOML file is zot's: it has `distSpecVersion`, `storage.rootDirectory` or `storage.storageDriver`, which
    a file of ours never has."""
    top = {key.lower(): value for key, value in values.items()}
    storage = top.get("storage")
    return "distspecversion" in top or (
        isinstance(storage, dict) and any(key.lower() in ("rootdirectory", "storagedriver") for key in storage)
    )


def read_zot(file: str, values: dict[str, Any], problems: Problems) -> Document:
    """Translate a parsed file of zot's; mistakes and warnings are added to `problems`."""
    translation = Translation(file, Document(), problems)
    document = translation.document
    translation.walk(TOP, ZotValue("", values, document.values, ""))
    if "storage" not in document.values:
        problems.mistake(translation.where("storage.rootDirectory"), "is missing")
    translation.default(document.values.setdefault("http", {}), "http", port=8080)
    translation.default(document.values.setdefault("log", {}), "log", level="debug")
    return document
