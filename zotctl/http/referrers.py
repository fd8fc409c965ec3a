"""The list of referrers: end-12."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from zotctl.errors import NameUnknown
from zotctl.http.answer import Answer
from zotctl.http.pages import next_link
from zotctl.http.request import Request
from zotctl.oci.descriptor import Descriptor
from zotctl.oci.digest import Digest, parse_digest
from zotctl.oci.media_types import OCI_INDEX
from zotctl.oci.reference import parse_name

if TYPE_CHECKING:
    from zotctl.http.service import Service

PAGE_BYTES = 4 << 20
"""An answer is an index, and clients are only expected to take manifests of 4 MB."""

_HEAD = b'{"schemaVersion":2,"mediaType":"%s","manifests":[' % OCI_INDEX.encode()
_TAIL = b"]}"


def list_referrers(service: Service, request: Request, wait: bool) -> Answer:
    """GET of the manifests whose subject is a digest, all or of one artifactType, as an index."""
    name, digest = parse_name(request.name), parse_digest(request.decoded_reference())
    wanted, last = request.param("artifactType"), request.param("last")
    # "OCI-Filters-Applied: artifactType denoting that an artifactType filter was applied"
    headers = [("OCI-Filters-Applied", "artifactType")] if wanted else []
    if last is None and (body := _whole(service, name, digest, wanted, wait)):
        return Answer(200, headers, body, content_type=OCI_INDEX)
    found = service.store.repository(name, wait=wait).referrers(digest, wanted)
    page, more = _page(found, parse_digest(last) if last else "", service.config.referrers_page)
    # "A Link header MUST be included in the response when the descriptor list cannot be returned in a
    # single manifest."
    if more:
        headers.append(next_link(request.path, artifactType=wanted, last=page[-1].digest))
    return Answer(200, headers, _render(page), content_type=OCI_INDEX)


def _whole(service: Service, name: str, digest: Digest, wanted: str | None, wait: bool) -> bytes:
    """The list as one page, empty for a repository that is not here; no byte if it takes more than one.

    "the registry MUST NOT return a 404 Not Found to a referrers API requests"
    """
    try:
        repository = service.store.repository(name, wait=wait)
        generation, key = repository.generation(), ("referrers", name, digest, wanted)
    except NameUnknown:
        return _HEAD + _TAIL
    body = service.pages.get(key, generation)
    if body is None:
        page, more = _page(repository.referrers(digest, wanted), "", service.config.referrers_page)
        body = b"" if more else _render(page)
        service.pages.put(key, generation, body)
    return body


def _page(found: list[Descriptor], after: str, count: int) -> tuple[list[Descriptor], bool]:
    """By digest, so that a page goes on where the last one ended whatever came or went between."""
    rest = sorted((d for d in found if d.digest > after), key=lambda d: d.digest)
    size = 0
    for position, descriptor in enumerate(rest):
        size += len(msgspec.json.encode(descriptor)) + 1
        if position == count or (position and size > PAGE_BYTES):
            return rest[:position], True
    return rest, False


def _render(descriptors: list[Descriptor]) -> bytes:
    return _HEAD + msgspec.json.encode(descriptors)[1:-1] + _TAIL
