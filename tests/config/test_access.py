"""Who may log in and do what: the keys of our file and of zot's."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from tests.config.reading import load, mistakes, toml, zot
from zotctl.config import (
    AccessControl,
    AccessPolicy,
    BearerConfig,
    CertificateConfig,
    MetricsAccess,
    Quota,
    RepositoryAccess,
    UserGroup,
    load_config,
    show_config,
)

STORAGE = {"rootDirectory": "/z"}
READ = frozenset({"read"})


def test_limits(tmp_path: Path) -> None:
    assert load(zot(tmp_path, {"storage": {**STORAGE, "maxRepos": 5}})).storage.max_repos == 5
    text = "[storage]\nmax_repos = 3\n[[storage.quotas]]\nprefix = 'team/'\nbytes = '1GiB'\n"
    storage = load(toml(tmp_path, text)).storage
    assert (storage.max_repos, storage.quotas) == (3, (Quota("team/", 1 << 30),))
    assert "-1 is outside of 0" in mistakes(toml(tmp_path, "[storage]\nmax_repos = -1"))[0]


def test_all_keys_of_zot(tmp_path: Path) -> None:
    file = zot(
        tmp_path,
        {
            "storage": STORAGE,
            "http": {
                "realm": "images",
                "tls": {"cert": "c", "key": "k", "cacert": "ca"},
                "auth": {
                    "htpasswd": {"path": "/users"}, "failDelay": 5,
                    "mtls": {"identityAttributes": ["cn", "URI"], "uriSanPattern": "x/(.*)", "uriSanIndex": 1,
                             "dnsSanIndex": 2, "emailSanIndex": 3},
                },
                "accessControl": {
                    "repositories": {
                        "Team/**": {"policies": [{"users": ["Ann"], "groups": ["devs"], "actions": ["read", "create"]}],
                                    "defaultPolicy": ["read"], "anonymousPolicy": []},
                        "pub": {"anonymousPolicy": ["read"]},
                        "none": {"defaultPolicy": []},
                    },
                    "groups": {"Devs": {"users": ["bob"]}},
                    "adminPolicy": {"users": ["root"], "actions": ["read", "delete", "detectManifestCollision"]},
                    "metrics": {"users": ["prometheus"], "anonymousPolicy": ["read"]},
                },
            },
        },
    )  # fmt: skip
    http = load(file).http
    assert (http.realm, http.auth.htpasswd, http.auth.fail_delay) == ("images", "/users", 5.0)
    assert http.tls is not None and (http.tls.client_ca, http.tls.client_auth) == ("ca", "optional")
    assert http.auth.mtls == CertificateConfig(("CommonName", "URI"), "x/(.*)", 1, 2, 3)
    assert http.access_control == AccessControl(
        (
            RepositoryAccess(
                "team/**",
                (AccessPolicy(frozenset({"Ann"}), frozenset({"devs"}), frozenset({"read", "create"})),),
                READ,
            ),
            RepositoryAccess("pub", anonymous_policy=READ),
            RepositoryAccess("none"),
        ),
        AccessPolicy(frozenset({"root"}), actions=frozenset({"read", "delete", "detectManifestCollision"})),
        (UserGroup("devs", frozenset({"bob"})),),
        MetricsAccess(frozenset({"prometheus"}), READ),
    )


def test_bearer_of_zot_looks_at_no_audience(tmp_path: Path) -> None:
    bearer = {"realm": "https://a.example/token", "service": "registry", "cert": "key.pem"}
    file = zot(tmp_path, {"storage": STORAGE, "http": {"auth": {"bearer": bearer}}})
    wanted = BearerConfig("https://a.example/token", "registry", cert="key.pem", check_audience=False)
    assert load(file).http.auth.bearer == wanted
    text = "[http.auth.bearer]\nrealm = 'https://a.example/token'\nservice = 'registry'\njwks = 'keys.json'\n"
    own = load(toml(tmp_path, text)).http.auth.bearer
    assert own is not None and own.check_audience and own.jwks == "keys.json"


def test_an_empty_access_control_says_nothing_to_zot_and_allows_nothing_here(tmp_path: Path) -> None:
    http: dict[str, object] = {"auth": {"htpasswd": {"path": "/users"}}, "accessControl": {}}
    assert load(zot(tmp_path, {"storage": STORAGE, "http": http})).http.access_control is None
    http["accessControl"] = {"repositories": {"**": {}}, "adminPolicy": None, "metrics": {}}
    config = load(zot(tmp_path, {"storage": STORAGE, "http": http}))
    assert config.http.access_control is None
    (warning,) = config.warnings
    assert warning.endswith('http.accessControl.repositories["**"]: ignored, as by zot: there is no value in it')
    http["accessControl"] = {"repositories": {"**": {"policies": []}}}
    denied = AccessControl((RepositoryAccess("**"),))
    assert load(zot(tmp_path, {"storage": STORAGE, "http": http})).http.access_control == denied
    text = "[http.auth]\nhtpasswd = 'u'\n[http.access_control]"
    assert load(toml(tmp_path, text)).http.access_control == AccessControl()


def test_our_own_words(tmp_path: Path) -> None:
    text = """
        [http]
        trusted_proxies = ["10.0.0.0/8", "::1"]
        user_header = "X-Forwarded-User"
        [http.tls]
        cert = "c"
        key = "k"
        client_ca = "ca"
        client_auth = "required"
        [[http.access_control.repositories]]
        pattern = "**"
        default_policy = ["read"]
        policies = [{ users = ["ann"], actions = ["create"] }]
        [[http.access_control.groups]]
        name = "devs"
        users = ["ann"]
    """
    config = load(toml(tmp_path, text))
    assert config.http.trusted_proxies == (ip_network("10.0.0.0/8"), ip_network("::1"))
    assert config.http.tls is not None and config.http.tls.client_auth == "required"
    shown = {key: value for key, value, _ in show_config(config)}
    assert shown["http.trusted_proxies"] == ["10.0.0.0/8", "::1/128"]
    assert shown["http.access_control.repositories[0].policies[0].users"] == ["ann"]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("[http]\nuser_header = 'X-User'", "http.user_header: needs trusted_proxies"),
        ("[http]\nuser_header = 'X User'", "http.user_header: 'X User' is not the name of a header field"),
        ("[http]\ntrusted_proxies = ['10.0.0.1/8']", "http.trusted_proxies: '10.0.0.1/8' is neither an address"),
        ("[http.tls]\ncert='c'\nkey='k'\nclient_auth='required'", "http.tls.client_auth: needs http.tls.client_ca"),
        ("[http.auth.mtls]\nidentity_attributes = ['URI']", "http.auth.mtls.identity_attributes: needs http.tls with"),
        ("[http.auth.mtls]\nidentity_attributes = ['x']", "http.auth.mtls.identity_attributes: 'x' is none of Common"),
        ("[http.auth.bearer]\nrealm='https://a'\nservice='b'", "http.auth.bearer.realm: give either cert or jwks"),
        ("[http.access_control]\nadmin_policy.users = ['']", "http.access_control.admin_policy.users: an empty name"),
        ("[http.access_control]\nadmin_policy.users = ['a']", "http.access_control.admin_policy.users: names users"),
        (
            "[[http.access_control.repositories]]\npattern = 'a'\n[[http.access_control.repositories]]\npattern = 'a'",
            "http.access_control.repositories[0].pattern: 'a' has two tables of policies; join them",
        ),
    ],
)
def test_contradictions_are_refused(tmp_path: Path, text: str, mistake: str) -> None:
    assert mistakes(toml(tmp_path, text))[0].startswith(mistake)


def test_a_policy_for_clients_without_a_login_needs_no_login(tmp_path: Path) -> None:
    text = "[[http.access_control.repositories]]\npattern = '**'\nanonymous_policy = ['read']"
    assert load(toml(tmp_path, text)).warnings == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[http]\naddress = '::'\nauth.htpasswd = 'u'", "passwords cross the network in the clear"),
        ("[http]\naddress = '::'\nauth.htpasswd = 'u'\ntrusted_proxies = ['::1']", None),
        ("[http]\naddress = '127.0.0.2'\nauth.htpasswd = 'u'", None),
        ("[http]\naddress = 'localhost'", None),
        ("[http]\naddress = '::1'", None),
        ("[http.auth]\nhtpasswd = 'u'\n[http.access_control.admin_policy]\ngroups = ['g']", "'g' is no group of"),
    ],
)
def test_a_server_is_told_once_what_it_gives_away(tmp_path: Path, text: str, said: str | None) -> None:
    file = toml(tmp_path, text)
    warnings = load(file).warnings
    assert len(warnings) == (said is not None)
    if said is not None:
        assert said in warnings[0]
    if said is not None and "group" not in said:
        assert load_config(str(file), options={}, environ={}, serving=False).warnings == ()


def test_an_access_control_of_an_empty_list_allows_nothing(tmp_path: Path) -> None:
    """To zot it is there, since a list is a value: without it the registry would be open."""
    said = {"storage": {"rootDirectory": "/z"}, "http": {"accessControl": {"adminPolicy": {"conditions": []}}}}
    assert load(zot(tmp_path, said)).http.access_control == AccessControl()
