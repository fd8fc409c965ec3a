"""Bearer tokens, good and forged."""

from __future__ import annotations

import base64
import hmac
import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.tools import need
from zotctl.config import AuthConfig, BearerConfig, HttpConfig
from zotctl.errors import ConfigError, Unauthorized

need("joserfc")

from joserfc import jwk, jws, jwt  # noqa: E402

from zotctl.auth.logins import Identity, Logins, PasswordCheck  # noqa: E402
from zotctl.auth.policy import AccessRules  # noqa: E402
from zotctl.auth.tokens import TOKEN_CHARACTERS, Token, TokenVerifier  # noqa: E402
from zotctl.auth.users import User  # noqa: E402

EC = jwk.ECKey.generate_key("P-256", {"kid": "one", "alg": "ES256", "use": "sig"}, private=True)
RSA = jwk.RSAKey.generate_key(2048, {"kid": "two"}, private=True)
ED = jwk.OKPKey.generate_key("Ed25519", {"kid": "three"}, private=True)
CONFIG = BearerConfig(realm="https://auth.example/token", service="registry", issuer="auth")
NOW, DAY_S = int(time.time()), 86400
"""When the tests were read, which is long before the last of them runs."""
CLAIMS: dict[str, Any] = {
    "iss": "auth", "aud": "registry", "sub": "ann", "exp": NOW + DAY_S, "nbf": NOW - 10, "iat": NOW - 10,
    "access": [
        {"type": "repository", "name": "team/app", "actions": ["pull", "push"]},
        {"type": "repository", "name": "old", "actions": ["pull"], "exp": NOW - 1},
        {"type": "registry", "name": "catalog", "actions": ["*", "pull"]},
    ],
}  # fmt: skip


def pem(tmp_path: Path, key: Any) -> BearerConfig:
    path = tmp_path / "key.pem"
    path.write_bytes(key.as_pem(private=False))
    return replace(CONFIG, cert=str(path))


def jwks(tmp_path: Path, *keys: Any) -> BearerConfig:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [key.as_dict(private=False) for key in keys]}))
    return replace(CONFIG, jwks=str(path))


def token(key: Any = EC, alg: str = "ES256", header: dict[str, Any] | None = None, **claims: Any) -> str:
    stated = {name: value for name, value in {**CLAIMS, **claims}.items() if value is not None}
    return jwt.encode({"alg": alg, **(header or {})}, stated, key, algorithms=[alg])


@pytest.mark.parametrize(("key", "alg"), [(EC, "ES256"), (RSA, "RS256"), (RSA, "PS512"), (ED, "EdDSA")])
def test_each_kind_of_key(tmp_path: Path, key: Any, alg: str) -> None:
    for config in (pem(tmp_path, key), jwks(tmp_path, key)):
        found = TokenVerifier(config).verify(token(key, alg))
        assert (found.subject, found.expires) == ("ann", CLAIMS["exp"])


def test_a_key_set_is_asked_by_the_name_of_the_key(tmp_path: Path) -> None:
    verifier = TokenVerifier(jwks(tmp_path, EC, RSA))
    assert verifier.verify(token(EC, header={"kid": "one"}))
    assert verifier.verify(token(RSA, "RS256", header={"kid": "two"}))
    for header in ({"kid": "two"}, {"kid": "three"}, {}):
        with pytest.raises(Unauthorized):
            verifier.verify(token(EC, header=header))


def test_one_key_is_asked_whatever_the_token_calls_it(tmp_path: Path) -> None:
    assert TokenVerifier(pem(tmp_path, EC)).verify(token(EC, header={"kid": "XYZ:ABC"}))


def encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).decode().rstrip("=")


def unsigned(alg: str) -> str:
    return f"{encoded(json.dumps({'alg': alg}).encode())}.{encoded(json.dumps(CLAIMS).encode())}."


