"""`verify URL`: checks any registry over HTTP by the distribution-spec: every tag resolves, digests and lengths match,
ranges, referrers and error bodies are right. Only reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import httpx

from zotctl.errors import DigestInvalid, NoSuchStore, NotFound, PermissionRefused, Unavailable, UsageError
from zotctl.jobs.check.unreached import why_unreached
from zotctl.jobs.check.verify import VerifyOptions
from zotctl.jobs.finding import Finding
from zotctl.jobs.run import Run
from zotctl.oci.codec import load_json
from zotctl.oci.digest import Digest, digest_of, new_hash, parse_digest
from zotctl.oci.media_types import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, is_nondistributable
from zotctl.storage.facts import (
    BEGINNING_BYTES,
    LARGEST_MANIFEST_BYTES,
    MISSING,
    Content,
    ManifestFacts,
    is_like_json,
)
from zotctl.storage.graph import ManifestGraph
from zotctl.storage.references import Reference

ACCEPT = ", ".join((OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST))
WIRE_TIMEOUT_S = 30.0
ABSENT_DIGEST = "sha256:" + "0" * 64
ABSENT_NAME = "zotctl-verify/no-such-repository"


def verify_url(run: Run, url: str, options: VerifyOptions | None = None) -> None:
    """Check the registry, the repository or the tag that `url` names: http(s)://HOST[:PORT][/NAME[:TAG]].

    Raises UsageError, Unavailable, PermissionRefused, NoSuchStore.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UsageError("that is no address of a registry: http(s)://HOST[:PORT][/NAME[:TAG]]")
    name, _, tag = parts.path.strip("/").partition(":")
    # Credentials in the address go into the requests, and never into a message.
    auth = (parts.username, parts.password or "") if parts.username else None
    base = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    # Bytes are compared and hashed as they are stored, so nothing may be compressed on the way.
    plain = {"Accept-Encoding": "identity"}
    with httpx.Client(base_url=base, auth=auth, headers=plain, timeout=WIRE_TIMEOUT_S, follow_redirects=True) as client:
        wire = _Wire(run, client)
        wire.get("/v2/")
        if name:
            _Repository(run, wire, name, options or VerifyOptions()).check([tag] if tag else None)
            return
        for repository in wire.names():
            run.check()
            run.begins(repository)
            with run.guarded(repository, None):
                _Repository(run, wire, repository, options or VerifyOptions()).check(None)


class _Wire:
    """Makes requests. Raises errors that name the request that failed."""

    def __init__(self, run: Run, client: httpx.Client) -> None:
        self._run, self.client = run, client

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.ask("GET", path, **options)

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = self.client.request(method, path, **options)
        except httpx.HTTPError as error:
            raise Unavailable(f"{self.client.base_url}: {why_unreached(error)}") from error
        if response.status_code in (401, 403):
            raise PermissionRefused(f"{method} {path}: {response.status_code}; credentials are needed")
        if response.status_code >= 500:
            raise Unavailable(f"{method} {path}: the registry answers {response.status_code}")
        return response

    def beginning(self, path: str, size: int) -> bytes:
        """The first `size` bytes of the answer to a GET without a range."""
        found = b""
        try:
            with self.client.stream("GET", path) as response:
                for piece in response.iter_raw(size):
                    found += piece
                    if len(found) >= size:
                        break
        except httpx.HTTPError as error:
            raise Unavailable(f"{self.client.base_url}: {why_unreached(error)}") from error
        return found[:size]

    def names(self) -> list[str]:
        """The catalog, page by page; a registry without one needs a name."""
        if self.get("/v2/_catalog").status_code == 404:
            raise NoSuchStore(f"{self.client.base_url} has no catalog; name a repository: URL/NAME")
        found = [name for page in self.pages("/v2/_catalog") for name in page.get("repositories") or ()]
        self._run.walked()
        return [name for name in found if self._run.covers(name)]

    def pages(self, path: str) -> Iterator[dict[str, Any]]:
        asked: set[str] = set()
        while path and path not in asked:
            self._run.check()
            asked.add(path)
            response = self.get(path)
            if response.status_code != 200:
                return
            yield _json(response)
            # Only the path of the next page counts: a link to another host is not ours to follow.
            following = urlsplit(response.links.get("next", {}).get("url") or "")
            path = f"{following.path}?{following.query}" if following.path else ""


