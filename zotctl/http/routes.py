"""The table of endpoints, and how a path finds its row.

The path is matched raw and from its end, since a name may hold any number of slashes: no segment after
the name can hold one, and `%2F` is left as it is, to be refused as part of a name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zotctl.errors import NameUnknown, Unsupported
from zotctl.http import blobs, health, lists, manifests, page, uploads
from zotctl.http.answer import Answer
from zotctl.http.errors import Refused
from zotctl.http.gate import Need
from zotctl.http.request import Request

if TYPE_CHECKING:
    from zotctl.http.service import Service

Act = Callable[["Service", Request], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class RouteMatch:
    """A handler that reads only what is in memory, unless its last argument allows it to wait. `otherwise`: the one
    that answers in its place where it would have to wait."""

    call: Callable[[Service, Request, bool], Answer]
    otherwise: Act | None = None


Handler = Act | RouteMatch

_UPLOADS, _UPLOAD = "/v2/<name>/blobs/uploads/", "/v2/<name>/blobs/uploads/<id>"
_BLOB, _MANIFEST = "/v2/<name>/blobs/<digest>", "/v2/<name>/manifests/<reference>"
_TAGS, _REFERRERS = "/v2/<name>/tags/list", "/v2/<name>/referrers/<digest>"
_PAGE, _PAGE_TAGS, _PAGE_MANIFEST = "page", "/ui/<name>/tags", "/ui/<name>/manifests/<reference>"
_PAGE_UNTAGGED = "/ui/<name>/untagged"

# distribution-spec, section "Endpoints"; the ids are its own. HEAD is answered wherever GET is,
# as a GET whose body stays here.
# What a client needs is zot's: an upload that is looked at is read, one that is cancelled is deleted.
ENDPOINTS: tuple[tuple[str, str, str, Need, Handler], ...] = (
    ("end-1", "GET", "/v2/", Need.ADMISSION, RouteMatch(lists.support)),
    ("end-2", "GET", _BLOB, Need.READ, RouteMatch(blobs.pull)),
    ("end-2", "HEAD", _BLOB, Need.READ, RouteMatch(blobs.stat)),
    ("end-3", "GET", _MANIFEST, Need.READ, RouteMatch(manifests.pull)),
    ("end-4a, end-4b, end-4c, end-11", "POST", _UPLOADS, Need.CREATE, RouteMatch(uploads.open_session, uploads.start)),
    ("end-5", "PATCH", _UPLOAD, Need.CREATE, uploads.append),
    ("end-6", "PUT", _UPLOAD, Need.CREATE, uploads.finish),
    ("end-7a, end-7b", "PUT", _MANIFEST, Need.WRITE, manifests.push),
    ("end-8a, end-8b", "GET", _TAGS, Need.READ, RouteMatch(lists.list_tags)),
    ("end-9", "DELETE", _MANIFEST, Need.DELETE, manifests.delete),
    ("end-10", "DELETE", _BLOB, Need.DELETE, blobs.delete),
    ("end-12a, end-12b", "GET", _REFERRERS, Need.READ, RouteMatch(lists.list_referrers)),
    ("end-13", "GET", _UPLOAD, Need.READ, uploads.status),
    ("end-14", "DELETE", _UPLOAD, Need.DELETE, uploads.cancel),
    ("catalog", "GET", "/v2/_catalog", Need.ADMISSION, lists.list_repositories),
    ("discover", "GET", "/v2/_oci/ext/discover", Need.ADMISSION, RouteMatch(lists.discover)),
    ("livez", "GET", "/livez", Need.NOTHING, RouteMatch(health.live)),
    ("readyz", "GET", "/readyz", Need.NOTHING, health.ready),
    ("startupz", "GET", "/startupz", Need.NOTHING, RouteMatch(health.started)),
    (_PAGE, "GET", "/", Need.ADMISSION, page.show_repositories),
    (_PAGE, "GET", "/ui/login", Need.LOGIN, page.log_in),
    (_PAGE, "GET", "/ui/health", Need.METRICS, page.show_health),
    (_PAGE, "GET", _PAGE_TAGS, Need.READ, page.show_tags),
    (_PAGE, "GET", _PAGE_UNTAGGED, Need.READ, page.show_untagged),
    (_PAGE, "GET", _PAGE_MANIFEST, Need.READ, page.show_image),
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What a method does on a path, and what a client needs for it."""

    need: Need
    handler: Handler


@dataclass(frozen=True, slots=True)
class Resource:
    """One row for each path: its methods."""

    pattern: str
    endpoints: Mapping[str, Endpoint]

    @property
    def allow(self) -> str:
        """The value of Allow."""
        return ", ".join(sorted({*self.endpoints, "OPTIONS"}))