def shared_secret(key: bytes) -> str:
    """The public key, which everyone has, used as a shared secret."""
    text = unsigned("HS256").removesuffix(".")
    return f"{text}.{encoded(hmac.digest(key, text.encode(), 'sha256'))}"


def test_forged_tokens(tmp_path: Path) -> None:
    config = pem(tmp_path, EC)
    verifier = TokenVerifier(config)
    with open(config.cert or "", "rb") as stream:
        public = stream.read()
    good = token()
    head, body, signature = good.split(".")
    other = jwk.ECKey.generate_key("P-256", private=True)
    forged = [
        "", "x", "..", good[:-4] + "AAAA", f"{head}.{body}.", f"{head}.{body[:-2]}.{signature}", unsigned("none"),
        unsigned("None"), unsigned("ES256"), token(other), shared_secret(public), token(RSA, "RS256"),
        good + "A" * 20_000, "é.é.é",
    ]  # fmt: skip
    for text in forged:
        with pytest.raises(Unauthorized) as caught:
            verifier.verify(text)
        assert not text or text not in caught.value.message


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": NOW - 1}, {"nbf": NOW + DAY_S}, {"iat": NOW + DAY_S}, {"exp": "soon"}, {"iss": "other"}, {"iss": None},
        {"aud": "registry-of-others"},
        {"aud": "other"}, {"aud": None}, {"aud": ["other"]}, {"aud": 7}, {"exp": math.nan}, {"exp": math.inf},
        {"exp": True}, {"exp": []}, {"nbf": math.nan}, {"nbf": "x"}, {"exp": -1}, {"exp": 0},
    ],
)  # fmt: skip
def test_claims_that_are_refused(tmp_path: Path, claims: dict[str, Any]) -> None:
    with pytest.raises(Unauthorized):
        TokenVerifier(pem(tmp_path, EC)).verify(token(**claims))


def test_a_token_that_is_too_long_is_refused_before_it_is_read(tmp_path: Path) -> None:
    verifier = TokenVerifier(pem(tmp_path, EC))
    with pytest.raises(Unauthorized, match="too long"):
        verifier.verify(token(sub="a" * TOKEN_CHARACTERS))


def test_claims_that_may_be_absent(tmp_path: Path) -> None:
    config = pem(tmp_path, EC)
    assert TokenVerifier(config).verify(token(aud=["other", "registry"]))
    assert TokenVerifier(config).verify(token(exp=None, nbf=None, iat=None, sub=None)).subject == ""
    assert TokenVerifier(replace(config, check_audience=False, issuer=None)).verify(token(aud="other", iss=None))


def test_access() -> None:
    found = Token("ann", tuple(CLAIMS["access"]), float("inf"))
    assert [found.allows(action, "team/app") for action in ("read", "create", "update", "delete")] == [
        True, True, True, False,
    ]  # fmt: skip
    assert not found.allows("update", "old", now=NOW - 2), "who may pull may move no tag"
    assert not found.allows("read", "old") and found.allows("read", "old", now=NOW - 2)
    assert not found.allows("read", "team") and not found.allows("read", "catalog")


@pytest.mark.parametrize(
    "access",
    [None, "all", 7, {}, ["x"], [{}], [{"type": "repository", "name": "a", "actions": "pull"}],
     [{"type": "repository", "name": "a", "actions": ["*"]}], [{"type": "repository", "name": "a"}],
     [{"type": "repository", "name": "a", "actions": ["pull"], "exp": "x"}],
     [{"type": "repository", "name": "a", "actions": ["pull"], "exp": math.nan}],
     [{"type": "repository", "name": "a", "actions": ["pull"], "exp": math.inf}],
     [{"type": "repository", "name": "a", "actions": ["pull"], "exp": True}]],
)  # fmt: skip
def test_access_in_other_shapes_is_none(tmp_path: Path, access: object) -> None:
    found = TokenVerifier(pem(tmp_path, EC)).verify(token(access=access))
    assert not any(found.allows(action, "a") for action in ("read", "create", "update", "delete"))


