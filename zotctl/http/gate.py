"""Who may do what: every request passes here, between its route and its handler.

The row of an endpoint says what a client needs for it, so that no endpoint is without an answer. What is refused is
refused before anything is looked up: the answer does not tell what exists. `docs/access.md` has the table.
"""

from __future__ import annotations

import asyncio
import logging
import re
from enum import Enum
from typing import TYPE_CHECKING, Any

from zotctl.auth.logins import Identity, Logins, PasswordCheck
from zotctl.auth.proxies import TrustedProxies
from zotctl.config import HttpConfig
from zotctl.errors import AccessDenied, BlobUploadUnknown, TagsCollide, Unauthorized
from zotctl.http.errors import Refused
from zotctl.http.ratelimit import client_key
from zotctl.logs import audit
from zotctl.oci.digest import Digest
from zotctl.oci.reference import is_name
from zotctl.storage import Condition, WouldBlock
from zotctl.storage.keys import is_upload_of

if TYPE_CHECKING:
    from zotctl.http.request import Request
    from zotctl.storage.index import Index


# Docker, and what has the library of skopeo inside (containers/image#2754).
_WAITS_FOR_CHALLENGE = re.compile(
    r".*Docker-Client|(docker|skopeo|buildah|podman|libpod|cri-o|containers)/", re.IGNORECASE
).match


class Need(Enum):
    """What a client needs for an endpoint. The words of the values are those of access policies."""

    NOTHING = ""
    """Health: the process that asks has no login."""
    ADMISSION = "admission"
    """Any login, or a policy for clients without one. What is listed is filtered by the handler."""
    LOGIN = "login"
    """Any login, and not a client without one."""
    METRICS = "metrics"
    READ = "read"
    CREATE = "create"
    WRITE = "create or update"
    """Of tags: the commit decides which of the two, since it knows what is there."""
    DELETE = "delete"


class Gate:
    """The rules of one configuration, and the ways to log in."""

    def __init__(self, config: HttpConfig) -> None:
        """Raises ConfigError if a file of passwords or keys cannot be used."""
        self.logins = Logins(config)
        self.anonymous = self.logins.anonymous
        self._config, self._proxies = config, TrustedProxies(config.trusted_proxies)
        claims = ("forwarded", "x-forwarded-for", "x-forwarded-proto", (config.user_header or "").lower())
        self._claims = tuple(filter(None, claims)) if config.trusted_proxies else ()
        self._is_open = self.logins.rules.is_open
        """A request has the identity of a client without a login from its start: there is nothing to find out."""
        self._log = logging.getLogger("zotctl.http")

    # -- the client ------------------------------------------------------------------------------

    def client(self, request: Request) -> str:
        """The address of the client, behind proxies that are trusted."""
        peer = request.connection.client
        if not self._config.trusted_proxies or peer not in self._proxies:
            return peer
        headers = request.headers
        return self._proxies.client(peer, headers.get("forwarded", ""), headers.get("x-forwarded-for", ""))

    def proxied_by_tls(self, request: Request) -> bool:
        """Whether a trusted proxy says that the client speaks HTTPS with it."""
        by = request.connection.client in self._proxies if self._config.trusted_proxies else False
        return by and request.headers.get("x-forwarded-proto", "").lower() == "https"

    def drops_claims(self, request: Request) -> bool:
        """Whether a request has headers that only a trusted proxy may send: they are dropped, and counted."""
        claims = any(name in request.headers for name in self._claims)
        return claims and request.connection.client not in self._proxies

    def admit(self, request: Request, need: Need) -> None:
        """Let a request pass, with its identity, or raise Refused.

        It does not wait: it raises WouldBlock where `admit_waiting` has to, for the check of a password, or before a
        wrong login is refused.
        """
        if self._is_open or need is Need.NOTHING:
            return
        try:
            found = self._identify(request)
        except Unauthorized as error:
            if self._delay(request):
                raise WouldBlock from None
            raise self._unauthorized(request, need, error, None) from None
        if isinstance(found, PasswordCheck):
            raise WouldBlock
        self._permit(request, need, found)

    async def admits(self, request: Request, need: Need) -> bool:
        """Whether `admit_waiting` lets a request pass."""
        try:
            await self.admit_waiting(request, need)
        except Refused:
            return False
        return True

    async def admit_waiting(self, request: Request, need: Need) -> None:
        """`admit`, which waits for a thread that checks a password. A wrong login waits for `fail_delay`.

        Raises ConnectionResetError if the client leaves meanwhile.
        """
        if self._is_open or need is Need.NOTHING:
            return
        user = None
        try:
            found = self._identify(request)
            if isinstance(found, PasswordCheck):
                request.connection.service.limits.take_check(request)
                user, check = found.user, found.begin(client_key(self.client(request)))
                if not await request.connection.attend(asyncio.wrap_future(check)):
                    raise Unauthorized("wrong name or password")
                found = found.passed
        except Unauthorized as error:
            refused = self._unauthorized(request, need, error, user)
            if delay := self._delay(request):
                await request.connection.stay(delay)
            raise refused from None
        self._permit(request, need, found)

    def shows_health(self, request: Request) -> bool:
        """Whether an admitted client may see how the store is: those who may read the metrics."""
        return self._is_open or self.logins.rules.allows_metrics(request.identity.user)

    def offers_login(self, request: Request) -> bool:
        """Whether a client without a login could give one by name and password."""
        return request.identity.user.is_anonymous and not self._is_open and self.logins.takes_passwords

    def refuse_waiting(self) -> None:
        """The server stops: refuse the logins that wait for their check."""
        self.logins.refuse_waiting()

    def close(self) -> None:
        """End the threads that check passwords."""
        self.logins.close()

    def _identify(self, request: Request) -> Identity | PasswordCheck:
        headers = request.headers
        proxied = self._config.user_header
        return self.logins.identify(
            headers.get("authorization", ""),
            request.certificate,
            headers.get(proxied.lower(), "") if proxied and request.connection.client in self._proxies else "",
        )

    def _delay(self, request: Request) -> float:
        """Seconds that a wrong login waits for its answer. Who asks without one, to be told how, does not wait."""
        return self._config.auth.fail_delay if "authorization" in request.headers else 0.0

    def _permit(self, request: Request, need: Need, identity: Identity) -> None:
        request.identity = identity
        rules, user, name = self.logins.rules, identity.user, request.name
        if need is Need.METRICS:
            allowed = rules.allows_metrics(user)
        elif user.is_anonymous and not rules.admits_anonymous:
            allowed = False
        elif need is Need.LOGIN:
            allowed = not user.is_anonymous
        elif need is Need.ADMISSION:
            allowed = not self._asks_for_login(request, identity)
        elif need is Need.WRITE:
            allowed = identity.allows("create", name) or identity.allows("update", name)
        else:
            allowed = identity.allows(need.value, name)
        if not allowed:
            raise self.refused(request, need, AccessDenied(f"{user.name!r} may not {need.value} here"))

    def _asks_for_login(self, request: Request, identity: Identity) -> bool:
        """Some clients send their login only if the first request of all was refused without one. So it is, where a
        login may do more than a client without one. They go on without a login if they have none."""
        return (
            identity.user.is_anonymous
            and request.path in ("/v2/", "/v2")
            and _WAITS_FOR_CHALLENGE(request.headers.get("user-agent", "")) is not None
            and self.logins.takes_passwords
            and self.logins.rules.has_users_beside_anonymous
        )

    # -- refusals --------------------------------------------------------------------------------

    def refused(self, request: Request, need: Need, error: AccessDenied) -> Refused:
        """What a client gets that may not do something: 403, or 401 if a login or another token might help."""
        identity = request.identity
        if identity.token is not None:
            return self._unauthorized(request, need, Unauthorized("the token does not allow this"), identity.user.name)
        if identity.user.is_anonymous:
            return self._unauthorized(request, need, Unauthorized("a login is needed"), None)
        self._note(request, identity.user.name, error.message)
        return Refused(error)

    def _unauthorized(self, request: Request, need: Need, error: Unauthorized, user: str | None) -> Refused:
        insufficient = request.identity.token is not None
        if "authorization" in request.headers:
            self._note(request, user, error.message)
        challenge = self.logins.challenge(_scopes(request, need), insufficient=insufficient)
        return Refused(error, [("WWW-Authenticate", challenge)] if challenge is not None else [])

    def _note(self, request: Request, user: str | None, reason: str) -> None:
        """A refusal, for the log and the audit file. The password is in neither."""
        fields: dict[str, Any] = {
            "request_id": request.id, "client": self.client(request), "user": user,
            "method": request.method, "repository": request.name or None, "reason": reason,
        }  # fmt: skip
        audit(self._log, f"refused: {reason}", fields)


