"""The page for people: GET of /, and of what is below /ui/. It changes nothing, and needs no script.

`zotctl.web` makes it, in threads of its own, and is imported by the first request for it. Each answer allows a browser
to use its one style sheet and to send its forms back, and nothing else; nothing of it is to be stored.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from zotctl.errors import NameInvalid, Unavailable
from zotctl.http.answer import Answer
from zotctl.http.errors import encodable
from zotctl.http.lists import readable_names
from zotctl.http.request import Request
from zotctl.oci.reference import parse_name, parse_reference

if TYPE_CHECKING:
    from zotctl.http.service import Service

PAGE_REPOSITORIES = 50
Values = dict[str, Any]
"""What a template writes."""

MOST_NAME = 255
MOST_WANTED = 128
"""Characters of a tag, and of what is looked for in one."""
PAGE_TIMEOUT_S, REFUSAL_TIMEOUT_S = 20.0, 2.0
"""For a page to be made, and for that of an error: a storage that hangs holds the threads for pages, and no more."""
_is_host = re.compile(r"[A-Za-z0-9._-]{1,253}(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](?::[0-9]{1,5})?").fullmatch
_LOOPBACK = re.compile(r"(localhost|127\.[0-9.]+|\[::1\])(:[0-9]+)?", re.IGNORECASE).fullmatch


async def show_repositories(service: Service, request: Request) -> Answer:
    """GET of /: the repositories that the client may read, a page at a time."""
    last, wanted = request.param("last"), (request.param("from") or "").strip().lower()[:MOST_NAME].rstrip("/._-")
    start = wanted or last
    after = parse_name(start) if start else None
    names, more = await readable_names(service, request, PAGE_REPOSITORIES, after)
    if wanted and request.identity.allows("read", wanted):
        names.insert(0, wanted)  # if there is one of just this name

    def make() -> Values:
        from zotctl.web.repositories import repository_lines

        lines = repository_lines(service.store, names)
        return {"lines": lines, "after": names[-1] if more else None, "last": last, "wanted": wanted}

    return await _page(service, request, "repositories.html", make)


async def show_tags(service: Service, request: Request) -> Answer:
    """GET of the tags of a repository, a page at a time."""
    name, last, wanted = parse_name(request.name), request.param("last"), request.param("contains") or ""

    def make() -> Values:
        from zotctl.web.tags import tag_page

        repository = service.store.repository(name)
        across = service.gate.shows_health(request)
        page = tag_page(repository, last, wanted[:MOST_WANTED], across=across)
        return {"name": name, "page": page, "wanted": wanted[:MOST_WANTED], **_registry(service, request)}

    return await _page(service, request, "tags.html", make)


async def show_untagged(service: Service, request: Request) -> Answer:
    """GET of the manifests of a repository that have no tag, a page at a time."""
    name, last = parse_name(request.name), request.param("last")

    def make() -> Values:
        from zotctl.web.untagged import MOST_ATTACHED, untagged_page

        page = untagged_page(service.store.repository(name), last)
        return {"name": name, "page": page, "last": last, "most_attached": MOST_ATTACHED}

    return await _page(service, request, "untagged.html", make)


async def show_image(service: Service, request: Request) -> Answer:
    """GET of one manifest, by tag or digest."""
    name, reference = parse_name(request.name), parse_reference(request.decoded_reference())

    def make() -> Values:
        from zotctl.web.images import image_page

        image = image_page(service.store.repository(name), reference)
        return {"name": name, "image": image, **_registry(service, request)}

    return await _page(service, request, "image.html", make)


async def show_health(service: Service, request: Request) -> Answer:
    """GET of the health of the store: jobs, findings, the trash, space."""

    def make() -> Values:
        from zotctl.web.health import health

        every = service.scrubs_every
        return {
            "roots": health(
                service.store, read_only=service.read_only, scrubs_every=every, may_read=partial(_may_read, request)
            )
        }

    return await _page(service, request, "health.html", make)


def _may_read(request: Request, name: str) -> bool:
    """`name` is "" for what is about a root."""
    try:
        return not name or request.identity.allows("read", name)
    except NameInvalid:
        return False  # what no repository may be called, as a finding may say


async def log_in(service: Service, request: Request) -> Answer:
    """GET of a path that needs a login: a browser asks for one, and comes back to the list."""
    return Answer(303, [("Location", service.location("/")), *_headers("default-src 'none'")])


async def refusal(service: Service, request: Request, answer: Answer) -> Answer:
    """An error as a page, with the words and the headers that a client would get."""
    if answer.status < 400:
        return answer
    (told,) = msgspec.json.decode(answer.body)["errors"]
    values = {"status": answer.status, "message": told["message"], "request_id": request.id}
    try:
        page = await _page(service, request, "error.html", lambda: values, REFUSAL_TIMEOUT_S)
    except Unavailable:
        return answer
    page.status, page.headers = answer.status, [*answer.headers, *page.headers]
    page.error_code = answer.error_code
    return page


async def _page(
    service: Service, request: Request, template: str, make: Callable[[], Values], timeout_s: float | None = None
) -> Answer:
    """`timeout_s`: by default `PAGE_TIMEOUT_S`. Raises Unavailable if it takes longer, and ConnectionResetError if the
    client leaves: a page that waits for a thread is not made then."""
    common = {
        "site": _host(service, request) or "this registry",
        "user": encodable(request.identity.user.name),
        "offers_login": service.gate.offers_login(request),
        "shows_health": service.gate.shows_health(request),
    }

    def write() -> tuple[bytes, str, str]:
        from zotctl.web.render import CONTENT_TYPE, policy, render

        return render(template, {**common, **make()}), policy(), CONTENT_TYPE

    try:
        async with asyncio.timeout(PAGE_TIMEOUT_S if timeout_s is None else timeout_s):
            body, policy, content_type = await request.connection.attend(service.make_page(write))
    except TimeoutError:
        raise Unavailable("the storage took too long to answer for a page") from None
    return Answer(200, _headers(policy), body, content_type=content_type)


def _headers(policy: str) -> list[tuple[str, str]]:
    return [
        ("Content-Security-Policy", policy),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        ("Cache-Control", "no-store"),
    ]


# -- where clients reach this registry ---------------------------------------------------------------


def _registry(service: Service, request: Request) -> Values:
    """For the commands that pull: the host, and whether it is reached without TLS."""
    host = _host(service, request) or "REGISTRY"
    plain = not _is_secure(service, request)
    return {"host": host, "plain": plain, "loopback": bool(_LOOPBACK(host))}


def _host(service: Service, request: Request) -> str:
    """What clients put before a name. Only what is a host becomes part of a command that people copy."""
    if service.config.external_url:
        return urlsplit(service.config.external_url).netloc
    host = request.headers.get("host", "")
    return host if _is_host(host) else ""


def _is_secure(service: Service, request: Request) -> bool:
    if service.config.external_url:
        return service.config.external_url.startswith("https:")
    return service.config.tls is not None or service.gate.proxied_by_tls(request)