def _resource(pattern: str) -> Resource:
    endpoints = {method: Endpoint(need, handler) for _, method, row, need, handler in ENDPOINTS if row == pattern}
    if "GET" in endpoints:
        endpoints.setdefault("HEAD", endpoints["GET"])
    return Resource(pattern, endpoints)


def reading(path: str, need: Need, handler: Handler) -> Resource:
    """A path of its own that is only read."""
    endpoint = Endpoint(need, handler)
    return Resource(path, {"GET": endpoint, "HEAD": endpoint})


def names(*more: str) -> tuple[str, ...]:
    """Every route that a request may get, none ("") first, and those that the configuration adds last."""
    return ("", *dict.fromkeys(pattern for _, _, pattern, _, _ in ENDPOINTS), *more)


ROUTE_COUNT = len(names("the one of metrics"))
EXACT = {pattern: _resource(pattern) for _, _, pattern, _, _ in ENDPOINTS if "<" not in pattern}
EXACT["/v2"] = EXACT["/v2/"]
"""Paths without a name in them."""
PAGES = frozenset(pattern for end, _, pattern, _, _ in ENDPOINTS if end == _PAGE)
"""Routes that answer people, errors included."""
WITHOUT_PAGES = {path: resource for path, resource in EXACT.items() if path not in PAGES}
_BLOBS, _SESSIONS, _SESSION = _resource(_BLOB), _resource(_UPLOADS), _resource(_UPLOAD)
_MANIFESTS, _TAG_LIST, _REFERRER_LIST = _resource(_MANIFEST), _resource(_TAGS), _resource(_REFERRERS)
_LIST_PAGES = {"tags": _resource(_PAGE_TAGS), "untagged": _resource(_PAGE_UNTAGGED)}
_MANIFEST_PAGE = _resource(_PAGE_MANIFEST)


def find(request: Request, exact: Mapping[str, Resource] = EXACT) -> Endpoint:
    """The endpoint of a request, which gets its route, name and reference. `exact` without `/`: there are no pages.

    Raises NameUnknown (404) for a path that is no endpoint, Unsupported (405) for another method.
    """
    resource = exact.get(request.path) or _match(request) or (_match_page(request) if "/" in exact else None)
    if resource is None:
        raise NameUnknown(f"{request.path[:300]!r} is no endpoint of this registry")
    request.route = resource.pattern
    endpoint = resource.endpoints.get(request.method)
    return endpoint if endpoint is not None else _other_method(resource, request.method)


def _match(request: Request) -> Resource | None:
    path = request.path
    if not path.startswith("/v2/"):
        return None
    head, _, request.reference = path[4:].rpartition("/")
    request.name, _, noun = head.rpartition("/")
    match noun:
        case "manifests":
            return _MANIFESTS
        case "blobs":
            return _blobs(request)
        case "uploads":
            return _uploads(request)
        case "tags":
            return _TAG_LIST if request.reference == "list" else None
        case "referrers":
            return _REFERRER_LIST
    return None


def _match_page(request: Request) -> Resource | None:
    path = request.path
    if not path.startswith("/ui/"):
        return None
    head, _, last = path[4:].rpartition("/")
    if last in _LIST_PAGES:
        request.name = head
        return _LIST_PAGES[last] if head else None
    request.name, _, noun = head.rpartition("/")
    request.reference = last
    return _MANIFEST_PAGE if noun == "manifests" else None


def _blobs(request: Request) -> Resource:
    # Many clients drop the trailing slash.
    return _SESSIONS if request.reference == "uploads" else _BLOBS


def _uploads(request: Request) -> Resource | None:
    request.name, slash, blobs_noun = request.name.rpartition("/")
    if not slash or blobs_noun != "blobs":
        return None
    return _SESSION if request.reference else _SESSIONS


def _other_method(resource: Resource, method: str) -> Endpoint:
    allow = ("Allow", resource.allow)
    if method != "OPTIONS":
        raise Refused(Unsupported(f"{method} is not defined for {resource.pattern}"), [allow])

    async def options(service: Service, request: Request) -> Answer:
        return Answer(204, [allow, *_preflight(service, resource)])

    # A browser asks without a login what it may ask: https://fetch.spec.whatwg.org, "CORS-preflight fetch".
    return Endpoint(Need.NOTHING, options)


def _preflight(service: Service, resource: Resource) -> list[tuple[str, str]]:
    # https://fetch.spec.whatwg.org, section "CORS-preflight request"; the origin is a common header.
    if not service.config.allow_origin:
        return []
    allowed = "Accept, Authorization, Cache-Control, Content-Range, Content-Type, If-Match, If-None-Match, Range"
    return [
        ("Access-Control-Allow-Methods", resource.allow),
        ("Access-Control-Allow-Headers", allowed),
        ("Access-Control-Max-Age", "86400"),
    ]
