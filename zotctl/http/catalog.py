"""The registry as a whole: end-1, the catalog, and the list of extensions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zotctl.http.answer import JSON, Answer, json_answer
from zotctl.http.pages import next_link, page_size
from zotctl.http.request import Request
from zotctl.oci.reference import parse_name

if TYPE_CHECKING:
    from zotctl.http.service import Service


def support(service: Service, request: Request, wait: bool) -> Answer:
    """GET of /v2/: this is a registry."""
    return Answer(200, (), b"{}", content_type=JSON)


async def list_repositories(service: Service, request: Request) -> Answer:
    """GET of the names of all repositories, or of `n` after `last`, ordered by their components."""
    n, last = page_size(request), request.param("last")
    after = parse_name(last) if last is not None else None
    # One more than requested shows whether there is a next page.
    found = await service.move_bytes(service.store.repositories, None if n is None else n + 1, after)
    page = found if n is None else found[:n]
    headers = [next_link("/v2/_catalog", n=n, last=page[-1])] if page and len(found) > len(page) else []
    return json_answer(200, {"repositories": page}, headers)


def discover(service: Service, request: Request, wait: bool) -> Answer:
    """GET of the extensions: distribution-spec, extensions/_oci.md. This is the only one."""
    extension = {
        "name": "_oci",
        "url": "https://github.com/opencontainers/distribution-spec/blob/main/extensions/_oci.md",
        "description": "discovery of extensions",
        "endpoints": ["/v2/_oci/ext/discover"],
    }
    return json_answer(200, {"extensions": [extension]})
