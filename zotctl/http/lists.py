"""Lists: repositories (end-1, the catalog and the extensions), tags (end-8), and referrers (end-12).

Each is answered in pages with a Link to the next. Answers that need no page are kept for as long as their repository
stays as it is.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from zotctl.errors import NameUnknown, PageInvalid
from zotctl.http.answer import JSON, Answer, json_answer
from zotctl.http.request import Request
from zotctl.oci.descriptor import Descriptor
from zotctl.oci.digest import Digest, parse_digest
from zotctl.oci.media_types import OCI_INDEX
from zotctl.oci.reference import parse_name
from zotctl.storage.cache import Lru

if TYPE_CHECKING:
    from zotctl.http.service import Service

CACHED_BYTES = 16 << 20
"""Of rendered lists, in each worker."""
ENTRY_OVERHEAD_BYTES = 1000
PAGE_BYTES = 4 << 20
"""A list of referrers is an index, and clients are only expected to take manifests of 4 MB."""

FILTERED_REPOSITORIES = 1000
"""At least so many are looked at together when a page is not full: few may be readable."""

_PAGE_DIGITS = 18
_REFERRERS_HEAD = b'{"schemaVersion":2,"mediaType":"%s","manifests":[' % OCI_INDEX.encode()
_REFERRERS_TAIL = b"]}"


class Pages:
    """Rendered answers, each good for one generation of its repository; what was used last stays. Thread-safe."""

    def __init__(self, limit_bytes: int = CACHED_BYTES) -> None:
        self._limit = limit_bytes
        self._kept: Lru[Hashable, tuple[Hashable, bytes]] = Lru(limit_bytes)

    def get(self, key: Hashable, generation: Hashable) -> bytes | None:
        """The bytes kept under `key`, if they are of this generation."""
        found = self._kept.get(key)
        return found[1] if found is not None and found[0] == generation else None

    def put(self, key: Hashable, generation: Hashable, body: bytes) -> None:
        """Keep `body` in place of what was under `key`."""
        weight = len(body) + ENTRY_OVERHEAD_BYTES
        if weight > self._limit:
            self._kept.drop(key)
        else:
            self._kept.put(key, (generation, body), weight)


def page_size(request: Request) -> int | None:
    """The query parameter `n`; None if absent. Raises PageInvalid."""
    value = request.param("n")
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= _PAGE_DIGITS):
        raise PageInvalid(f"n={value[:100]!r} is not a number of entries, 0 or more")
    return int(value)


def next_link(path: str, **query: str | int | None) -> tuple[str, str]:
    """The Link header for the page that follows (RFC 8288)."""
    words = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in query.items() if value is not None)
    return "Link", f'<{path}?{words}>; rel="next"'


# -- the registry as a whole -------------------------------------------------------------------------


def support(service: Service, request: Request, wait: bool) -> Answer:
    """GET of /v2/: this is a registry."""
    return Answer(200, (), b"{}", content_type=JSON)


async def list_repositories(service: Service, request: Request) -> Answer:
    """GET of the names of all repositories, or of `n` after `last`, ordered by their components."""
    n, last = page_size(request), request.param("last")
    page, more = await readable_names(service, request, n, parse_name(last) if last is not None else None)
    headers = [next_link("/v2/_catalog", n=n, last=page[-1])] if page and more else []
    return json_answer(200, {"repositories": page}, headers)


async def readable_names(
    service: Service, request: Request, n: int | None, after: str | None
) -> tuple[list[str], bool]:
    """The names of the repositories that the client may read: `n` after the name `after`, or all; and whether there are
    more."""
    # One more than requested shows whether there is a next page.
    wanted, found = None if n is None else n + 1, list[str]()
    count = wanted or 0
    while wanted is None or len(found) < wanted:
        batch = await _batch(service, None if wanted is None else count, after)
        found += [name for name in batch if request.identity.allows("read", name)]
        if wanted is None or len(batch) < count:
            break
        after, count = batch[-1], max(count, FILTERED_REPOSITORIES)
    page = found if n is None else found[:n]
    return page, len(found) > len(page)


async def _batch(service: Service, count: int | None, after: str | None) -> list[str]:
    """A walk looks at each repository, so clients that ask for the same names at the same time share one."""
    key = ("repositories", count, after)
    return await service.rounds.of(key, lambda: service.move_bytes(service.store.repositories, count, after))


def discover(service: Service, request: Request, wait: bool) -> Answer:
    """GET of the extensions: distribution-spec, extensions/_oci.md. This is the only one."""
    extension = {
        "name": "_oci",
        "url": "https://github.com/opencontainers/distribution-spec/blob/main/extensions/_oci.md",
        "description": "discovery of extensions",
        "endpoints": ["/v2/_oci/ext/discover"],
    }
    return json_answer(200, {"extensions": [extension]})


# -- tags ------------------------------------------------------------------------------------------


def list_tags(service: Service, request: Request, wait: bool) -> Answer:
    """GET of all tags, or of `n` after `last`, in byte order."""
    name = parse_name(request.name)
    n, last = page_size(request), request.param("last")
    repository = service.store.repository(name, wait=wait)
    if n is None and last is None:
        generation = repository.generation()
        body = service.pages.get(("tags", name), generation)
        if body is None:
            body = _render_tags(name, repository.tags())
            service.pages.put(("tags", name), generation, body)
        return Answer(200, (), body, content_type=JSON)
    tags = repository.tags()
    # "beginning non-inclusively with <tagname>"
    start = bisect_right(tags, last) if last is not None else 0
    page = tags[start:] if n is None else tags[start : start + n]
    # "When n is zero, this endpoint MUST return an empty list, and MUST NOT include a Link header."
    more = bool(page) and start + len(page) < len(tags)
    headers = [next_link(f"/v2/{name}/tags/list", n=n, last=page[-1])] if more else []
    return Answer(200, headers, _render_tags(name, page), content_type=JSON)


def _render_tags(name: str, tags: Sequence[str]) -> bytes:
    return msgspec.json.encode({"name": name, "tags": tags})


# -- referrers -------------------------------------------------------------------------------------


def list_referrers(service: Service, request: Request, wait: bool) -> Answer:
    """GET of the manifests whose subject is a digest, all or of one artifactType, as an index."""
    name, digest = parse_name(request.name), parse_digest(request.decoded_reference())
    wanted, last = request.param("artifactType"), request.param("last")
    # "OCI-Filters-Applied: artifactType denoting that an artifactType filter was applied"
    headers = [("OCI-Filters-Applied", "artifactType")] if wanted else []
    if last is None and (body := _on_one_page(service, name, digest, wanted, wait)):
        return Answer(200, headers, body, content_type=OCI_INDEX)
    found = service.store.repository(name, wait=wait).referrers(digest, wanted)
    page, more = _page_of(found, parse_digest(last) if last else "", service.config.referrers_page)
    # "A Link header MUST be included in the response when the descriptor list cannot be returned in a
    # single manifest."
    if more:
        headers.append(next_link(request.path, artifactType=wanted, last=page[-1].digest))
    return Answer(200, headers, _render_referrers(page), content_type=OCI_INDEX)


def _on_one_page(service: Service, name: str, digest: Digest, wanted: str | None, wait: bool) -> bytes:
    """The whole list, empty for a repository that is not here; no byte if it takes more than one page.

    "the registry MUST NOT return a 404 Not Found to a referrers API requests"
    """
    try:
        repository = service.store.repository(name, wait=wait)
        generation, key = repository.generation(), ("referrers", name, digest, wanted)
    except NameUnknown:
        return _REFERRERS_HEAD + _REFERRERS_TAIL
    body = service.pages.get(key, generation)
    if body is None:
        page, more = _page_of(repository.referrers(digest, wanted), "", service.config.referrers_page)
        body = b"" if more else _render_referrers(page)
        service.pages.put(key, generation, body)
    return body


def _page_of(found: list[Descriptor], after: str, count: int) -> tuple[list[Descriptor], bool]:
    """By digest, so that a page goes on where the last one ended whatever came or went between."""
    rest = sorted((d for d in found if d.digest > after), key=lambda d: d.digest)
    size = 0
    for position, descriptor in enumerate(rest):
        size += len(msgspec.json.encode(descriptor)) + 1
        if position == count or (position and size > PAGE_BYTES):
            return rest[:position], True
    return rest, False


def _render_referrers(descriptors: list[Descriptor]) -> bytes:
    return _REFERRERS_HEAD + msgspec.json.encode(descriptors)[1:-1] + _REFERRERS_TAIL
