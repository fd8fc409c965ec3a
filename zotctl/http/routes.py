"""The table of endpoints, and how a path finds its row.

The path is matched raw and from its end, since a name may hold any number of slashes: no segment after
the name can hold one, and `%2F` is left as it is, to be refused as part of a name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zotctl.errors import NameUnknown, Unsupported
from zotctl.http import blobs, health, lists, manifests, uploads
from zotctl.http.answer import Answer
from zotctl.http.errors import Refused
from zotctl.http.request import Request

if TYPE_CHECKING:
    from zotctl.http.service import Service

Act = Callable[["Service", Request], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class RouteMatch:
    """A handler that reads only what is in memory, unless its last argument allows it to wait."""

    call: Callable[[Service, Request, bool], Answer]


Handler = Act | RouteMatch

_UPLOADS, _UPLOAD = "/v2/<name>/blobs/uploads/", "/v2/<name>/blobs/uploads/<id>"
_BLOB, _MANIFEST = "/v2/<name>/blobs/<digest>", "/v2/<name>/manifests/<reference>"
_TAGS, _REFERRERS = "/v2/<name>/tags/list", "/v2/<name>/referrers/<digest>"

# distribution-spec, section "Endpoints"; the ids are its own. HEAD is answered wherever GET is,
# as a GET whose body stays here.
ENDPOINTS: tuple[tuple[str, str, str, Handler], ...] = (
    ("end-1", "GET", "/v2/", RouteMatch(lists.support)),
    ("end-2", "GET", _BLOB, blobs.pull),
    ("end-2", "HEAD", _BLOB, RouteMatch(blobs.stat)),
    ("end-3", "GET", _MANIFEST, RouteMatch(manifests.pull)),
    ("end-4a, end-4b, end-4c, end-11", "POST", _UPLOADS, uploads.start),
    ("end-5", "PATCH", _UPLOAD, uploads.append),
    ("end-6", "PUT", _UPLOAD, uploads.finish),
    ("end-7a, end-7b", "PUT", _MANIFEST, manifests.push),
    ("end-8a, end-8b", "GET", _TAGS, RouteMatch(lists.list_tags)),
    ("end-9", "DELETE", _MANIFEST, manifests.delete),
    ("end-10", "DELETE", _BLOB, blobs.delete),
    ("end-12a, end-12b", "GET", _REFERRERS, RouteMatch(lists.list_referrers)),
    ("end-13", "GET", _UPLOAD, uploads.status),
    ("end-14", "DELETE", _UPLOAD, uploads.cancel),
    ("catalog", "GET", "/v2/_catalog", lists.list_repositories),
    ("discover", "GET", "/v2/_oci/ext/discover", RouteMatch(lists.discover)),
    ("livez", "GET", "/livez", RouteMatch(health.live)),
    ("readyz", "GET", "/readyz", health.ready),
    ("startupz", "GET", "/startupz", RouteMatch(health.started)),
)


@dataclass(frozen=True, slots=True)
class Resource:
    """One row for each path: what its methods do."""

    pattern: str
    handlers: Mapping[str, Handler]

    @property
    def allow(self) -> str:
        """The value of Allow."""
        return ", ".join(sorted({*self.handlers, "OPTIONS"}))


def _resource(pattern: str) -> Resource:
    handlers = {method: handler for _, method, row, handler in ENDPOINTS if row == pattern}
    if "GET" in handlers:
        handlers.setdefault("HEAD", handlers["GET"])
    return Resource(pattern, handlers)


def reading(path: str, handler: Handler) -> Resource:
    """A path of its own that is only read."""
    return Resource(path, {"GET": handler, "HEAD": handler})


def names(*more: str) -> tuple[str, ...]:
    """Every route that a request may get, none ("") first, and those that the configuration adds last."""
    return ("", *dict.fromkeys(pattern for _, _, pattern, _ in ENDPOINTS), *more)


ROUTE_COUNT = len(names("the one of metrics"))
EXACT = {pattern: _resource(pattern) for _, _, pattern, _ in ENDPOINTS if "<" not in pattern}
EXACT["/v2"] = EXACT["/v2/"]
"""Paths without a name in them."""
_BLOBS, _SESSIONS, _SESSION = _resource(_BLOB), _resource(_UPLOADS), _resource(_UPLOAD)
_MANIFESTS, _TAG_LIST, _REFERRER_LIST = _resource(_MANIFEST), _resource(_TAGS), _resource(_REFERRERS)


def find(request: Request, exact: Mapping[str, Resource] = EXACT) -> Handler:
    """The handler for a request, which gets its route, name and reference.

    Raises NameUnknown (404) for a path that is no endpoint, Unsupported (405) for another method.
    """
    resource = exact.get(request.path) or _match(request)
    if resource is None:
        raise NameUnknown(f"{request.path[:300]!r} is no endpoint of this registry")
    request.route = resource.pattern
    handler = resource.handlers.get(request.method)
    return handler if handler is not None else _other_method(resource, request.method)


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


def _blobs(request: Request) -> Resource:
    # Many clients drop the trailing slash.
    return _SESSIONS if request.reference == "uploads" else _BLOBS


def _uploads(request: Request) -> Resource | None:
    request.name, slash, blobs_noun = request.name.rpartition("/")
    if not slash or blobs_noun != "blobs":
        return None
    return _SESSION if request.reference else _SESSIONS


def _other_method(resource: Resource, method: str) -> Handler:
    allow = ("Allow", resource.allow)
    if method != "OPTIONS":
        raise Refused(Unsupported(f"{method} is not defined for {resource.pattern}"), [allow])

    async def options(service: Service, request: Request) -> Answer:
        return Answer(204, [allow, *_preflight(service, resource)])

    return options


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
