"""Buckets in a configuration: their addresses, their keys, and zot's storageDriver."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.config.reading import load, mistakes, toml, zot
from zotctl.config import Config, RootConfig, S3Config, parse_address, show_config
from zotctl.config.layers import single_keys, variable
from zotctl.config.zot_s3 import zot_prefix

SECRET = "cl3arly-a-secret"


def bucket(config: Config) -> S3Config:
    assert config.storage.roots[0].s3 is not None
    return config.storage.roots[0].s3


# -- addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "one"),
    [("s3://abc", "s3://abc"), ("s3://abc/", "s3://abc"), ("s3://a.b-c/x/y/", "s3://a.b-c/x/y"),
     ("s3://abc//x", "s3://abc/x")],
)  # fmt: skip
def test_an_address_has_one_spelling(text: str, one: str) -> None:
    assert load(None, {"storage.roots": [text]}).storage.roots == (
        RootConfig(path=one, create=True, dedupe=False, s3=S3Config()),
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("s3://", "names no bucket; write s3://BUCKET"),
        ("s3:///x", "names no bucket; write s3://BUCKET"),
        ("s3://-images", "can't be a bucket"),
        ("s3://a..b", "can't be a bucket"),
        ("s3://user:pw@host", "can't be a bucket"),
        ("s3://abc/x\ny", "not a text on one line"),
        ("s3://abc/x/./y", "'.' or"),
        ("s3://abc/x/../y", "'..' in its prefix"),
        ("s3://abc/x//y", "empty component"),
        ("s3://abc/x?region=y", "options stand in [storage.s3]"),
        ("s3://abc/" + "x" * 600, "longer than 512 bytes"),
        ("gs://abc", "neither a directory nor a bucket"),
        ("http://abc", "neither a directory nor a bucket"),
    ],
)
def test_a_bad_address_is_refused_with_the_way_out(text: str, reason: str) -> None:
    (mistake,) = mistakes(None, {"storage.roots": [text]})
    assert mistake.startswith("option --root: ") and reason in mistake


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [("s3://abc", "s3://abc/x", True), ("s3://abc/x", "s3://abc/x", True), ("s3://abc/x", "s3://abc/xy", False),
     ("s3://abc", "s3://abcd", False)],
)  # fmt: skip
def test_roots_of_one_bucket(one: str, other: str, overlap: bool) -> None:
    assert parse_address(one).overlaps(parse_address(other)) is overlap
    assert parse_address(other).overlaps(parse_address(one)) is overlap


def test_several_in_one_variable() -> None:
    config = load(None, None, {"ZOTCTL_ROOT": "s3://abc/x:/srv:s3://def:./here"})
    assert [root.path for root in config.storage.roots] == ["s3://abc/x", "/srv", "s3://def", "./here"]


def test_directories_and_buckets_in_one_list(tmp_path: Path) -> None:
    text = '[storage]\nroots = ["/srv", "s3://abc"]\n[[storage.routes]]\nprefix = "a"\nroot = "s3://abd/a"\n'
    config = load(toml(tmp_path, text))
    assert [root.path for root in config.storage.roots] == ["/srv", "s3://abc"]
    assert config.storage.routes[0].root.path == "s3://abd/a"


# -- keys ----------------------------------------------------------------------------------------


def test_dedupe_is_off_in_a_bucket_unless_somebody_says_so(tmp_path: Path) -> None:
    both = '[storage]\nroots = ["/srv", "s3://abc"]\n'

    def dedupe(
        text: str, options: dict[str, object] | None = None, environ: dict[str, str] | None = None
    ) -> list[bool]:
        return [root.dedupe for root in load(toml(tmp_path, text), options, environ).storage.roots]

    assert dedupe(both) == [True, False]
    assert dedupe(both + "dedupe = true") == [True, True]
    assert dedupe(both, {"storage.dedupe": True}) == [True, True]
    assert dedupe(both, {"storage.dedupe": False}) == [False, False]
    assert dedupe(both, None, {"ZOTCTL_DEDUPE": "true"}) == [True, True]
    assert dedupe(both, None, {"ZOTCTL_STORAGE_DEDUPE": "true"}) == [True, True]


TABLES = f"""
[storage]
roots = ["s3://abc", {{ path = "s3://abd", s3 = {{ region = "own", redirect = true }} }}]
[storage.s3]
endpoint = "http://127.0.0.1:7070/"
region = "all"
access_key = "AK"
secret_key = "{SECRET}"
upload_memory = "1GiB"
redirect_lifetime = "1m"
"""


def test_a_root_says_what_is_different(tmp_path: Path) -> None:
    first, second = load(toml(tmp_path, TABLES)).storage.roots
    common = S3Config(endpoint="http://127.0.0.1:7070", region="all", access_key="AK", secret_key=SECRET,
                      upload_memory=1 << 30, redirect_lifetime=60)  # fmt: skip
    assert first.s3 == common
    assert second.s3 is not None and (second.s3.region, second.s3.redirect) == ("own", True)
    assert (second.s3.endpoint, second.s3.secret_key) == ("http://127.0.0.1:7070", SECRET)


def test_the_environment_goes_before_the_tables(tmp_path: Path) -> None:
    environ = {
        "ZOTCTL_STORAGE_S3_REGION": "env",
        "ZOTCTL_SINGLE_WRITER": "true",
        "ZOTCTL_STORAGE_S3_MAX_CONNECTIONS": "7",
    }
    config = load(toml(tmp_path, TABLES), None, environ)
    for root in config.storage.roots:
        assert root.s3 is not None
        assert (root.s3.region, root.s3.single_writer, root.s3.max_connections) == ("env", True, 7)
    assert config.origins["storage.roots[1].s3.region"] == "environment ZOTCTL_STORAGE_S3_REGION"


def test_a_bucket_with_one_writer_is_collected_by_no_second_one(tmp_path: Path) -> None:
    one = "s3 = { single_writer = true }"
    text = f"[storage]\nroots = [{{ path = 's3://abc', {one} }}, 'beside']\n"
    config = load(toml(tmp_path, f"{text}routes = [{{ prefix = 'a', root = {{ path = 's3://xyz', {one} }} }}]"))
    assert [root.gc for root in config.storage.every_root] == [False, True, False]
    assert config.http.workers == 1


def test_each_key_has_a_variable() -> None:
    for name in S3Config.__dataclass_fields__:
        assert f"storage.s3.{name}" in single_keys()
    assert variable("storage.s3.region") == "ZOTCTL_STORAGE_S3_REGION"


def test_secrets_are_shown_nowhere(tmp_path: Path) -> None:
    config = load(toml(tmp_path, TABLES), None, {"ZOTCTL_STORAGE_S3_SESSION_TOKEN": SECRET})
    shown = {key: value for key, value, _ in show_config(config)}
    assert shown["storage.roots[0].s3.secret_key"] == shown["storage.roots[0].s3.session_token"] == "(hidden)"
    assert shown["storage.roots[0].s3.access_key"] == "AK"
    assert SECRET not in repr(config.storage) and SECRET not in repr(show_config(config))


def test_nor_are_they_in_a_mistake(tmp_path: Path) -> None:
    text = f'[storage]\nroots = ["s3://abc"]\ns3 = {{ access_key = "A", secret_key = ["{SECRET}"] }}'
    (mistake,) = mistakes(toml(tmp_path, text))
    assert "secret_key" in mistake and SECRET not in mistake


@pytest.mark.parametrize(
    ("keys", "key", "reason"),
    [
        ('access_key = "A"', "access_key", "without secret_key"),
        ('secret_key = "A"', "secret_key", "without access_key"),
        ('session_token = "A"', "session_token", "belongs to"),
        ('kms_key = "A"', "kms_key", 'encryption = "aws:kms"'),
        ('endpoint = "127.0.0.1:9000"', "endpoint", "write http://HOST:PORT"),
        ('endpoint = "http://a:b@host"', "endpoint", "no credentials"),
        ('addressing = "host"', "addressing", "auto, path, virtual"),
        ('redirect_lifetime = "8d"', "redirect_lifetime", "'7d'"),
        ("upload_memory = 1", "upload_memory", "64MiB"),
        ('accelerate = true\nendpoint = "https://x"', "accelerate", "is for AWS"),
        ('acl = "everybody"', "acl", "bucket-owner-full-control"),
        ("max_connections = 0", "max_connections", "1 to 10000"),
        ('redirects = "x"', "redirects", "nearest valid key: storage.roots[0].s3.redirect"),
    ],
)
def test_refused(tmp_path: Path, keys: str, key: str, reason: str) -> None:
    (mistake,) = mistakes(toml(tmp_path, f'[storage]\nroots = ["s3://abc"]\n[storage.s3]\n{keys}\n'))
    assert mistake.startswith(f"storage.s3.{key}: ") and reason in mistake, mistake


# -- zot -----------------------------------------------------------------------------------------

DRIVER: dict[str, Any] = {"name": "s3", "bucket": "zot-storage", "region": "us-east-2"}
STORAGE: dict[str, Any] = {"storageDriver": DRIVER}


def of_zot(tmp_path: Path, **storage: Any) -> RootConfig:
    return load(zot(tmp_path, {"storage": {**STORAGE, **storage}})).storage.roots[0]


@pytest.mark.parametrize(("said", "real"), [("/zot", "zot/zot"), ("/a/b/", "a/b/a/b"), ("/", ""), ("", "")])
def test_zot_sets_its_rootdirectory_twice(tmp_path: Path, said: str, real: str) -> None:
    assert zot_prefix(said) == real
    root = of_zot(tmp_path, storageDriver={**DRIVER, "rootdirectory": said})
    assert root.path == f"s3://zot-storage/{real}".rstrip("/")


def test_everything_that_is_honoured(tmp_path: Path) -> None:
    driver = {**DRIVER, "regionendpoint": "localhost:9000", "secure": False, "accesskey": "AK", "secretkey": SECRET,
              "skipverify": True, "forcepathstyle": True, "encrypt": True, "keyid": "k",
              "storageclass": "standard_ia", "objectacl": "bucket-owner-full-control",
              "usedualstack": "true"}  # fmt: skip
    root = of_zot(tmp_path, storageDriver=driver, redirectBlobURL=True)
    assert root.s3 == S3Config(endpoint="http://localhost:9000", region="us-east-2", access_key="AK",
                               secret_key=SECRET, insecure=True, addressing="path", encryption="aws:kms",
                               kms_key="k", storage_class="STANDARD_IA", redirect=True, dual_stack=True,
                               acl="bucket-owner-full-control")  # fmt: skip
    assert (root.dedupe, root.gc_untagged) == (False, "all")


def test_acceleration_is_honoured(tmp_path: Path) -> None:
    root = of_zot(tmp_path, storageDriver={**DRIVER, "accelerate": "true"})
    assert root.s3 == S3Config(region="us-east-2", accelerate=True)


def test_dedupe_counts_only_in_words(tmp_path: Path) -> None:
    assert of_zot(tmp_path).dedupe is False
    config = load(zot(tmp_path, {"storage": {**STORAGE, "dedupe": True}}))
    assert config.storage.roots[0].dedupe is True
    assert "dedupe --undo" in config.warnings[0]


def test_the_words_of_the_driver_may_be_texts_and_in_any_case(tmp_path: Path) -> None:
    driver = {"NAME": "s3", "Bucket": "abc", "regionEndpoint": "https://x", "secure": "false", "SkipVerify": "true"}
    root = of_zot(tmp_path, storageDriver=driver)
    assert (root.path, root.s3) == ("s3://abc", S3Config(endpoint="https://x", insecure=True))


def test_sub_paths_inherit_nothing(tmp_path: Path) -> None:
    sub = {
        "/a": {"rootDirectory": "/a", "storageDriver": {"name": "s3", "bucket": "for-a"}},
        "/b": {"rootDirectory": "/b"},
    }
    config = load(zot(tmp_path, {"storage": {"rootDirectory": "/z", "subPaths": sub}}))
    assert [root.path for root in config.storage.roots] == ["/z"]
    (a, b) = config.storage.routes
    assert (a.prefix, a.root.path, a.root.s3, a.root.gc) == ("a/", "s3://for-a", S3Config(), False)
    assert (b.root.path, b.root.s3) == ("/b", None)


@pytest.mark.parametrize(
    ("storage", "key"),
    [
        ({"rootDirectory": "/tmp/zot"}, "storage.rootDirectory"),
        ({"cacheDriver": {"name": "dynamodb"}}, "storage.cacheDriver"),
        ({"remoteCache": True}, "storage.remoteCache"),
        ({"storageDriver": {**DRIVER, "useragent": "x"}}, "storage.storageDriver.useragent"),
        ({"storageDriver": {**DRIVER, "multipartcopychunksize": 1}}, "storage.storageDriver.multipartcopychunksize"),
        ({"storageDriver": {**DRIVER, "chunksize": 5 << 20}}, "storage.storageDriver.chunksize"),
        (
            {"storageDriver": {**DRIVER, "accelerate": True, "regionendpoint": "https://x"}},
            "storage.storageDriver.accelerate",
        ),
        ({"storageDriver": {**DRIVER, "whatever": "x"}}, "storage.storageDriver.whatever"),
    ],
)
def test_warned_about_by_name(tmp_path: Path, storage: dict[str, Any], key: str) -> None:
    file = zot(tmp_path, {"storage": {**STORAGE, **storage}})
    (warning,) = load(file).warnings
    assert warning.startswith(f"{file}: {key}: ")


def test_what_is_off_is_passed_over(tmp_path: Path) -> None:
    off = {"secure": True, "skipverify": False, "encrypt": False, "accelerate": "false", "v4auth": True,
           "usedualstack": "", "objectacl": "private", "accesskey": "", "secretkey": ""}  # fmt: skip
    config = load(zot(tmp_path, {"storage": {"storageDriver": {**DRIVER, **off}, "redirectBlobURL": False}}))
    assert config.warnings == ()
    assert bucket(config) == S3Config(region="us-east-2")


@pytest.mark.parametrize(
    ("driver", "key", "reason"),
    [
        ({**DRIVER, "v4auth": False}, "v4auth", "version 2"),
        ({"name": "s3"}, "bucket", "is missing"),
        ({**DRIVER, "bucket": "no!"}, "bucket", "can't be a bucket"),
        ({**DRIVER, "secretkey": "x"}, "secretkey", "without access_key"),
        ({**DRIVER, "objectacl": "all"}, "objectacl", "public-read"),
        ({**DRIVER, "forcepathstyle": []}, "forcepathstyle", "[] is none of"),
        ({**DRIVER, "accelerate": "true", "bucket": "a.dot"}, "accelerate", "a.dot"),
    ],
)
def test_refused_of_zot(tmp_path: Path, driver: dict[str, Any], key: str, reason: str) -> None:
    (mistake,) = mistakes(zot(tmp_path, {"storage": {"storageDriver": driver}}))
    assert mistake.startswith(f"storage.storageDriver.{key}: ") and reason in mistake


def test_two_drivers_in_different_case_are_a_mistake(tmp_path: Path) -> None:
    for one, other in (("x", DRIVER), (DRIVER, "x")):
        found = mistakes(
            zot(tmp_path, {"storage": {"rootDirectory": "/z", "storageDriver": one, "STORAGEDRIVER": other}})
        )
        assert "storage.storageDriver: is there twice, in different case" in found


@pytest.mark.parametrize("text", ["s3://Images", "s3://my_images", "s3://ab", "s3://abc/my images/über uns"])
def test_names_that_some_object_stores_have(text: str) -> None:
    assert str(parse_address(text)) == text


@pytest.mark.parametrize(("said", "read"), [("false", "auto"), ("true", "path"), (False, "auto")])
def test_forcepathstyle_may_be_a_text(tmp_path: Path, said: object, read: str) -> None:
    driver = {"name": "s3", "bucket": "abc", "forcepathstyle": said}
    root = load(zot(tmp_path, {"storage": {"storageDriver": driver}})).storage.roots[0]
    assert root.s3 == S3Config(addressing=read)
