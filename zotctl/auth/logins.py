"""Who sends a request: from a proxy, a password, a token or a client certificate.

The order is zot's. A login that is given and wrong is refused, also where clients without one may come in. With bearer
tokens nothing else is a login, since the token says what its bearer may do.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from zotctl.auth.certificates import name_in
from zotctl.auth.policy import AccessRules
from zotctl.auth.users import ANONYMOUS, User
from zotctl.config import HttpConfig, ways_in
from zotctl.errors import ConfigError, Unauthorized

if TYPE_CHECKING:
    from zotctl.auth.passwords import PasswordFile
    from zotctl.auth.tokens import Token, TokenVerifier

_NO_LOGIN = "basic og=="
"""What some clients send without a login: the empty name and the empty password."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A client, and by which rules it may do something. Thread-safe; it never changes."""

    user: User
    rules: AccessRules
    token: Token | None = None

    def allows(self, action: str, repository: str) -> bool:
        """Whether the client may do `action` (read, create, update, delete) in `repository`.

        May raise NameInvalid for what no repository may be called.
        """
        if self.token is not None:
            return action != "detectManifestCollision" and self.token.allows(action, repository)
        return self.rules.allows(self.user, action, repository)


@dataclass(frozen=True, slots=True)
class PasswordCheck:
    """A login whose password takes a while to check. `begin` does that in the turn of a client, and `passed` is the
    identity if it is right. `begin` raises TooManyRequests if too many checks wait, and so may its future. A caller
    that waits no more cancels the future."""

    user: str
    passed: Identity
    begin: Callable[[Hashable], Future[bool]] = field(repr=False)


class Logins:
    """The ways to log in of one configuration. Thread-safe."""

    def __init__(self, config: HttpConfig) -> None:
        """Raises ConfigError if a file of passwords or keys cannot be used, or a library is not installed."""
        self.rules = AccessRules(config.access_control, login_possible=ways_in(config))
        self._passwords = _passwords(config)
        self.tokens = _tokens(config)
        self._certificates = config.auth.mtls if config.tls is not None and config.tls.client_ca is not None else None
        self._realm = config.realm.replace("\\", "\\\\").replace('"', '\\"')
        self.anonymous = Identity(ANONYMOUS, self.rules)

    def identify(
        self, authorization: str, certificate: Mapping[str, Any] | None, proxied: str
    ) -> Identity | PasswordCheck:
        """The client of a request; it does not wait.

        `authorization` is the value of the Authorization header, `certificate` what `getpeercert` returned for a
        verified client certificate, `proxied` the value of `http.user_header` from a trusted proxy. Headers that are
        absent are "", and those that are repeated are joined by commas, which no login has. Raises Unauthorized for a
        login that is wrong.
        """
        if self.tokens is not None:
            return self._bearer(self.tokens, authorization)
        if "," in proxied:
            raise Unauthorized("the proxy names more than one user")
        if proxied:
            return self._user(proxied)
        if self._passwords is not None and authorization and authorization.lower() != _NO_LOGIN:
            return self._basic(self._passwords, authorization)
        if self._certificates is not None and certificate:
            name = name_in(certificate, self._certificates)
            if name is None:
                raise Unauthorized("the client certificate names no user")
            return self._user(name)
        return self.anonymous

    def challenge(self, scopes: Sequence[tuple[str, str]] = (), *, insufficient: bool = False) -> str | None:
        """The value of WWW-Authenticate (RFC 9110, section 11.6.1); None if no login could be sent by HTTP.

        `scopes` are pairs of repository and action that a token has to allow.
        """
        if self.tokens is not None:
            return self.tokens.challenge(scopes, "insufficient_scope" if insufficient else None)
        return f'Basic realm="{self._realm}", charset="UTF-8"' if self._passwords is not None else None

    @property
    def takes_passwords(self) -> bool:
        """Whether a client may log in by name and password."""
        return self._passwords is not None

    def refuse_waiting(self) -> None:
        """The server stops: refuse the logins that wait for a thread to check their password."""
        if self._passwords is not None:
            self._passwords.refuse_waiting()

    def close(self) -> None:
        """End the threads that check passwords."""
        if self._passwords is not None:
            self._passwords.close()

    def _user(self, name: str) -> Identity:
        return Identity(self.rules.user(name), self.rules)

    def _basic(self, passwords: PasswordFile, given: str) -> Identity | PasswordCheck:
        # RFC 7617, section 2
        scheme, _, encoded = given.partition(" ")
        try:
            if scheme.lower() != "basic":
                raise ValueError
            decoded = b64decode(encoded.strip(), validate=True)
        except (ValueError, binascii.Error):
            raise Unauthorized("the Authorization header is not of the scheme Basic") from None
        name, colon, password = decoded.partition(b":")
        user = name.decode("utf-8", "surrogateescape")
        if not colon or not user:
            raise Unauthorized("the Authorization header names no user")
        identity = self._user(user)
        if passwords.known(user, password):
            return identity
        return PasswordCheck(user, identity, partial(passwords.check, user, password))

    def _bearer(self, tokens: TokenVerifier, authorization: str) -> Identity:
        scheme, _, text = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthorized("a bearer token is needed")
        token = tokens.verify(text.strip())
        return Identity(User(token.subject or "token"), self.rules, token)


def _passwords(config: HttpConfig) -> PasswordFile | None:
    if config.auth.htpasswd is None:
        return None
    from zotctl.auth.passwords import PasswordFile

    return PasswordFile(config.auth.htpasswd)


def _tokens(config: HttpConfig) -> TokenVerifier | None:
    if config.auth.bearer is None:
        return None
    try:
        from zotctl.auth.tokens import TokenVerifier
    except ImportError:
        raise ConfigError("http.auth.bearer: needs joserfc; install it: pip install 'zotctl[bearer]'") from None
    return TokenVerifier(config.auth.bearer)
