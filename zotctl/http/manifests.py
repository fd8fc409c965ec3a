"""Manifests: end-3, end-7 and end-9."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from zotctl.errors import AccessDenied, DigestInvalid, ManifestTooLarge, TooManyTags
from zotctl.http.access import tell_change
from zotctl.http.answer import FIELDS_KEPT, Answer, fields_of
from zotctl.http.blobs import check_delete
from zotctl.http.body import read_whole
from zotctl.http.conditions import condition_of_push, names_etag
from zotctl.http.gate import Need, delete_condition, push_condition
from zotctl.http.request import Request
from zotctl.oci.digest import Digest
from zotctl.oci.manifest import Manifest, check_manifest
from zotctl.oci.reference import parse_name, parse_reference, parse_tag
from zotctl.storage import Condition, TagsBefore

if TYPE_CHECKING:
    from zotctl.http.service import Service
    from zotctl.storage.index import Index


class _Typed(msgspec.Struct):
    mediaType: str | None = None


_TYPED = msgspec.json.Decoder(_Typed)
_UNTYPED = '299 - "the manifest has no mediaType field; it is stored as {}"'


def pull(service: Service, request: Request, wait: bool) -> Answer:
    """GET and HEAD by tag or digest. The pushed bytes are served, whatever Accept says."""
    name, reference = parse_name(request.name), parse_reference(request.decoded_reference())
    repository = service.store.repository(name, wait=wait)
    manifest = repository.manifest(reference)
    if request.method == "GET":
        repository.note_pull(manifest.digest)
    condition = request.headers.get("if-none-match")
    if condition and names_etag(condition, f'"{manifest.digest}"'):
        return Answer(304, fields=_fields(manifest.digest, "", None))
    answer = Answer(200, body=manifest.body, fields=_fields(manifest.digest, manifest.media_type, manifest.size))
    return service.repeats.keep(
        request, answer, lambda: service.store.sighting(repository, manifest.digest, manifest.size, is_manifest=True)
    )


@lru_cache(FIELDS_KEPT)
def _fields(digest: Digest, media_type: str, size: int | None) -> bytes:
    return fields_of((("Docker-Content-Digest", digest), ("ETag", f'"{digest}"')), media_type, size)


async def push(service: Service, request: Request) -> Answer:
    """PUT by tag or digest, with more tags as parameters; one commit for all of it."""
    name, reference = parse_name(request.name), parse_reference(request.decoded_reference())
    tags = _tags(service, request, reference)
    # "A registry that enforces this limit SHOULD respond to a request to push a manifest over this limit with a
    # response code 413 Payload Too Large."
    limit = service.config.max_manifest_size
    body = await read_whole(request.body, limit)
    if body is None:
        raise ManifestTooLarge(f"the manifest has more than {limit} bytes")
    condition = _all(
        push_condition(request.identity, name, reference, tags), condition_of_push(request.headers, reference)
    )
    try:
        manifest = await service.commit(_push, service, request, name, reference, tags, body, condition)
    except AccessDenied as error:
        raise service.gate.refused(request, Need.WRITE, error) from None
    accepted = tags if "tag=" in request.raw_query else []
    return Answer(201, _pushed(service, name, manifest, accepted, body))


def _all(*conditions: Condition | None) -> Condition:
    def check(index: Index) -> None:
        for condition in conditions:
            if condition is not None:
                condition(index)

    return check


def _tags(service: Service, request: Request, reference: Digest | str) -> list[str]:
    tags = [parse_tag(tag) for tag in request.params("tag")]
    if not isinstance(reference, Digest):
        tags.insert(0, reference)
    # "MAY return a 414 Request-URI Too Long status if too many tags are included in the request"
    if len(tags) > service.config.max_tags:
        raise TooManyTags(f"{len(tags)} tags in one request; at most {service.config.max_tags} are taken")
    return list(dict.fromkeys(tags))


def _push(
    service: Service,
    request: Request,
    name: str,
    reference: Digest | str,
    tags: list[str],
    body: bytes,
    condition: Condition | None,
) -> Manifest:
    repository = service.store.repository_for_push(name)
    algorithm = reference.algorithm if isinstance(reference, Digest) else "sha256"
    content_type = request.headers.get("content-type", "")
    manifest = check_manifest(body, content_type, compat=service.config.compat, algorithm=algorithm)
    # "The Docker-Content-Digest header [...] MUST be equal to the client provided digest."
    if isinstance(reference, Digest) and manifest.digest != reference:
        raise DigestInvalid(f"the manifest's digest is {manifest.digest}, not {reference}", manifest.digest)
    service.quotas.check(name, manifest)
    before = repository.put_manifest(manifest, body, tags, condition, request.identity.user.name)
    for tag, digest in before.items():
        if digest is not None and digest != manifest.digest:
            tell_change(request, "move", tag=tag, before=digest, after=manifest.digest)
    return manifest


def _pushed(service: Service, name: str, manifest: Manifest, tags: list[str], body: bytes) -> list[tuple[str, str]]:
    headers = [
        ("Location", service.location(f"/v2/{name}/manifests/{manifest.digest}")),
        ("Docker-Content-Digest", manifest.digest),
    ]
    headers += [("OCI-Tag", tag) for tag in tags]
    # "MUST respond with the response header OCI-Subject: <subject digest>"
    if manifest.subject is not None:
        headers.append(("OCI-Subject", manifest.subject.digest))
    # "All manifests SHOULD include a mediaType field"
    if _TYPED.decode(body).mediaType is None:
        headers.append(("Warning", _UNTYPED.format(manifest.media_type)))
    return headers


async def delete(service: Service, request: Request) -> Answer:
    """DELETE of a tag, or of a manifest with its tags."""
    name, reference = parse_name(request.name), parse_reference(request.decoded_reference())
    check_delete(service)
    condition = delete_condition(request.identity, name, reference)

    def gone(tags: TagsBefore) -> None:
        for tag, digest in tags.items():
            tell_change(request, "untag", tag=tag, before=str(digest))
        if isinstance(reference, Digest):
            tell_change(request, "delete", before=reference)

    user = request.identity.user.name
    await service.commit(lambda: service.store.repository(name).delete_manifest(reference, condition, user, gone))
    return Answer(202)
