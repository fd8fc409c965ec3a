"""The clients of any store, by the real code behind `serve`. Each store adds its jobs, and the tools that write to it.

An actor is a script: a function of a `Client`. What a client is told goes to the model, which holds the store to it.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

from tests.simulation import content
from tests.simulation.content import BODIES, MANIFESTS, Image
from tests.simulation.model import Operation
from tests.simulation.scheduler import Script
from zotctl.errors import BlobUnknown, ManifestBlobUnknown, ManifestUnknown, Referenced
from zotctl.jobs.run import Run
from zotctl.oci.digest import parse_digest
from zotctl.storage import Repository, Store
from zotctl.storage.protocol import Change, StoreProtocol


class Direct:
    """A committer without threads: each process here does one thing at a time."""

    def __init__(self, protocol: StoreProtocol) -> None:
        self._protocol = protocol

    def commit(self, name: str, change: Change) -> None:
        (outcome,) = self._protocol.commit_index(name, [change])
        if outcome is not None:
            raise outcome


class GivenUp(Exception):
    """The client got no answer that it can go on with."""


class Client(abc.ABC):
    """What a client of one process does; that of a store knows what its answers mean."""

    def __init__(self, process: Any, store: Store, delay: float) -> None:
        """`delay`: seconds that unreachable content is kept."""
        self.process, self.machine, self.model = process, process.machine, process.machine.model
        self.store, self.delay = store, delay
        process.store = store

    @abc.abstractmethod
    def op(self, kind: str, repo: str = "", digest: str = "", **more: Any) -> AbstractContextManager[Any]:
        """What the process is about from here to the end of the block. Raises GivenUp for no answer."""

    @abc.abstractmethod
    def get(self, repo: str, digest: str, since: int, step: int) -> None:
        """A blob of a manifest that was read at `since`: from then on it is there for the delay."""

    @abc.abstractmethod
    def job(self, kind: str, name: str, work: Callable[[Run], None]) -> None:
        """`name` is that of the lease: two collectors at once have two."""

    def answer(self, what: str) -> None:
        self.machine.note(self.process.name, "ANSWER", what)

    def here(self, name: str) -> Repository:
        return self.store.repository(name)

    def pause(self, delays: float) -> None:
        self.process.clock.sleep(delays * self.delay)

    # -- blobs ----------------------------------------------------------------------------------

    def head(self, repo: str, digest: str) -> bool:
        with self.op("head", repo, digest):
            try:
                self.store.repository_for_push(repo).blob(parse_digest(digest))
            except BlobUnknown:
                self.answer("HEAD 404")
                return False
            self.answer("HEAD 200")
            self.model.reserve(self.process, repo, digest)
        return True

    def upload(self, repo: str, digest: str) -> None:
        with self.op("upload", repo, digest, grants=frozenset({(repo, digest)})):
            repository, body = self.store.repository_for_push(repo), BODIES[digest]
            with repository.resume_upload(repository.start_upload()) as upload:
                upload.write([body])
                upload.finish(parse_digest(digest))
            self.answer("PUT blob 201")
            self.model.reserve(self.process, repo, digest)

    def mount(self, source: str, repo: str, digest: str) -> bool:
        with self.op("mount", repo, digest, source=source):
            repository = self.store.repository_for_push(repo)
            if not repository.mount_blob(self.here(source), parse_digest(digest)):
                self.answer("mount 202")
                return False
            self.answer("mount 201")
            self.model.reserve(self.process, repo, digest)
        return True

    def delete_blob(self, repo: str, digest: str) -> None:
        with self.op("delete blob", repo, digest):
            try:
                self.here(repo).delete_blob(parse_digest(digest))
            except (BlobUnknown, Referenced) as error:
                self.answer(f"DELETE blob {type(error).__name__}")
                return
            self.answer("DELETE blob 202")
            self.model.blob_deleted(self.process)

    # -- manifests ------------------------------------------------------------------------------

    def put(self, repo: str, image: Image, tags: tuple[str, ...]) -> bool:
        children = frozenset({image.digest, *image.children})
        grants = frozenset({(repo, str(image.digest))})
        with self.op("put", repo, str(image.digest), tags=tags, grants=grants, added=children):
            try:
                self.store.repository_for_push(repo).put_manifest(image.manifest, image.body, tags)
            except ManifestBlobUnknown as error:
                self.answer(f"PUT manifest 404 {error.detail}")
                self.model.refused(self.process, repo, [str(digest) for digest in error.detail])
                return False
            self.answer("PUT manifest 201")
            wanted: dict[str, str | None] = {tag: str(image.digest) for tag in tags}
            self.model.acknowledged(self.process, wanted, str(image.digest), there=True)
        return True

    def untag(self, repo: str, tag: str) -> None:
        with self.op("untag", repo, tags=(tag,)):
            try:
                self.here(repo).delete_manifest(tag)
            except ManifestUnknown:
                self.answer("DELETE tag 404")
                return
            self.answer("DELETE tag 202")
            self.model.acknowledged(self.process, {tag: None}, "", there=False)

    def delete_manifest(self, repo: str, image: Image) -> None:
        with self.op("delete manifest", repo, str(image.digest)):
            try:
                self.here(repo).delete_manifest(image.digest)
            except (ManifestUnknown, Referenced) as error:
                self.answer(f"DELETE manifest {type(error).__name__}")
                return
            self.answer("DELETE manifest 202")
            self.model.acknowledged(self.process, {}, str(image.digest), there=False)

    def pull(self, repo: str, tag: str) -> None:
        """A whole image by its tag: the manifest, then what it names."""
        with self.op("pull", repo) as op:
            since, step = self.machine.now, self.machine.steps
            try:
                found = self.here(repo).manifest(tag)
            except ManifestUnknown:
                self.answer("GET manifest 404")
                self._check_untagged(op, repo, tag)
                return
            self.answer(f"GET manifest 200 {found.digest}")
            if not any(rows.tags.get(tag) == found.digest for rows in self.model.states_since(repo, op)):
                self.model.fail(
                    self.process, "I4", f"{repo}:{tag} was answered with {found.digest}, which it never was"
                )
        for digest in sorted(content.reach(frozenset({str(found.digest)}))):
            self.get(repo, digest, since, step)

    def _check_untagged(self, op: Operation, repo: str, tag: str) -> None:
        states = self.model.states_since(repo, op)
        gone = any(tag not in rows.tags for rows in states)
        named = {rows.tags.get(tag, "") for rows in states}
        deleted = any(self.model.deleted_since(repo, digest, op.step) for digest in named)
        if not (gone or deleted or named & self.model.repo(repo).lost):
            self.model.fail(self.process, "I4", f"{repo}:{tag} was there all the time, and a pull did not find it")


def pusher(repo: str, image: Image, *tags: str, head: bool = True, slow: float = 0.0, tries: int = 3) -> Script:
    """What every client does: HEAD, send what is missing, then the manifest; `slow` delays lie between."""

    def run(client: Client) -> None:
        for _ in range(tries):
            for digest in image.blobs:
                if not (head and client.head(repo, digest)):
                    client.upload(repo, digest)
            if slow:
                client.pause(slow)
            if client.put(repo, image, tags):
                return

    return run


def reserved(repo: str, image: Image, *tags: str, slow: float = 0.0) -> Script:
    """Sends nothing: if all is there, as HEAD says, the manifest has to be accepted."""

    def run(client: Client) -> None:
        if all([client.head(repo, digest) for digest in image.blobs]):
            if slow:
                client.pause(slow)
            client.put(repo, image, tags)

    return run


def tagger(repo: str, image: Image, *tags: str) -> Script:
    """Moves tags to a manifest, whatever is there."""

    def run(client: Client) -> None:
        for tag in tags:
            client.put(repo, image, (tag,))

    return run


def index_pusher(repo: str, index: Image, *tags: str) -> Script:
    """The children by digest, then the index that lists them."""

    def run(client: Client) -> None:
        for child in index.children:
            pusher(repo, MANIFESTS[child])(client)
        client.put(repo, index, tags)

    return run


def mounter(source: str, repo: str, image: Image, *tags: str) -> Script:
    def run(client: Client) -> None:
        for digest in image.blobs:
            if not client.mount(source, repo, digest):
                client.upload(repo, digest)
        client.put(repo, image, tags)

    return run


def _each(do: Callable[[Client, str, str], object], repo: str, things: Iterable[str]) -> Script:
    def run(client: Client) -> None:
        for thing in things:
            do(client, repo, thing)

    return run


def uploader(repo: str, *digests: str) -> Script:
    return _each(Client.upload, repo, digests)


def looker(repo: str, *digests: str) -> Script:
    return _each(Client.head, repo, digests)


def reader(repo: str, *tags: str) -> Script:
    return _each(Client.pull, repo, tags)


def untagger(repo: str, *tags: str) -> Script:
    return _each(Client.untag, repo, tags)


def manifest_deleter(repo: str, image: Image) -> Script:
    return lambda client: client.delete_manifest(repo, image)


def blob_deleter(repo: str, *digests: str) -> Script:
    return _each(Client.delete_blob, repo, digests)


def regretter(repo: str, digest: str) -> Script:
    """Deletes a blob, pushes it again, deletes it again, all within the hour."""

    def run(client: Client) -> None:
        client.delete_blob(repo, digest)
        client.upload(repo, digest)
        client.delete_blob(repo, digest)

    return run


def in_turn(*bodies: Script) -> Script:
    def run(client: Client) -> None:
        for body in bodies:
            body(client)

    return run


def later(delays: float, body: Script) -> Script:
    def run(client: Client) -> None:
        client.pause(delays)
        body(client)

    return run
