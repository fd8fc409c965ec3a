"""Our own TOML file, the environment, and options over it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.reading import load, mistakes, toml
from zotctl.config import Config, RootConfig, is_loopback, load_config, open_to_all, reload_config
from zotctl.config.layers import single_keys, variable
from zotctl.config.schema import TimeWindow
from zotctl.errors import ConfigError


def test_nothing_said_is_the_defaults() -> None:
    config = load()
    assert config.storage.roots == (RootConfig(path="./registry", create=True),)
    assert (config.http.address, config.http.port, config.http.max_manifest_size) == (
        "127.0.0.1",
        5000,
        4 << 20,
    )
    assert config.http == Config().http
    assert config.log == Config().log
    assert config.origins == {}
    assert config.warnings == ()


def test_a_whole_file(tmp_path: Path) -> None:
    config = load(
        toml(
            tmp_path,
            """
            [storage]
            read_only = true
            commit = true
            roots = ["/a", { path = "/b", commit = false, create = true, min_free = "1GiB" }]
            [[storage.routes]]
            prefix = "team/x"
            root = { path = "/c", dedupe = false, gc_time_window = "22:00-04:00" }
            [[storage.routes]]
            prefix = "team/"
            root = "/d"
            [http]
            address = "::"
            port = "8080"
            workers = 3
            tls = { cert = "c.pem", key = "k.pem" }
            max_manifest_size = "8MiB"
            compat = ["docker2s2"]
            drain = "0s"
            rate_limit = { rate = 100, methods = [{ method = "PUT", rate = 2.5 }] }
            [log]
            level = "debug"
            """,
        )
    )
    storage, http = config.storage, config.http
    assert storage.read_only
    assert [(root.path, root.commit, root.create, root.min_free) for root in storage.roots] == [
        ("/a", True, False, None),
        ("/b", False, True, 1 << 30),
    ]
    assert [(route.prefix, route.root.path, route.root.commit, route.root.dedupe) for route in storage.routes] == [
        ("team/x", "/c", True, False),
        ("team/", "/d", True, True),
    ]
    assert storage.routes[0].root.gc_time_window == TimeWindow(22 * 60, 4 * 60)
    assert (http.address, http.port, http.workers, http.drain) == ("::", 8080, 3, 0.0)
    assert http.tls is not None
    assert (http.tls.cert, http.tls.key, http.tls.client_ca) == ("c.pem", "k.pem", None)
    assert http.compat == frozenset({"docker2s2"})
    assert http.rate_limit is not None
    assert (http.rate_limit.rate, http.rate_limit.methods[0].method, http.rate_limit.methods[0].rate) == (
        100,
        "PUT",
        2.5,
    )
    assert config.log.level == "debug"


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    file = toml(
        tmp_path,
        """
        [storage]
        comit = true
        gc_delay = "-1s"
        [[storage.roots]]
        commit = "yes"
        [[storage.routes]]
        prefix = "Team"
        root = 5
        [http]
        prot = 5000
        port = 70000
        tls = { cert = "c.pem" }
        [log]
        level = "loud"
        [metric]
        """,
    )
    assert mistakes(file) == [
        "metric: unknown key; nearest valid key: metrics",
        "storage.comit: unknown key; nearest valid key: storage.commit",
        "storage.roots[0].commit: 'yes' is neither true nor false",
        "storage.gc_delay: '-1s' is not a duration such as '30s', '1h30m' or '7d'",
        "storage.roots[0].path: is missing",
        "storage.routes[0].prefix: 'Team' is not a repository name: components of a-z and 0-9, inside them "
        "one of '.', '_', '__' or dashes, and '/' between them",
        "storage.routes[0].root: 5 is not a table",
        "http.prot: unknown key; nearest valid key: http.port",
        "http.port: 70000 is outside of 0 to 65535",
        "http.tls.key: is missing",
        "log.level: 'loud' is none of debug, info, warning, error",
    ]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("storage = 5", "storage: 5 is not a table"),
        ("[storage]\nroots = 5", "storage.roots: 5 is not a list of tables"),
        ("[storage]\nroots = []", "storage.roots: no root; name a directory or a bucket"),
        ("[storage]\nroots = ['']", "storage.roots[0].path: an empty path"),
        ("[storage]\nroots = [5]", "storage.roots[0]: 5 is not a table"),
        ("[storage]\nroutes = [{ prefix = 'a' }]", "storage.routes[0].root: is missing"),
        ("[http]\ncompat = 'docker2s2'", "http.compat: 'docker2s2' is not a list"),
        ("[http]\nworkers = 0", "http.workers: 0 is outside of 1 to 256"),
        (
            "[http]\nidle_timeout = '0s'",
            "http.idle_timeout: a time-out of nothing; a long one is written as '24h'",
        ),
        ("[http.rate_limit]\nrate = -1", "http.rate_limit.rate: -1 is not a number of 1e-09 or more"),
        ("[http.rate_limit]\nrate = 1e-12", "http.rate_limit.rate: 1e-12 is not a number of 1e-09 or more"),
        ("port = 5000", "port: unknown key; valid here: storage, http, scrub, metrics, log"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, mistake: str) -> None:
    assert mistakes(toml(tmp_path, text)) == [mistake]


def test_two_routes_of_one_prefix(tmp_path: Path) -> None:
    file = toml(tmp_path, "storage = { routes = [{ prefix = 'a', root = '/x' }, { prefix = 'a', root = '/y' }] }")
    assert mistakes(file) == [
        "storage.routes[0].prefix: 'a' has two routes",
        "storage.routes[1].prefix: 'a' has two routes",
    ]


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("c.toml", b"[http\n", "neither TOML nor JSON"),
        ("c.json", b"", "not JSON"),
        ("C.JSON", b" \n", "not JSON"),
        ("c.json", b"[]", "a table of keys"),
        ("c.json", b"null", "a table of keys"),
        ("c.json", b"[http]", "not JSON"),
        ("c.toml", b"\xff", "not UTF-8 at byte 0"),
        ("c.json", b"{", "not JSON"),
        ("c.json", b'{"a":' * 100_000, "not JSON"),
        ("c.json", b'{"http":' + b'{"a":' * 300 + b"1" + b"}" * 301, "nested deeper than 100 levels"),
        ("c.toml", b"[" + b"a." * 300 + b"a]", "nested deeper than 100 levels"),
        ("c.toml", b"a = " + b"[" * 300 + b"]" * 300, "nested deeper than 100 levels"),
        ("c.toml", b"http.port = 0x" + b"f" * 5000, "is no integer of 64 bits"),
        ("c.toml", b"http.rate_limit.rate = 1" + b"0" * 400, "is no integer of 64 bits"),
        ("c.toml", b'distSpecVersion = "1"\n[storage]\nrootDirectory = "/z"\ngcDelay = 0x' + b"f" * 5000, "64 bits"),
    ],
)
def test_files_that_are_not_read(tmp_path: Path, name: str, content: bytes, text: str) -> None:
    (tmp_path / name).write_bytes(content)
    (mistake,) = mistakes(tmp_path / name)
    assert text in mistake


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert mistakes(tmp_path / "none.toml") == ["No such file or directory"]
    assert mistakes(tmp_path) == [f"{tmp_path} is a directory, not a file"]
    file = toml(tmp_path, "")
    assert "is a file, not a directory" in mistakes(file / "zotctl.toml")[0]


def test_warnings_come_with_the_mistakes(tmp_path: Path) -> None:
    """Also those of the whole, unless a value that can't be read stands in their way."""
    with pytest.raises(ConfigError) as caught:
        load(toml(tmp_path, "[storage]\ngc_delay = '5s'\n[http]\nprot = 1"))
    assert (len(caught.value.detail), len(caught.value.warnings)) == (1, 1)
    assert "gc_delay: under a minute" in caught.value.warnings[0]
    with pytest.raises(ConfigError) as caught:
        load(toml(tmp_path, "[storage]\ngc_delay = '5s'\n[http]\nport = -1"), environ={"ZOTCTL_FOO": "1"})
    assert [warning.partition(":")[0] for warning in caught.value.warnings] == ["environment ZOTCTL_FOO"]


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "localhost"])
def test_who_listens_on_loopback_only_is_not_told_to(tmp_path: Path, address: str) -> None:
    assert is_loopback(load(toml(tmp_path, f"[http]\naddress = '{address}'")).http.address)
    assert not is_loopback(load(toml(tmp_path, "[http]\naddress = '::'")).http.address)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("", True), ("auth = { htpasswd = 'users' }", False), ("access_control = {}", False),
        ("[storage]\nread_only = true", False),
        ("tls = { cert = 'c', key = 'k' }", True), ("tls = { cert = 'c', key = 'k', client_ca = 'a' }", False),
    ],
)  # fmt: skip
def test_who_lets_nobody_in_is_not_told_to_close(tmp_path: Path, said: str, told: bool) -> None:
    assert (open_to_all(load(toml(tmp_path, f"[http]\n{said}")), "x") is not None) == told


