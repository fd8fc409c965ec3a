"""Finds good bytes for damaged and missing blobs: in a copy in any root, in a layout, in an archive, or in a registry.
They are hashed before they get a name, wherever they come from.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

from zotctl.config import is_bucket
from zotctl.errors import DigestInvalid, LayoutInvalid, NoSuchStore, NotFound, Unavailable, UsageError
from zotctl.jobs.check.unreached import why_unreached
from zotctl.jobs.imports.archives import ArchiveListing, read_archive
from zotctl.jobs.imports.sources import opened
from zotctl.jobs.run import Run
from zotctl.oci.codec import load_json
from zotctl.oci.digest import Digest, digest_of
from zotctl.oci.media_types import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from zotctl.storage import keys
from zotctl.storage.driver import CHUNK_BYTES, Driver, chunks_of
from zotctl.storage.facts import LARGEST_MANIFEST_BYTES
from zotctl.storage.file_identity import HeldFile, file_number
from zotctl.storage.opening import directory, followed, root_over
from zotctl.storage.root import Root
from zotctl.storage.tar import Tar, TarBytes

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

ANSWER_TIMEOUT_S = 30.0
"""How long to wait for each answer of a registry."""
_ACCEPT = ", ".join((OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST))
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')

Chunks = Iterator[bytes]
Source = AbstractContextManager[Chunks]


class Repair:
    """The repairs of one run. Used by one thread.

    `origin`: a layout, a directory of layouts, an archive, or the URL of a registry, whose path, if any, is the
    repository there.
    """

    def __init__(self, run: Run, origin: str | None) -> None:
        self._run = run
        self._origin = _origin(run, origin) if origin else None

    def heal(self, root: Root, name: str, digest: Digest, damaged: HeldFile, manifest: bool) -> list[str]:
        """Replace a damaged file by good bytes in every repository of its root that has it. The names of these."""
        sources = self._sources(root, name, digest, manifest, damaged)
        return self._first(sources, lambda chunks: root.maintenance.heal(name, digest, damaged, chunks)) or []

    def bring_back(self, root: Root, name: str, digest: Digest, manifest: bool) -> bool:
        """Publish what is missing, as a push would. False: no source has it."""
        put = _put_manifest if manifest else _put_blob
        sources = self._sources(root, name, digest, manifest, None)
        return self._first(sources, lambda chunks: put(root, name, digest, chunks)) is not None

    def _first(self, sources: Iterator[Source], use: Callable[[Chunks], T]) -> T | None:
        """Call `use` with the first source that has the right bytes. None: there is none."""
        for source in sources:
            try:
                with source as chunks:
                    return use(self._paced(chunks))
            except (NotFound, DigestInvalid):
                continue
            except Unavailable as error:
                self._run.error("", error, None)
        return None

    def _paced(self, chunks: Chunks) -> Chunks:
        for chunk in chunks:
            self._run.throttle.take(len(chunk))
            yield chunk

    def _sources(
        self, root: Root, name: str, digest: Digest, manifest: bool, damaged: HeldFile | None
    ) -> Iterator[Source]:
        for other in sorted(self._run.store.roots, key=lambda one: one is not root):
            yield from _copies(other, digest, damaged if other is root else None)
        if self._origin is not None:
            yield from self._origin(name, digest, manifest)


def _put_blob(root: Root, name: str, digest: Digest, chunks: Chunks) -> bool:
    upload = root.protocol.uploads.begin(name, digest.algorithm)
    upload.expect(digest)
    try:
        for chunk in chunks:
            upload.write([chunk])
        upload.finish(digest)
    except BaseException:
        upload.cancel()
        raise
    return True


def _put_manifest(root: Root, name: str, digest: Digest, chunks: Chunks) -> bool:
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > LARGEST_MANIFEST_BYTES:
            raise NotFound(f"{digest} has too many bytes there for a manifest")
    if digest_of(body, digest.algorithm) != digest:
        raise DigestInvalid(f"these bytes are not {digest}", digest)
    root.maintenance.put_manifest(name, digest, bytes(body))
    return True


def _copies(root: Root, digest: Digest, damaged: HeldFile | None) -> Iterator[Source]:
    """The copies in a root: the pool's and those of repositories, except known damaged ones and one already tried."""
    tried = {file_number(damaged.info)} if damaged is not None else set[tuple[int, int]]()
    if root.state() is not None:
        return
    for key in root.maintenance.copies(digest):
        info = root.stat(key)
        if (
            info is None
            or file_number(info) in tried
            or root.maintenance.is_marked(keys.repository_of(key), digest, info)
        ):
            continue
        tried.add(file_number(info))
        yield _file(root.driver, key)


@contextmanager
def _file(driver: Driver, key: str) -> Iterator[Chunks]:
    with driver.open(key) as reader:
        yield chunks_of(reader)


Origin = Callable[[str, Digest, bool], Iterator[Source]]
"""The sources of a blob, or of a manifest (True), of a repository outside of the store."""


def _origin(run: Run, text: str) -> Origin:
    """Raises NoSuchStore, UsageError, PermissionRefused."""
    if text.startswith(("http://", "https://")):
        return _Registry(text).sources
    if is_bucket(text):
        raise UsageError(f"--from {text}: it takes no bucket; copy that to a directory with import-layout")
    driver = directory(text)
    try:
        driver.stat("")
    except NotFound as error:
        if os.path.exists(text):
            return _Archive(run, text).sources
        raise NoSuchStore(f"--from {text}: no such file or directory") from error
    return _layouts(run, followed(driver, text))