class _Repository:
    """The check of one repository of a registry."""

    def __init__(self, run: Run, wire: _Wire, name: str, options: VerifyOptions) -> None:
        self._run, self._wire, self._name, self._options = run, wire, name, options
        self._graph = ManifestGraph(self._read)
        self._bodies: dict[str, bytes] = {}
        """The manifest that was just fetched, by digest."""
        self._seen: set[str] = set()
        self._told: set[str] = set()
        self._tag: str | None = None
        self._about: dict[str, set[str]] = {}
        """The manifests met here that have a digest as their subject, by that digest."""

    def check(self, tags: list[str] | None) -> None:
        found = tags or self._tags()
        self._run.add("repositories")
        for tag in found:
            self._run.check()
            self._tag = tag
            self._run.add("tags")
            self._manifest(tag, None)
        self._tag = None
        self._all_referrers()
        self._errors()

    def _tell(self, reason: str, digest: str | None = None) -> None:
        self._run.finding(Finding(self._name, digest, "wire", reason, (self._tag,) if self._tag else ()))

    def _tags(self) -> list[str]:
        path = f"/v2/{self._name}/tags/list"
        if self._wire.get(path).status_code == 404:
            raise NoSuchStore(f"no repository {self._name} there")
        listed = [tag for page in self._wire.pages(path) for tag in page.get("tags") or ()]
        paged = [tag for page in self._wire.pages(f"{path}?n=7") for tag in page.get("tags") or ()]
        if paged[:7] != listed[:7]:
            self._tell("tags/list?n=7 begins otherwise than tags/list (Listing Tags)")
        return listed

    # -- manifests ------------------------------------------------------------------------------

    def _manifest(self, reference: str, size: int | None) -> None:
        """Check a manifest and all that it leads to. `size`: as its index states it."""
        found = self._fetch(reference)
        if found is None:
            return
        digest, body, media_type = found
        if size is not None and len(body) != size:
            self._tell(f"{reference} has {len(body)} bytes, its index says {size}", digest)
        self._bodies[digest] = body
        self._graph.add([Reference(digest, len(body), media_type)])
        self._bodies.clear()
        self._report_new()

    def _fetch(self, reference: str, *, may_lack: bool = False) -> tuple[Digest, bytes, str] | None:
        """The digest, the bytes and the Content-Type of a manifest. None: it is not served, which is reported."""
        path = f"/v2/{self._name}/manifests/{reference}"
        response = self._wire.get(path, headers={"Accept": ACCEPT})
        if response.status_code != 200:
            if not may_lack:
                self._tell(f"GET {path}: {response.status_code}, and it is listed")
            return None
        body, stated = response.content, response.headers.get("Docker-Content-Digest")
        digest = self._digest(reference, body, stated)
        if digest not in self._graph.known:
            self._head(path, digest, len(body))
        return digest, body, response.headers.get("Content-Type", "")

    def _read(self, digest: Digest, whole: bool) -> Content:
        """A `Read` for the graph. What is not called a manifest is most likely a blob."""
        self._run.check()
        body = self._bodies.get(digest)
        if body is None and not whole and (content := self._read_blob(digest)) is not None:
            return content
        if body is None:
            found = self._fetch(digest, may_lack=not self._graph.is_needed(digest))
            if found is None:
                raise NotFound(f"{digest} is not served")
            body = found[1]
        return Content(len(body), body)

    def _read_blob(self, digest: Digest) -> Content | None:
        path = f"/v2/{self._name}/blobs/{digest}"
        head = self._wire.ask("HEAD", path)
        size = head.headers.get("Content-Length", "")
        if head.status_code != 200 or not size.isdigit():
            return None
        if int(size) > LARGEST_MANIFEST_BYTES or not is_like_json(self._wire.beginning(path, BEGINNING_BYTES)):
            return Content(int(size), None)
        return Content(int(size), self._wire.get(path).content)

    def _report_new(self) -> None:
        """Report and check what the graph has read since the last call."""
        graph = self._graph
        for digest in [one for one in graph.faults if one not in self._told]:
            self._told.add(digest)
            if graph.faults[digest].kind != MISSING:  # which is reported already
                self._tell(f"{digest}: {graph.faults[digest].reason}", digest)
        for digest, reason in graph.contradictions():
            if digest not in self._told:
                self._told.add(digest)
                self._tell(f"{digest}: {reason}", digest)
        for digest, facts in [one for one in graph.facts.items() if one[0] not in self._seen]:
            self._seen.add(digest)
            self._run.add("manifests")
            for size in graph.sizes(digest) - {facts.size}:
                self._tell(f"{digest} has {facts.size} bytes, its index says {size}", digest)
            leaves = (child for child in facts.children if child.digest in graph.leaves)
            self._below(digest, facts, [*facts.blobs, *leaves])

    def _digest(self, reference: str, body: bytes, stated: str | None) -> Digest:
        algorithm = "sha256"
        for text in (stated, reference):
            with suppress(DigestInvalid):
                algorithm = parse_digest(text or "").algorithm
        digest = digest_of(body, algorithm)
        if stated and stated != digest:
            reason = f"Docker-Content-Digest of {reference} is {stated}, the content has {digest}"
            self._tell(f"{reason} (Pulling manifests)", digest)
        if ":" in reference and reference != digest:
            self._tell(f"the content of {reference} has the digest {digest}", reference)
        return digest

    def _head(self, path: str, digest: str, size: int) -> None:
        head = self._wire.ask("HEAD", path, headers={"Accept": ACCEPT})
        if head.status_code != 200:
            self._tell(f"HEAD {path}: {head.status_code}, and GET 200 (Checking if content exists)", digest)
        elif head.headers.get("Content-Length") != str(size):
            length = head.headers.get("Content-Length")
            self._tell(f"HEAD {path}: Content-Length {length}, the content has {size} bytes", digest)

    def _below(self, digest: str, facts: ManifestFacts, blobs: list[Reference]) -> None:
        for blob in blobs:
            if blob.digest not in self._seen and not is_nondistributable(blob.media_type):
                self._seen.add(blob.digest)
                self._run.check()
                self._blob(blob.digest, blob.size)
        self._about.setdefault(digest, set())
        for subject in facts.subjects:
            self._about.setdefault(subject.digest, set()).add(digest)

    # -- referrers ------------------------------------------------------------------------------

    def _all_referrers(self) -> None:
        """Check the referrers of every manifest that was met, and then of those that this brings up."""
        done: set[str] = set()
        while left := self._about.keys() - done:
            for digest in sorted(left):
                self._run.check()
                done.add(digest)
                self._referrers(digest)

    def _referrers(self, digest: str) -> None:
        path = f"/v2/{self._name}/referrers/{digest}"
        response = self._wire.get(path)
        if response.status_code == 404:
            self._run.report.summary["referrers_api"] = False
        elif response.status_code != 200:
            self._tell(f"referrers of {digest}: {response.status_code} (Listing Referrers)", digest)
        elif not isinstance(_json(response).get("manifests"), list):
            self._tell(f"referrers of {digest}: no image index (Listing Referrers)", digest)
        else:
            self._compare(digest, [row for page in self._wire.pages(path) for row in page.get("manifests") or ()])

    def _compare(self, digest: str, listed: list[Any]) -> None:
        """Check that what is listed exists and names this subject, and that what names this subject is listed."""
        found = {row["digest"]: row.get("size") for row in listed if isinstance(row, dict) and "digest" in row}
        for referrer, size in found.items():
            self._manifest(referrer, size)
            if referrer in self._seen and referrer not in self._about[digest]:
                self._tell(f"{referrer} is listed as a referrer of {digest} and names another subject, or none", digest)
        for referrer in sorted(self._about[digest] - found.keys()):
            # One that was deleted in between is rightly missing.
            if self._wire.ask("HEAD", f"/v2/{self._name}/manifests/{referrer}").status_code == 200:
                self._tell(f"{referrer} is missing in the referrers of {digest} (Listing Referrers)", digest)

    # -- blobs ----------------------------------------------------------------------------------

    def _blob(self, digest: str, size: int) -> None:
        path = f"/v2/{self._name}/blobs/{digest}"
        self._run.add("blobs")
        head = self._wire.ask("HEAD", path)
        if head.status_code != 200:
            self._tell(f"HEAD {path}: {head.status_code}, and a manifest needs it", digest)
            return
        if head.headers.get("Content-Length") != str(size):
            length = head.headers.get("Content-Length")
            self._tell(f"{digest} has Content-Length {length}, its manifest says {size}", digest)
        if size > 1:
            self._range(path, digest, size)
        if self._options.deep:
            self._deep(path, digest)

    def _range(self, path: str, digest: str, size: int) -> None:
        """Check a range request: 206 with the bytes asked for, or 200 with the whole (RFC 9110, section 14)."""
        last = min(size, 16) - 1
        response = self._wire.get(path, headers={"Range": f"bytes=1-{last}"})
        what, stated = f"GET {path}, bytes 1 to {last}", response.headers.get("Content-Range")
        if response.status_code not in (200, 206):
            self._tell(f"{what}: {response.status_code} (RFC 9110, 14)", digest)
        elif response.status_code == 206 and len(response.content) != last:
            self._tell(f"{what}: {len(response.content)} bytes (RFC 9110, 14)", digest)
        elif response.status_code == 206 and response.content != self._wire.beginning(path, last + 1)[1:]:
            self._tell(f"{what}: other bytes than the whole blob has there (RFC 9110, 14)", digest)
        elif response.status_code == 206 and stated != f"bytes 1-{last}/{size}":
            self._tell(f"{what}: Content-Range {stated} (RFC 9110, 14.4)", digest)

    def _deep(self, path: str, digest: str) -> None:
        hasher = new_hash(parse_digest(digest).algorithm)
        try:
            with self._wire.client.stream("GET", path) as response:
                for piece in response.iter_raw(1 << 20):
                    self._run.check()
                    self._run.throttle.take(len(piece))
                    self._run.add("read_bytes", len(piece))
                    hasher.update(piece)
        except httpx.HTTPError as error:
            self._tell(f"GET {path}: {why_unreached(error)}", digest)
            return
        if hasher.hexdigest() != parse_digest(digest).encoded:
            self._tell(f"the content of {digest} has the digest {hasher.hexdigest()} (Pulling blobs)", digest)

    # -- errors ---------------------------------------------------------------------------------

    def _errors(self) -> None:
        """Check that what is absent gets 404, with an error that a client can read (Error Codes)."""
        self._absent(f"/v2/{self._name}/manifests/{ABSENT_DIGEST}", "MANIFEST_UNKNOWN")
        self._absent(f"/v2/{self._name}/blobs/{ABSENT_DIGEST}", "BLOB_UNKNOWN")
        with suppress(PermissionRefused):  # some registries never tell which names there are
            self._absent(f"/v2/{ABSENT_NAME}/tags/list", "NAME_UNKNOWN")
            self._absent(f"/v2/{ABSENT_NAME}/manifests/latest", "MANIFEST_UNKNOWN", "NAME_UNKNOWN")

    def _absent(self, path: str, *codes: str) -> None:
        response = self._wire.get(path)
        errors = _json(response).get("errors")
        if response.status_code != 404:
            self._tell(f"GET {path}: {response.status_code} for what can't exist")
        elif response.content and not isinstance(errors, list):
            self._tell(f"GET {path}: the body of the 404 is no OCI error (Error Codes)")
        elif errors and not any(isinstance(error, dict) and error.get("code") in codes for error in errors):
            self._tell(f"GET {path}: the 404 has another code than {' or '.join(codes)} (Error Codes)")


def _json(response: httpx.Response) -> dict[str, Any]:
    try:
        body = load_json(response.content)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