def test_options_go_before_the_environment_and_that_before_the_file(tmp_path: Path) -> None:
    file = toml(tmp_path, "[http]\nport = 1\nworkers = 1\nmax_tags = 1\n[log]\nlevel = 'debug'")
    environ = {"ZOTCTL_CONFIG": str(file), "ZOTCTL_HTTP_PORT": "2", "ZOTCTL_HTTP_WORKERS": "2"}
    config = load(None, {"http.port": 3, "http.drain": None}, environ)
    assert (config.http.port, config.http.workers, config.http.max_tags, config.http.drain) == (3, 2, 1, 30.0)
    assert config.origins == {
        "http.port": "option --listen",
        "http.workers": "environment ZOTCTL_HTTP_WORKERS",
        "http.max_tags": f"{file}: http.max_tags",
        "log.level": f"{file}: log.level",
    }
    assert reload_config(config) == config


def test_a_flag_holds_for_every_root_and_route(tmp_path: Path) -> None:
    file = toml(
        tmp_path,
        "storage = { dedupe = false, roots = [{ path = '/a', commit = false }], "
        "routes = [{ prefix = 'x', root = '/b' }] }",
    )
    config = load(file, {"storage.commit": True}, {"ZOTCTL_STORAGE_DEDUPE": "yes"})
    assert [(root.commit, root.dedupe) for root in (config.storage.roots[0], config.storage.routes[0].root)] == [
        (True, True)
    ] * 2
    assert config.origins["storage.routes[0].root.commit"] == "option --commit"
    assert config.origins["storage.roots[0].dedupe"] == "environment ZOTCTL_STORAGE_DEDUPE"