def _scopes(request: Request, need: Need) -> list[tuple[str, str]]:
    """What a token has to allow for this request. What is no name of a repository is not sent back in a header."""
    if need in (Need.ADMISSION, Need.LOGIN, Need.METRICS):
        return []
    scopes = [(request.name, "create" if need is Need.WRITE else need.value)]
    if request.method == "POST" and (source := request.param("from")):
        scopes.append((source, "read"))
    return [(name, action) for name, action in scopes if is_name(name)]


# -- tags ----------------------------------------------------------------------------------------


def push_condition(identity: Identity, name: str, reference: Digest | str, tags: list[str]) -> Condition | None:
    """What a push of a manifest may do, decided by the commit, which knows the tags that are there.

    A tag that is there needs `update`, a new one `create`. A push by digest needs `create` also if it has no tag.
    None: the client may do both. The condition raises AccessDenied.
    """
    may = {action: identity.allows(action, name) for action in ("create", "update")}
    if all(may.values()):
        return None

    def check(index: Index) -> None:
        moved = [tag for tag in tags if index.find(tag) is not None]
        added = [tag for tag in tags if tag not in moved]
        if moved and not may["update"]:
            raise AccessDenied(f"the tag {moved[0]!r} exists, and you may not move tags here")
        if (added or (isinstance(reference, Digest) and not moved)) and not may["create"]:
            raise AccessDenied(f"you may not create {added[0] if added else reference!s} here")

    return check


def delete_condition(identity: Identity, name: str, reference: Digest | str) -> Condition | None:
    """zot's `detectManifestCollision`: a manifest that has several tags is not deleted by its digest.

    None: the client has no such policy. The condition raises TagsCollide.
    """
    if not isinstance(reference, Digest) or not identity.allows("detectManifestCollision", name):
        return None

    def check(index: Index) -> None:
        if len(tags := index.tags_of(reference)) > 1:
            raise TagsCollide(f"{reference} has the tags {', '.join(tags)}; delete the tags, not the manifest", tags)

    return check


# -- uploads -------------------------------------------------------------------------------------


def own_upload(identity: Identity, upload_id: str) -> str:
    """`upload_id`, if this client began the upload. Raises BlobUploadUnknown for that of another client."""
    if not is_upload_of(upload_id, identity.user.name):
        raise BlobUploadUnknown(f"no upload {upload_id[:80]!r} in this repository")
    return upload_id
