"""Bearer tokens of an authorization service: distribution's token authentication (JWT, RFC 7519).

A token is signed by the service and lists what its bearer may do; this registry checks it with the public keys of the
service, without a request to it. The library joserfc comes with the extra `zotctl[bearer]`.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate
from joserfc import jwk, jwt
from joserfc.errors import JoseError, SecurityWarning

from zotctl.config import BearerConfig
from zotctl.errors import ConfigError, Unauthorized, about_file
from zotctl.oci.codec import load_json

# EdDSA is the older name of Ed25519 (RFC 9864), and services still use it.
warnings.filterwarnings("ignore", category=SecurityWarning)

ALGORITHMS = (
    "EdDSA", "Ed25519", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512",
)  # fmt: skip
"""Signatures by a private key. `none` is no signature, and a shared secret would have to be known here."""
TOKEN_CHARACTERS = 16_384
VERBS = {"read": "pull", "create": "push", "update": "push", "delete": "delete"}
"""The words of tokens for the actions of access policies."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token that was checked: whom it names, and what its bearer may do."""

    subject: str
    access: tuple[Mapping[str, Any], ...]
    expires: float

    def allows(self, action: str, repository: str, now: float | None = None) -> bool:
        """Whether an entry of the token allows `action`, a word of access policies, in `repository`."""
        at = time.time() if now is None else now
        return any(
            entry.get("type") == "repository"
            and entry.get("name") == repository
            and VERBS[action] in _words(entry.get("actions"))
            and _is_current(entry.get("exp"), at)
            for entry in self.access
        )


class TokenVerifier:
    """The keys and rules of one configuration. Thread-safe; it never changes."""

    def __init__(self, config: BearerConfig) -> None:
        """Raises ConfigError if the file with the keys cannot be used."""
        self._config, self._keys = config, _load_keys(config)

    def verify(self, text: str) -> Token:
        """The token, if it is signed by one of the keys and current. Raises Unauthorized."""
        if len(text) > TOKEN_CHARACTERS:
            raise Unauthorized("the token is too long")
        try:
            claims = jwt.decode(text, self._keys, algorithms=list(ALGORITHMS)).claims
            jwt.JWTClaimsRegistry(leeway=0).validate(claims)
        except (JoseError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise Unauthorized(f"the token is not valid: {type(error).__name__}") from None
        self._check(claims)
        access = claims.get("access")
        entries = tuple(entry for entry in access if isinstance(entry, dict)) if isinstance(access, list) else ()
        subject, expires = claims.get("sub"), claims.get("exp")
        if not isinstance(subject, str) or not _is_text(subject):
            subject = ""
        return Token(subject, entries, float("inf") if expires is None else expires)

    def _check(self, claims: Mapping[str, Any]) -> None:
        if self._config.issuer is not None and claims.get("iss") != self._config.issuer:
            raise Unauthorized("the token is of another issuer")
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if self._config.check_audience and self._config.service not in audiences:
            raise Unauthorized("the token is for another service")

    def challenge(self, scopes: Iterable[tuple[str, str]], error: str | None = None) -> str:
        """The value of WWW-Authenticate for a request that needs `scopes`: pairs of repository and action."""
        wanted = " ".join(f"repository:{name}:{_asked(action)}" for name, action in scopes)
        parts = [f'realm="{self._config.realm}"', f'service="{self._config.service}"']
        parts += [f'scope="{wanted}"'] if wanted else []
        return "Bearer " + ",".join(parts + ([f'error="{error}"'] if error else []))


def _is_text(value: str) -> bool:
    """False for lone surrogates, which JSON can name and no encoder takes."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _asked(action: str) -> str:
    """A client that pushes looks for what is there, too, so that one token serves for both."""
    verb = VERBS[action]
    return "pull,push" if verb == "push" else verb


def _words(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_current(expires: object, now: float) -> bool:
    """Whether a NumericDate (RFC 7519, section 2) is to come. Infinity, which Python's JSON knows, is none."""
    return expires is None or (isinstance(expires, int | float) and now < expires < math.inf)


def _load_keys(config: BearerConfig) -> jwk.Key | jwk.KeySet:
    path = config.jwks or config.cert or ""
    try:
        with open(path, "rb") as stream:
            content = stream.read()
        keys = jwk.KeySet.import_key_set(load_json(content)) if config.jwks else _load_pem(content)
    except OSError as error:
        raise ConfigError(f"http.auth.bearer: {about_file(path, error)}") from None
    except (JoseError, ValueError, TypeError, KeyError) as error:
        wanted = "a JSON Web Key Set" if config.jwks else "a public key or certificate in PEM"
        raise ConfigError(f"http.auth.bearer: {path}: not {wanted}: {error}") from None
    for key in keys if isinstance(keys, jwk.KeySet) else [keys]:
        if key.key_type == "oct" or key.is_private:
            raise ConfigError(f"http.auth.bearer: {path}: a secret key; give the public key alone")
    return keys


def _load_pem(content: bytes) -> jwk.Key:
    """One key, which every token is checked with, whatever key its header names."""
    if b"-----BEGIN CERTIFICATE-----" in content:
        public = load_pem_x509_certificate(content).public_key()
        content = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    key = load_pem_public_key(content)
    if isinstance(key, RSAPublicKey):
        return jwk.import_key(content, "RSA")
    return jwk.import_key(content, "EC" if isinstance(key, EllipticCurvePublicKey) else "OKP")