def test_roots_of_options_are_made_and_replace_those_of_the_file(tmp_path: Path) -> None:
    file = toml(tmp_path, "[storage]\ncommit = true\nroots = [{ path = '/a', dedupe = false }, '/b']")
    (root,) = load(file, {"storage.roots": ["/x"]}).storage.roots
    assert root == RootConfig(path="/x", create=True, commit=True)
    config = load(file, environ={"ZOTCTL_ROOT": "/x:/y"})
    assert [(root.path, root.create) for root in config.storage.roots] == [("/x", True), ("/y", True)]
    assert config.origins["storage.roots[1].path"] == "environment ZOTCTL_ROOT"


def test_a_root_of_a_file_is_not_made(tmp_path: Path) -> None:
    assert not load(toml(tmp_path, "storage.roots = ['/a']")).storage.roots[0].create
    assert load(toml(tmp_path, "[http]\nport = 1")).storage.roots[0].create


def test_one_layout_is_served_alone(tmp_path: Path) -> None:
    file = toml(tmp_path, "storage = { commit = true, roots = ['/a'] }")
    config = load(file, {"storage.single_layout.path": "/l", "storage.single_layout.name": "l"})
    assert config.storage.single_layout is not None
    assert (config.storage.single_layout.path, config.storage.roots) == ("/l", ())
    assert mistakes(None, {"storage.single_layout.path": "/l", "storage.single_layout.name": "L"})[0].startswith(
        "option --as"
    )


