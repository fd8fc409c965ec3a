"""zot's own file. The vectors are after the examples in zot's repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.config.reading import load, mistakes, toml, zot
from zotctl.config import Keep, KeepTags, Policy, Retention, RootConfig, load_config, reload_config

STORAGE = {"rootDirectory": "/z"}


def test_the_least(tmp_path: Path) -> None:
    config = load(zot(tmp_path, {"storage": STORAGE}))
    assert config.storage.roots == (RootConfig(path="/z", gc_untagged="all"),)
    assert (config.http.address, config.http.port, config.log.level) == ("127.0.0.1", 8080, "debug")
    assert config.origins["storage.roots[0].path"] == f"{tmp_path / 'config.json'}: storage.rootDirectory"
    assert config.origins["http.port"] == "default of zot"
    assert config.warnings == ()


def test_keys_are_taken_in_any_case_and_null_says_nothing(tmp_path: Path) -> None:
    config = load(
        zot(
            tmp_path,
            {"STORAGE": {"RootDirectory": "/z", "COMMIT": True, "gcDelay": None}, "Http": {"PORT": "0"}},
        )
    )
    assert (config.storage.roots[0].commit, config.http.port) == (True, 0)


def test_one_key_in_two_spellings_is_a_mistake(tmp_path: Path) -> None:
    file = zot(tmp_path, {"storage": STORAGE, "http": {"port": "1", "Port": "2"}})
    assert mistakes(file) == ["http.port: is there twice, in different case"]


def test_everything_that_is_honoured(tmp_path: Path) -> None:
    config = load(
        zot(
            tmp_path,
            {
                "distSpecVersion": "1.1.1",
                "storage": {**STORAGE, "dedupe": False, "gc": False, "commit": True, "gcInterval": "1h30m",
                            "gcDelay": 7_200_000_000_000, "gcTimeWindow": "01:00-08:00"},
                "http": {"address": "0.0.0.0", "port": 5000, "auth": {"htpasswd": {"path": "/users"}}, "externalUrl": "https://r.example",
                         "allowOrigin": "*", "realm": "zot", "compat": ["docker2s2"],
                         "tls": {"cert": "c", "key": "k", "cacert": ""},
                         "ratelimit": {"rate": 10, "methods": [{"method": "get", "rate": 5}]}},
                "log": {"level": "warn", "output": "/tmp/zot.log", "audit": "/tmp/audit.log"},
            },
        )
    )  # fmt: skip
    (root,) = config.storage.roots
    assert (root.dedupe, root.gc, root.commit, root.gc_delay, root.gc_interval) == (
        False,
        False,
        True,
        7200.0,
        5400.0,
    )
    assert str(root.gc_time_window) == "01:00-08:00"
    http = config.http
    assert (http.address, http.port, http.external_url, http.allow_origin) == (
        "0.0.0.0",
        5000,
        "https://r.example",
        "*",
    )
    assert http.tls is not None
    assert (http.tls.cert, http.tls.key, http.tls.client_ca, http.compat) == (
        "c",
        "k",
        None,
        frozenset({"docker2s2"}),
    )
    assert http.rate_limit is not None
    assert (http.rate_limit.rate, http.rate_limit.methods[0].method) == (10, "GET")
    assert (config.log.level, config.log.output, config.log.audit) == (
        "warning",
        "/tmp/zot.log",
        "/tmp/audit.log",
    )
    assert config.warnings == ()


def test_sub_paths_inherit_nothing(tmp_path: Path) -> None:
    sub_paths = {
        "/A": {"rootDirectory": "/s"},
        "/b": {"rootDirectory": "/t", "gc": True, "dedupe": True, "commit": True},
    }
    config = load(zot(tmp_path, {"storage": {**STORAGE, "commit": True, "subPaths": sub_paths}}))
    a, b = config.storage.routes
    assert (a.prefix, a.root) == ("a/", RootConfig(path="/s", gc=False, dedupe=False, gc_untagged="all"))
    assert (b.prefix, b.root) == ("b/", RootConfig(path="/t", commit=True, gc_untagged="all"))
    file = tmp_path / "config.json"
    assert config.origins["storage.routes[0].root.path"] == f'{file}: storage.subPaths["/A"].rootDirectory'


@pytest.mark.parametrize("name", ["/a/b", "/", "a", ""])
def test_a_sub_path_is_one_component(tmp_path: Path, name: str) -> None:
    file = zot(tmp_path, {"storage": {**STORAGE, "subPaths": {name: STORAGE}}})
    assert mistakes(file) == [
        f'storage.subPaths["{name}"]: matches no name in zot: a slash and one component; correct or remove it'
    ]


def test_retention(tmp_path: Path) -> None:
    keep = {"pulledWithin": "168h", "pushedWithin": 3_600_000_000_000, "mostRecentlyPushedCount": 10}
    policy = {"repositories": ["tmp/**"], "deleteReferrers": True, "deleteUntagged": False,
              "keepTags": [{"patterns": ["v2.*", ".*-prod"], **keep}], "keepUntagged": keep}  # fmt: skip
    file = zot(
        tmp_path,
        {"storage": {**STORAGE, "retention": {"dryRun": True, "delay": "24h", "policies": [policy, {}]}}},
    )
    config = load(file)
    kept: dict[str, Any] = {
        "pulled_within": 604800.0,
        "pushed_within": 3600.0,
        "most_recently_pushed_count": 10,
    }
    assert config.storage.roots[0].retention == Retention(
        dry_run=True,
        delay=86400.0,
        policies=(
            Policy(("tmp/**",), True, False, (KeepTags(patterns=("v2.*", ".*-prod"), **kept),), Keep(**kept)),
            Policy(),
        ),
    )
    assert config.warnings == (
        "storage.roots[0].retention.policies[1].repositories: an empty list matches no repository",
    )


def test_an_unknown_key_is_named_with_the_nearest(tmp_path: Path) -> None:
    file = zot(
        tmp_path,
        {
            "storage": {**STORAGE, "gcDelai": "1h", "subPaths": {"/a": {**STORAGE, "comit": 1}}},
            "htpp": {},
            "x": 1,
        },
    )
    assert mistakes(file) == [
        "storage.gcDelai: unknown key; nearest valid key: storage.gcDelay",
        'storage.subPaths["/a"].comit: unknown key; nearest valid key: storage.subPaths["/a"].commit',
        "htpp: unknown key; nearest valid key: http",
        "x: unknown key; valid here: distSpecVersion, storage, http, log, extensions, scheduler, cluster",
    ]


BY_PROXY = "put a proxy in front"
BEARER = {"realm": "https://a.example/token", "service": "b", "cert": "c"}
LOGIN = {"auth": {"htpasswd": {"path": "/users"}}}


@pytest.mark.parametrize(
    ("values", "key", "text"),
    [
        ({"http": {"auth": {"mtls": {"identityAttributes": ["URI"]}}}}, "http.auth.mtls.identityAttributes",
         "needs http.tls"),
        ({"http": {"auth": {"ldap": {"address": "x"}}}}, "http.auth.ldap", BY_PROXY),
        ({"http": {"auth": {"openid": {"providers": {"oidc": {}}}}}}, "http.auth.openid", BY_PROXY),
        ({"http": {"auth": {"apikey": True}}}, "http.auth.apikey", BY_PROXY),
        ({"http": {"auth": {"sessionDriver": {"name": "redis"}}}}, "http.auth.sessionDriver", BY_PROXY),
        ({"http": {"auth": {"bearer": {"realm": "https://a", "service": "b"}}}}, "http.auth.bearer.realm",
         "either cert or"),
        ({"http": {"auth": {"bearer": {**BEARER, "oidc": [{"issuer": "x"}]}}}}, "http.auth.bearer.oidc", BY_PROXY),
        ({"http": {"auth": {"bearer": {**BEARER, "awsSecretsManager": {"region": "x"}}}}},
         "http.auth.bearer.awsSecretsManager", "public key"),
        ({"http": {"accessControl": {"adminPolicy": {"users": ["root"]}}}}, "http.accessControl.adminPolicy.users",
         "no way to log in"),
        ({"http": {**LOGIN, "accessControl": {"repositories": {"**": {"policies": [{"conditions": [{}]}]}}}}},
         'http.accessControl.repositories["**"].policies[0].conditions', "does not evaluate conditions"),
        ({"http": {**LOGIN, "accessControl": {"adminPolicy": {"users": ["a"], "conditions": [{}]}}}},
         "http.accessControl.adminPolicy.conditions", "does not evaluate conditions"),
        ({"http": {**LOGIN, "accessControl": {"repositories": {"**": {"defaultPolicy": ["write"]}}}}},
         'http.accessControl.repositories["**"].defaultPolicy', "'write' is none of read, create"),
        ({"http": {**LOGIN, "accessControl": {"repositories": {"**": {"x": 1}}}}},
         'http.accessControl.repositories["**"].x', "unknown key"),
        ({"storage": {**STORAGE, "storageDriver": {"name": "s3"}}}, "storage.storageDriver.bucket", "is missing"),
        ({"storage": {**STORAGE, "storageDriver": {"name": "gcs"}}}, "storage.storageDriver", "only directories"),
        ({"storage": {**STORAGE, "storageDriver": {"name": "x"}}}, "storage.storageDriver", "is no driver of zot's"),
        ({"storage": {**STORAGE, "redirectBlobURL": True}}, "storage.redirectBlobURL", "can't be redirected"),
        ({"http": {"tls": {"cert": "c"}}}, "http.tls.key", "is missing"),
        ({"http": {"port": "70000"}}, "http.port", "70000 is outside of 0 to 65535"),
        ({"http": {"compat": ["docker1"]}}, "http.compat", "'docker1' is none of docker2s2"),
        ({"http": {"readTimeout": "0s"}}, "http.readTimeout", "a time-out of nothing"),
        ({"extensions": {"lint": {"enable": True}}}, "extensions.lint", "remove the key"),
        ({"extensions": {"sync": {"registries": [{}]}}}, "extensions.sync", "remove the key"),
        ({"cluster": {"members": ["a:1", "b:1"]}}, "cluster.members", "the same storage"),
        ({"storage": {}}, "storage.rootDirectory", "is missing"),
        ({"storage": {**STORAGE, "gcTimeWindow": "01:00-01:00"}}, "storage.gcTimeWindow", "are equal"),
        ({"storage": {**STORAGE, "gcDelay": -1}}, "storage.gcDelay", "is not a duration"),
        ({"storage": {**STORAGE, "dedupe": "yes"}}, "storage.dedupe", "neither true nor false"),
        ({"storage": {**STORAGE, "retention": {"policies": [{"keepTags": [{"patterns": ["("]}]}]}}},
         "storage.retention.policies[0].keepTags[0].patterns", "regular expression"),
        ({"storage": {**STORAGE, "retention": {"policies": 5}}}, "storage.retention.policies", "not a list"),
        ({"http": 5}, "http", "5 is not a table"),
        ({"storage": {**STORAGE, "retention": {"policies": [{"repositories": ["{a,b}" * 12]}]}}},
         "storage.retention.policies[0].repositories", "limit of 1000"),
        ({"http": {"accessControl": {"repositories": {"{1..99999999}": {"anonymousPolicy": ["read"]}}}}},
         'http.accessControl.repositories["{1..99999999}"]', "limit of 1000"),
    ],
)  # fmt: skip
def test_refused(tmp_path: Path, values: dict[str, object], key: str, text: str) -> None:
    (mistake,) = mistakes(zot(tmp_path, {"storage": STORAGE, **values}))
    assert mistake.startswith(f"{key}: "), mistake
    assert text in mistake


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"storage": {**STORAGE, "remoteCache": True}}, "storage.remoteCache"),
        ({"storage": {**STORAGE, "cacheDriver": {"name": "redis"}}}, "storage.cacheDriver"),
        ({"storage": {**STORAGE, "fastRestart": True}}, "storage.fastRestart"),
        ({"http": {"readTimeout": "2m"}}, "http.readTimeout"),
        ({"http": {"auth": {"sessionKeysFile": "x"}}}, "http.auth.sessionKeysFile"),
        ({"extensions": {"metrics": {"enable": True, "prometheus": {"path": "/m"}}}}, "extensions.metrics"),
        ({"extensions": {"metrics": {}}}, "extensions.metrics"),
        ({"extensions": {"search": {"cve": {}}}}, "extensions.search"),
        ({"extensions": {"events": {"enable": True}}}, "extensions.events"),
        ({"scheduler": {"numWorkers": 3}}, "scheduler.numWorkers"),
    ],
)
def test_warned_about_once(tmp_path: Path, values: dict[str, object], key: str) -> None:
    file = zot(tmp_path, {"storage": STORAGE, **values})
    (warning,) = load(file).warnings
    assert warning.startswith(f"{file}: {key}: ")


@pytest.mark.parametrize(
    "values",
    [
        {"http": {"auth": {"htpasswd": {"path": ""}, "ldap": None, "apikey": False, "failDelay": 5}}},
        {"http": {"accessControl": None}},
        {"http": {"tls": {}, "ratelimit": {}}},
        {"extensions": {"lint": {"enable": False}, "sync": {"Enable": False}, "search": {"enable": False}}},
        {"extensions": {"metrics": {"enable": False}, "scrub": None, "events": {"enable": False}}},
        {"cluster": {"members": ["a:1"], "hashKey": "x"}},
        {
            "storage": {
                **STORAGE,
                "remoteCache": False,
                "storageDriver": None,
                "redirectBlobURL": False,
                "maxRepos": 0,
            }
        },
        {"storage": {**STORAGE, "gc": False, "gcTimeWindow": ""}},
    ],
)
def test_what_is_disabled_is_passed_over(tmp_path: Path, values: dict[str, object]) -> None:
    assert load(zot(tmp_path, {"storage": STORAGE, **values})).warnings == ()


def test_days_are_no_unit_of_go(tmp_path: Path) -> None:
    config = load(zot(tmp_path, {"storage": {**STORAGE, "gc": False, "gcDelay": "2d"}}))
    assert config.storage.roots[0].gc_delay == 172800
    assert "zot doesn't know days" in config.warnings[0]


def test_toml_of_zot(tmp_path: Path) -> None:
    config = load(toml(tmp_path, '[storage]\nrootDirectory = "/z"\n[http]\nport = "5000"'))
    assert (config.storage.roots[0].path, config.http.port) == ("/z", 5000)


def test_options_and_the_environment_go_before_it(tmp_path: Path) -> None:
    file = zot(tmp_path, {"storage": {**STORAGE, "subPaths": {"/a": STORAGE}}})
    config = load(file, {"http.port": 5001}, {"ZOTCTL_STORAGE_COMMIT": "true", "ZOTCTL_STORAGE_CREATE": "true"})
    assert config.http.port == 5001
    assert all((root.commit, root.create) for root in (config.storage.roots[0], config.storage.routes[0].root))


@pytest.mark.parametrize(
    ("extension", "interval"),
    [({"interval": "48h"}, 172800.0), ({}, 86400.0), ({"enable": True}, 86400.0), ({"enable": False}, None)],
)
def test_the_scrub_extension(tmp_path: Path, extension: dict[str, object], interval: float | None) -> None:
    config = load(zot(tmp_path, {"storage": STORAGE, "extensions": {"scrub": extension}}))
    assert (config.scrub.interval, config.warnings) == (interval, ())


@pytest.mark.parametrize(
    ("extension", "enabled", "path"),
    [
        ({}, True, "/metrics"),
        ({"enable": True, "prometheus": {"path": "/m"}}, True, "/m"),
        ({"Prometheus": {"Path": ""}}, True, "/metrics"),
        ({"enable": False, "prometheus": {"path": "/m"}}, False, "/metrics"),
        (None, False, "/metrics"),
    ],
)
def test_the_metrics_extension(tmp_path: Path, extension: dict[str, object], enabled: bool, path: str) -> None:
    config = load(zot(tmp_path, {"storage": STORAGE, "extensions": {"metrics": extension}}))
    assert (config.metrics.enabled, config.metrics.path) == (enabled, path)
    assert len(config.warnings) == enabled, "the names are others than zot's"


def test_a_job_does_not_mind_what_only_a_server_must_not_ignore(tmp_path: Path) -> None:
    file = zot(
        tmp_path,
        {
            "storage": STORAGE,
            "http": {"auth": {"ldap": {"address": "x"}}, "accessControl": {"adminPolicy": {"users": ["root"]}}},
            "extensions": {"sync": {"enable": True}, "lint": {"enable": True}},
        },
    )
    assert len(mistakes(file)) == 4, "and that nobody could log in, either"
    assert load_config(str(file), options={}, environ={}, serving=False).storage.roots[0].path == "/z"


def test_sync_is_ignored_on_request_and_said_so(tmp_path: Path) -> None:
    file = zot(tmp_path, {"storage": STORAGE, "extensions": {"sync": {"enable": True}, "lint": {"enable": True}}})
    assert [line.split(":")[0] for line in mistakes(file)] == ["extensions.sync", "extensions.lint"]
    file = zot(tmp_path, {"storage": STORAGE, "extensions": {"sync": {"enable": True}}})
    config = load_config(str(file), options={}, environ={}, waived=["extensions.sync"])
    assert config.warnings == (f"{file}: extensions.sync: ignored, as requested",)
    assert reload_config(config) == config


@pytest.mark.parametrize("name", ["metrics", "scrub", "ui"])
@pytest.mark.parametrize("value", ["no", "fAlSe", [False]])
def test_what_neither_enables_nor_disables_is_a_mistake(tmp_path: Path, name: str, value: object) -> None:
    """There, too."""
    file = zot(tmp_path, {"storage": STORAGE, "extensions": {name: {"enable": value}}})
    assert mistakes(file) == [f"extensions.{name}.enable: {value!r} is neither true nor false"]


TRUE, FALSE = ["true", "True", "TRUE", "t", "T", "1", 1, 2.5], ["false", "False", "FALSE", "f", "F", "0", "", 0]


@pytest.mark.parametrize(("value", "is_on"), [*((one, True) for one in TRUE), *((one, False) for one in FALSE)])
def test_texts_and_numbers_that_zot_takes_for_booleans(tmp_path: Path, value: object, is_on: bool) -> None:
    """A template may have written them. "false" must not open the metrics to everybody."""
    store = {**STORAGE, "dedupe": value, "GC": value, "retention": {"dryRun": value}, "remoteCache": value}
    values = {"storage": store, "extensions": {"metrics": {"enable": value}, "scrub": {"Enable": value}}}
    config = load(zot(tmp_path, values))
    root = config.storage.roots[0]
    assert root.retention is not None and root.retention.dry_run == is_on
    assert (root.dedupe, root.gc) == (is_on, is_on)
    assert (config.metrics.enabled, config.scrub.interval is not None) == (is_on, is_on)
    assert any("remoteCache" in warning for warning in config.warnings) == is_on


@pytest.mark.parametrize(("extension", "shown"), [({"enable": True}, True), ({}, True), ({"enable": False}, False)])
@pytest.mark.parametrize("first", ["http", "extensions"])
def test_the_page_of_the_ui(tmp_path: Path, extension: dict[str, object], shown: bool, first: str) -> None:
    values = {"http": {"realm": "mine"}, "extensions": {"ui": extension}}
    ordered = dict(sorted(values.items(), reverse=first == "http"))
    config = load(zot(tmp_path, {**ordered, "storage": STORAGE}))
    assert (config.http.ui, config.http.realm, config.warnings) == (shown, "mine", ())
    assert load(zot(tmp_path, {"storage": STORAGE})).http.ui


@pytest.mark.parametrize(("value", "is_on"), [("true", True), ("false", False), (1, True), ("0", False)])
def test_texts_and_numbers_for_booleans_of_a_policy(tmp_path: Path, value: object, is_on: bool) -> None:
    policy = {"deleteReferrers": value, "deleteUntagged": value}
    root = load(zot(tmp_path, {"storage": {"rootDirectory": "/z", "retention": {"policies": [policy]}}})).storage.roots[
        0
    ]
    assert root.retention is not None
    (read,) = root.retention.policies
    assert (read.delete_referrers, read.delete_untagged) == (is_on, is_on)


def test_the_delay_of_retention_in_nanoseconds(tmp_path: Path) -> None:
    root = load(
        zot(tmp_path, {"storage": {"rootDirectory": "/z", "retention": {"delay": 86_400_000_000_000}}})
    ).storage.roots[0]
    assert root.retention is not None
    assert root.retention.delay == 86400.0


def test_each_timeout_is_its_own(tmp_path: Path) -> None:
    http = load(
        zot(tmp_path, {"storage": {"rootDirectory": "/z"}, "http": {"readTimeout": "2m", "writeTimeout": "3m"}})
    ).http
    assert (http.body_timeout, http.write_timeout) == (120.0, 180.0)