def test_a_subject_that_is_no_text_is_none(tmp_path: Path) -> None:
    verifier = TokenVerifier(pem(tmp_path, EC))
    for subject in ("\ud800", "ann\udfff"):
        signed = jws.serialize_compact({"alg": "ES256"}, json.dumps({**CLAIMS, "sub": subject}).encode(), EC)
        assert verifier.verify(signed).subject == ""


def test_heads_of_any_shape_are_refused(tmp_path: Path) -> None:
    _, body, signature = token().split(".")
    verifier = TokenVerifier(jwks(tmp_path, EC, RSA))
    heads = [
        "[]", "{}", "null", "7", '"x"', '{"alg":["ES256"]}', '{"alg":{}}', '{"alg":7}', '{"alg":null}',
        '{"alg":"ES256","kid":[]}', '{"alg":"ES256","kid":{}}', '{"alg":"ES256","kid":7}',
        '{"alg":"ES256","kid":"one","crit":["x"]}', '{"alg":"ES256","kid":"one","b64":false,"crit":["b64"]}',
        '{"alg":"dir","enc":"A128GCM"}', '{"alg":NaN}', "[" * 6000, '{"a":' * 2000, '{"alg":1' + "0" * 5000 + "}",
    ]  # fmt: skip
    for head in heads:
        with pytest.raises(Unauthorized):
            verifier.verify(f"{encoded(head.encode())}.{body}.{signature}")
    for text in (f"{token()}.a.b", "a.b.c.d.e", "....", f"{encoded(b'{')}.{body}.{signature}"):
        with pytest.raises(Unauthorized):
            verifier.verify(text)


def test_the_challenge_names_what_is_needed(tmp_path: Path) -> None:
    verifier = TokenVerifier(pem(tmp_path, EC))
    start = 'Bearer realm="https://auth.example/token",service="registry"'
    assert verifier.challenge([]) == start
    assert verifier.challenge([("a", "read")]) == f'{start},scope="repository:a:pull"'
    assert verifier.challenge([("a", "create"), ("b", "read")], "insufficient_scope") == (
        f'{start},scope="repository:a:pull,push repository:b:pull",error="insufficient_scope"'
    )
    assert verifier.challenge([("a", "delete")]) == f'{start},scope="repository:a:delete"'


def test_files_without_public_keys_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    secret = {"keys": [EC.as_dict(private=True)]}
    shared = {"keys": [jwk.OctKey.generate_key(256).as_dict(private=True)]}
    contents = ["", "{}", "[]", '{"keys": []}', '{"keys": [{}]}', json.dumps(secret), json.dumps(shared)]
    for content in contents:
        path.write_text(content)
        with pytest.raises(ConfigError) as caught:
            TokenVerifier(replace(CONFIG, jwks=str(path)))
        assert str(path) in caught.value.message
    for key in (EC.as_pem(private=True), b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", b"x"):
        path.write_bytes(key)
        with pytest.raises(ConfigError) as caught:
            TokenVerifier(replace(CONFIG, cert=str(path)))
        assert str(path) in caught.value.message
    with pytest.raises(ConfigError, match="No such file"):
        TokenVerifier(replace(CONFIG, cert=str(tmp_path / "absent")))


def test_a_token_says_nothing_of_manifests_with_several_tags(tmp_path: Path) -> None:
    """So a bearer may delete by digest."""
    found = TokenVerifier(jwks(tmp_path, EC)).verify(token())
    identity = Identity(User("ann"), AccessRules(None, login_possible=True), found)
    assert not identity.allows("detectManifestCollision", "team/app")


def test_a_token_is_no_password_of_basic(tmp_path: Path) -> None:
    logins = Logins(HttpConfig(auth=AuthConfig(bearer=jwks(tmp_path, EC))))
    assert not isinstance(logins.identify(f"Bearer {token()}", None, ""), PasswordCheck)
    with pytest.raises(Unauthorized):
        logins.identify(f"Basic {token()}", None, "")