def test_mistakes_in_the_environment_and_in_options() -> None:
    environ = {
        "ZOTCTL_HTTP_PROT": "1",
        "ZOTCTL_HTTP_PORT": "x",
        "ZOTCTL_STORAGE_COMMIT": "maybe",
        "ZOTCTL_DEBUG": "1",
        "ZOTCTL_OUTPUT": "json",
        "HTTP_PORT": "1",
    }
    assert mistakes(None, {"http.drain": "-1s"}, environ) == [
        "environment ZOTCTL_HTTP_PROT: unknown variable; nearest valid variable: ZOTCTL_HTTP_PORT",
        "environment ZOTCTL_STORAGE_COMMIT: 'maybe' is neither true nor false",
        "environment ZOTCTL_HTTP_PORT: 'x' is not a whole number",
        "option --drain: '-1s' is not a duration such as '30s', '1h30m' or '7d'",
    ]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("ZOTCTL_HTTP_COMPAT", "docker2s2", frozenset({"docker2s2"})),
        ("ZOTCTL_HTTP_MAX_MANIFEST_SIZE", "1MiB", 1 << 20),
        ("ZOTCTL_HTTP_IDLE_TIMEOUT", "5s", 5.0),
        ("ZOTCTL_HTTP_DELETE", "0", False),
        ("ZOTCTL_HTTP_ADDRESS", "::", "::"),
    ],
)
def test_texts_of_the_environment(name: str, text: str, value: object) -> None:
    http = load(environ={name: text}).http
    assert getattr(http, name.removeprefix("ZOTCTL_HTTP_").lower()) == value


def test_every_single_key_has_its_own_variable() -> None:
    names = [variable(path) for path in single_keys()]
    assert len(set(names)) == len(names)
    assert {"ZOTCTL_LOG_LEVEL", "ZOTCTL_HTTP_TLS_CERT", "ZOTCTL_STORAGE_MIN_FREE"} <= set(names)


def test_a_short_delay_is_warned_about_only_when_it_counts(tmp_path: Path) -> None:
    asked = load(toml(tmp_path, "storage = { gc_delay = '30s', roots = ['/a', '/b'] }"))
    file = tmp_path / "zotctl.toml"
    assert asked.warnings == (f"{file}: storage.gc_delay: under a minute: a slow push may lose what it has sent",)
    assert load(toml(tmp_path, "storage = { gc = false, gc_delay = '30s' }")).warnings == ()


def test_a_variable_that_nobody_knows_is_warned_about_with_the_nearest_name() -> None:
    config = load(environ={"ZOTCTL_ROTO": "/srv", "ZOTCTL_CONFG": "x", "ZOTCTL_XYZZY": "1", "PATH": "/bin"})
    assert config.warnings == (
        "environment ZOTCTL_CONFG: unknown variable, ignored; did you mean ZOTCTL_CONFIG?",
        "environment ZOTCTL_ROTO: unknown variable, ignored; did you mean ZOTCTL_ROOT?",
        "environment ZOTCTL_XYZZY: unknown variable, ignored",
    )
    names = ("ZOTCTL_OUTPUT", "ZOTCTL_DEBUG", "ZOTCTL_SEED", "ZOTCTL_SOAK", "ZOTCTL_FAULTS", "ZOTCTL_RANDOM")
    assert load(environ=dict.fromkeys(names, "1")).warnings == ()


def test_a_job_does_not_mind_who_may_come_in(tmp_path: Path) -> None:
    text = "[http.access_control]\nadmin_policy.users = ['root']\n[storage]\nroots = ['/a']\n"
    file = toml(tmp_path, text)
    assert len(mistakes(file)) == 1
    assert load_config(str(file), options={}, environ={}, serving=False).storage.roots[0].path == "/a"
