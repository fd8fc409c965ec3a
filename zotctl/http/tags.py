"""The list of tags: end-8."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from zotctl.http.answer import JSON, Answer
from zotctl.http.pages import next_link, page_size
from zotctl.http.request import Request
from zotctl.oci.reference import parse_name

if TYPE_CHECKING:
    from zotctl.http.service import Service
    from zotctl.storage import Repository


def list_tags(service: Service, request: Request, wait: bool) -> Answer:
    """GET of all tags, or of `n` after `last`, in byte order."""
    name = parse_name(request.name)
    n, last = page_size(request), request.param("last")
    if n is None and last is None:
        return Answer(200, (), _whole(service, name, wait), content_type=JSON)
    return _page(name, service.store.repository(name, wait=wait).tags(), n, last)


def _whole(service: Service, name: str, wait: bool) -> bytes:
    repository = service.store.repository(name, wait=wait)
    generation = repository.generation()
    body = service.pages.get(("tags", name), generation)
    return body if body is not None else _render_whole(service, repository, generation)


def _render_whole(service: Service, repository: Repository, generation: object) -> bytes:
    body = _render(repository.name, repository.tags())
    service.pages.put(("tags", repository.name), generation, body)
    return body


def _page(name: str, tags: Sequence[str], n: int | None, last: str | None) -> Answer:
    # "beginning non-inclusively with <tagname>"
    start = bisect_right(tags, last) if last is not None else 0
    page = tags[start:] if n is None else tags[start : start + n]
    # "When n is zero, this endpoint MUST return an empty list, and MUST NOT include a Link header."
    more = bool(page) and start + len(page) < len(tags)
    headers = [next_link(f"/v2/{name}/tags/list", n=n, last=page[-1])] if more else []
    return Answer(200, headers, _render(name, page), content_type=JSON)


def _render(name: str, tags: Sequence[str]) -> bytes:
    return msgspec.json.encode({"name": name, "tags": tags})