def _layouts(run: Run, driver: Driver) -> Origin:
    """A directory as an origin: it may be a layout itself, or have the layout of that name, or any others."""
    catalog = root_over(driver, run.clock).catalog

    def sources(name: str, digest: Digest, manifest: bool) -> Iterator[Source]:
        here = keys.blob_in_layout(digest)
        yield _file(driver, here)
        yield _file(driver, keys.within(name, here))
        for other in catalog.walk():
            if other != name:
                yield _file(driver, keys.within(other, here))

    return sources


class _Archive:
    """A tar of layouts or of images. It is listed when the first blob is looked for, and each that it has is read by
    one pass over the file. Used by one thread."""

    def __init__(self, run: Run, path: str) -> None:
        self._run, self._path = run, path
        self._listing, self._paths = ArchiveListing(), dict[Digest, str]()
        self._is_listed = False
        try:
            if not os.path.isfile(path):
                raise LayoutInvalid(f"{path} can't be read more than once")
            with opened(path) as stream:
                if next(iter(Tar(TarBytes(stream, path))), None) is None:
                    raise LayoutInvalid(f"{path} holds nothing")
        except LayoutInvalid as error:
            reason = f"no directory, no http or https URL, and no archive: {error.message}"
            raise UsageError(f"--from {path}: {reason}") from error

    def sources(self, name: str, digest: Digest, manifest: bool) -> Iterator[Source]:
        """What the archive has of this digest, in whatever layout."""
        self._list()
        if (body := self._listing.bodies.get(digest)) is not None:
            yield nullcontext(iter((body,)))
        elif digest in self._paths:
            yield self._member(self._paths[digest])

    def _list(self) -> None:
        if self._is_listed:
            return
        self._is_listed = True
        try:
            with opened(self._path) as stream:
                self._paths = read_archive(self._run, stream, self._path, self._listing).paths
        except LayoutInvalid as error:
            self._run.error(self._path, error, None)

    @contextmanager
    def _member(self, path: str) -> Iterator[Chunks]:
        try:
            with opened(self._path) as stream:
                tar = Tar(TarBytes(stream, self._path))
                for member in tar:
                    if member.path == path and member.target is None:
                        yield tar.chunks()
                        return
        except LayoutInvalid as error:  # it was changed since it was listed
            raise Unavailable(error.message) from error
        raise NotFound(f"{path} is not in {self._path} any more")


class _Registry:
    """distribution-spec, "Pulling Blobs" and "Pulling Manifests", with the token flow of the large registries."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._repository, self._host = parts.path.strip("/"), parts.netloc.rpartition("@")[2]
        self._base = f"{parts.scheme}://{self._host}"
        self._login = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
        self._token = ""
        self._client: httpx.Client | None = None

    def sources(self, name: str, digest: Digest, manifest: bool) -> Iterator[Source]:
        kinds = ("manifests", "blobs") if manifest else ("blobs", "manifests")
        for kind in kinds:
            yield self._get(f"{self._base}/v2/{self._repository or name}/{kind}/{digest}")

    @contextmanager
    def _get(self, url: str) -> Iterator[Chunks]:
        import httpx

        headers = {"Accept": _ACCEPT, "Accept-Encoding": "identity"}
        self._client = self._client or httpx.Client(timeout=ANSWER_TIMEOUT_S, follow_redirects=True, headers=headers)
        try:
            with self._open(self._client, url) as response:
                if response.status_code in (400, 404, 405):
                    raise NotFound(f"{self._host} does not have it")
                if response.status_code != 200:
                    raise Unavailable(f"{self._host} answers {response.status_code} to {urlsplit(url).path}")
                yield response.iter_bytes(CHUNK_BYTES)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unavailable(f"{self._host} can't be read: {why_unreached(error)}") from error

    @contextmanager
    def _open(self, client: httpx.Client, url: str) -> Iterator[httpx.Response]:
        with self._ask(client, url) as response:
            if response.status_code != 401 or not self._renew(client, response.headers.get("WWW-Authenticate", "")):
                yield response
                return
        with self._ask(client, url) as response:
            yield response

    def _ask(self, client: httpx.Client, url: str) -> AbstractContextManager[httpx.Response]:
        if self._token:
            return client.stream("GET", url, headers={"Authorization": f"Bearer {self._token}"})
        return client.stream("GET", url, auth=self._login)

    def _renew(self, client: httpx.Client, challenge: str) -> bool:
        """Fetch a token as the challenge says (distribution, "Token Authentication Specification"). False: there is
        none."""
        scheme, _, rest = challenge.partition(" ")
        asked = dict(_PARAMETER.findall(rest))
        if scheme.lower() != "bearer" or "realm" not in asked:
            return False
        answer = client.get(asked.pop("realm"), params=asked, auth=self._login)
        with suppress(ValueError, AttributeError):
            found: Any = load_json(answer.content) if answer.status_code == 200 else {}
            self._token = str(found.get("token") or found.get("access_token") or "")
        return bool(self._token)
