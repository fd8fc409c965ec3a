"""OCI semantics over a store: blobs, uploads, manifests, tags, referrers of one repository."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from typing import NamedTuple

from zotctl.errors import (
    BlobUnknown,
    Damaged,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameUnknown,
    NotFound,
    ReadOnly,
    Referenced,
    StorageError,
    Unavailable,
    quoted,
)
from zotctl.oci.descriptor import Descriptor
from zotctl.oci.digest import Digest, parse_digest
from zotctl.oci.manifest import Manifest
from zotctl.oci.media_types import essence, is_nondistributable
from zotctl.storage.driver import Generation, Reader
from zotctl.storage.facts import (
    Content,
    ManifestFacts,
    ManifestNode,
    called,
    contradicts,
    facts_of,
    look_at,
    understand,
)
from zotctl.storage.graph import ManifestGraph, RepositoryGraph, read_verified, reader_of
from zotctl.storage.index import Index
from zotctl.storage.protocol import Sighting, Snapshot, Transaction, UploadSession, WouldBlock
from zotctl.storage.references import Reference
from zotctl.storage.root import Root

FEW_MANIFESTS = 512
"""In a bucket: at most this many manifests are read to learn the size of one blob."""

UNSAID_FOR_S = 30.0
"""Seconds before the manifests of a bucket are searched again for the size of a blob that none of them named."""

Condition = Callable[[Index], None]
"""Raises ZotctlError to refuse a push, seeing the index that it would change."""

TagsBefore = dict[str, str | None]
"""The digest that each of some tags had before a change; None: the tag is new."""

Gone = Callable[[TagsBefore], None]
"""Told of tags that were taken away."""


class StoredManifest(NamedTuple):
    """A manifest as it was pushed: its bytes and its media type (I8)."""

    digest: Digest
    media_type: str
    body: bytes

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.body)


class Repository:
    """One repository, seen at one moment; made anew for each request, which costs next to nothing."""

    __slots__ = ("_looked", "_snapshot", "_wait", "name", "root")

    def __init__(
        self, root: Root, name: str, snapshot: Snapshot | None, *, wait: bool, index_costs_request: bool = False
    ) -> None:
        """`root`: where it lies, or will lie. `snapshot`: its index.json, None if there is none. `wait` False: raise
        WouldBlock instead of waiting for a read. `index_costs_request`: index.json was not looked at yet, for not
        every request needs it."""
        self.root, self.name, self._snapshot, self._wait = root, name, snapshot, wait
        self._looked = not index_costs_request

    @property
    def read_only(self) -> bool:
        """Does it take no writes?"""
        return not self.root.owns(self.name)

    # -- what the snapshot says -----------------------------------------------------------------

    def generation(self) -> tuple[str, Generation]:
        """Equal as long as index.json is the same: a key for rendered answers."""
        return self.root.label, self._seen().generation

    def tags(self) -> list[str]:
        """Each tag once, in byte order. Not to be changed."""
        return self._seen().index.tags()

    def index(self) -> Index:
        """The rows of its index.json. Not to be changed. Raises NameUnknown."""
        return self._seen().index

    def _seen(self, reference: str = "") -> Snapshot:
        """`reference`: the manifest that is wanted of it."""
        snapshot = self._look(reference)
        if snapshot is None:
            raise NameUnknown(f"no repository {self.name} here", self.name)
        return snapshot

    def _look(self, reference: str = "") -> Snapshot | None:
        if not self._looked:
            with suppress(NotFound):
                protocol = self.root.protocol
                if protocol.index_costs_request and reference:
                    self._snapshot = protocol.read_for(self.name, reference)
                else:
                    self._snapshot = protocol.indexes.read(self.name, wait=self._wait)
            self._looked = True
        return self._snapshot

    @contextmanager
    def _graph(self, *, certain: bool = False, again: bool = False) -> Iterator[ManifestGraph]:
        """What the manifests of the snapshot reference, and of no other while questions are asked. `certain`: nothing
        of it is only remembered. `again`: nor that a subject is here or not."""
        repository_graph, snapshot = self.root.graphs.of(self.name), self._look()
        if snapshot is None:
            yield ManifestGraph(reader_of(self.root.protocol, self.name))
            return
        if not self._wait and not repository_graph.is_fresh(snapshot.index):
            raise WouldBlock(self.name)
        with repository_graph.at(snapshot.index, certain=certain, again=again) as graph:
            yield graph

    def graph(self, most: int) -> AbstractContextManager[ManifestGraph] | None:
        """What its manifests reference, while the context lasts. None: more than `most` of them were never read, so
        that it would take long. Raises NameUnknown."""
        if self.root.graphs.of(self.name).unread(self._seen().index) > most:
            return None
        return self._graph()

    # -- blobs ----------------------------------------------------------------------------------

    def blob(self, digest: Digest) -> int:
        """The size of a blob. Yes is a reservation: a manifest may use it for the delay from now (I6).

        Raises BlobUnknown: absent, known to be damaged, or not as long as its manifests say (I2).
        """
        size = self._find(digest)
        if self._check_size(digest, size):
            # The manifests took requests, and a reservation is worth the time from its last look.
            size = self._find(digest)
            self._check_size(digest, size)
        return size

    def _find(self, digest: Digest) -> int:
        try:
            return self.root.protocol.blobs.find(self.name, digest).size
        except (NotFound, Damaged) as error:
            raise self._blob_unknown(digest, error) from error

    def open_blob(self, digest: Digest) -> Reader:
        """The bytes of a blob; close the reader. Raises BlobUnknown as `blob` does."""
        try:
            reader = self.root.protocol.blobs.open(self.name, digest)
        except (NotFound, Damaged) as error:
            raise self._blob_unknown(digest, error) from error
        try:
            self._check_size(digest, reader.size)
        except BaseException:
            reader.close()
            raise
        return reader

    def redirect(self, digest: Digest) -> str | None:
        """A URL from which the client reads the blob without this server; None: use `open_blob`. Raises BlobUnknown."""
        if not self.root.by_requests:
            return None
        try:
            found = self.root.protocol.blobs.redirect(self.name, digest)
        except (NotFound, Damaged) as error:
            raise self._blob_unknown(digest, error) from error
        if found is None:
            return None
        self._check_size(digest, found.size)
        return found.url

    def _check_size(self, digest: Digest, size: int) -> bool:
        """Compare the size with what the manifests say. True: that took requests. Raises BlobUnknown if they differ."""
        repository_graph = self.root.graphs.of(self.name)
        agrees, asked = repository_graph.agrees(digest, size), False
        if agrees is None and self._can_tell_sizes(repository_graph, digest):
            asked = self.root.protocol.index_costs_request
            with self._graph():
                agrees = repository_graph.agrees(digest, size)
            if agrees is None:
                repository_graph.unsaid.put(digest, self.root.protocol.clock.elapsed())
        if agrees is False:
            self.root.protocol.blobs.doubt(self.name, digest)
            raise BlobUnknown(
                f"{digest} has {size} bytes here, which is not what its manifests say; push it again to heal it",
                digest,
            )
        return asked

    def _can_tell_sizes(self, repository_graph: RepositoryGraph, digest: Digest) -> bool:
        """May the manifests be read to learn the size of one blob? Where a read is a request, not if they did not name
        it a moment ago, and not in a large repository: the manifest from which a client knows the blob names it, if it
        was served here."""
        if not self.root.protocol.index_costs_request:
            return True
        if self.root.protocol.clock.elapsed() - (repository_graph.unsaid.get(digest) or float("-inf")) < UNSAID_FOR_S:
            return False
        snapshot = self._look()
        return snapshot is not None and repository_graph.unread(snapshot.index) <= FEW_MANIFESTS

    def _blob_unknown(self, digest: Digest, error: StorageError) -> BlobUnknown:
        """A damaged blob is answered like a missing one, so that clients push it again; only the message differs."""
        damaged = isinstance(error, Damaged)
        return BlobUnknown(error.message if damaged else f"no blob {digest} in {self.name}", digest)

    def mount_blob(self, source: Repository, digest: Digest) -> bool:
        """Take a blob over from another repository without its bytes. False: it is not possible; upload it."""
        self._writable()
        if source.root is not self.root:
            return False
        try:
            if self.root.protocol.may_truncate:
                source.blob(digest)
        except BlobUnknown:
            return False
        return self.root.protocol.blobs.mount(source.name, self.name, digest)

    def delete_blob(self, digest: Digest) -> None:
        """Raises BlobUnknown; Referenced while a manifest of this repository needs it, or refers to it."""
        self._writable()
        self._delete_bytes(digest, ManifestGraph.users, again=True)

    def _delete_bytes(
        self, digest: Digest, users_in: Callable[[ManifestGraph, Digest], list[str]], *, again: bool
    ) -> None:
        """Delete a blob or manifest. Raises Referenced if `users_in` finds users in the graph, or cannot know them.
        `again`: a subject that was not there may have come as a blob, with what it needs, and one that was there may
        have been deleted by another process, and no index.json tells."""
        with self._graph(certain=True, again=again):
            pass  # read now, so that only what comes later has to be read under the lock
        repository_graph = self.root.graphs.of(self.name)

        def check(tx: Transaction, index: Index) -> None:
            with repository_graph.at(index, certain=True) as graph:
                graph.look_for(digest)
                users = users_in(graph, digest)
                repository_graph.require_known(index, but=digest, damaged=True)
            if digest in index or users:
                raise Referenced(
                    f"{digest} is in use by {', '.join(users) or 'a row of index.json'}; delete that first", users
                )

        try:
            self.root.protocol.delete(self.name, digest, check)
        except (NotFound, Damaged) as error:
            raise self._blob_unknown(digest, error) from error
        repository_graph.forget(digest)

    # -- uploads --------------------------------------------------------------------------------

    def start_upload(self, algorithm: str = "sha256", owner: str = "") -> str:
        """Begin a session for the user `owner` and return its id; `keys.is_upload_of` tells whose it is."""
        self._writable()
        return self.root.protocol.uploads.start(self.name, algorithm, owner)

    def begin_upload(self, algorithm: str = "sha256") -> UploadSession:
        """An upload within one request, which no other request can continue."""
        self._writable()
        session = self.root.protocol.uploads.begin(self.name, algorithm)
        session.on_published = self.root.graphs.of(self.name).note_verified
        return session

    def upload_offset(self, upload_id: str) -> int:
        """Bytes that have arrived. Raises BlobUploadUnknown."""
        return self.root.protocol.uploads.offset(self.name, upload_id)

    def resume_upload(self, upload_id: str) -> UploadSession:
        """Go on with a session. Raises BlobUploadUnknown, UploadConflict, and WouldBlock as a read does: its data may
        have to be read again."""
        self._writable()
        session = self.root.protocol.uploads.resume(self.name, upload_id, wait=self._wait)
        session.on_published = self.root.graphs.of(self.name).note_verified
        return session

    def _writable(self) -> None:
        if self.read_only:
            raise ReadOnly(f"{self.name} is served read-only", self.name)

    # -- manifests ------------------------------------------------------------------------------

    def manifest(self, reference: str) -> StoredManifest:
        """By tag or digest. Raises ManifestUnknown, also when its bytes are missing or damaged."""
        row = self._seen(reference).index.find(reference)
        digest, media_type = (row.digest, row.media_type) if row else self._child(reference)
        if digest is None:
            raise ManifestUnknown(f"no manifest {reference} in {self.name}", reference)
        try:
            body = self._body(digest)
            if row is not None and len(body) != row.size:
                raise ManifestInvalid(f"{digest} has {len(body)} bytes and index.json says {row.size}")
        except (NotFound, Damaged, ManifestInvalid) as error:
            self.root.report_damage(self.name, digest, error.message)
            self.root.protocol.blobs.doubt(self.name, digest)
            raise ManifestUnknown(f"the manifest {digest} of {self.name} is missing or damaged", reference) from error
        if not media_type:  # the row of another tool, without the one that it must have
            said = understand(Content(len(body), body), digest).facts
            media_type = said.media_type if said else ""
        return StoredManifest(digest, media_type, body)

    def sighting(self, digest: Digest, size: int, *, is_manifest: bool) -> Sighting | None:
        """For a blob or manifest that was found here, with this size: see `StoreProtocol.sighting`. None if another
        answer may come without a change of index.json: for a manifest without a row, when nothing leads to it any more;
        for a blob whose size nothing says, when the manifest that says it is healed."""
        if not self._looked or self._snapshot is None:
            return None
        if not (digest in self._snapshot.index if is_manifest else self.root.graphs.of(self.name).agrees(digest, size)):
            return None
        return self.root.protocol.sighting(self.name, digest, size, self._snapshot.generation)

    def note_pull(self, digest: Digest) -> None:
        """Remember for retention that a manifest was fetched; at most one write per day and manifest. Raises WouldBlock
        as a read does."""
        if not self.root.read_only:
            self.root.history.note_pull(self.name, digest, wait=self._wait)

    def _body(self, digest: Digest) -> bytes:
        """The bytes of a manifest: hashed when they are read, then kept while the cached file is still there."""
        protocol, body = self.root.protocol, self.root.bodies.get(digest)
        if body is None or not protocol.blobs.still_has(self.name, digest, len(body)):
            if (
                not protocol.index_costs_request
                and not self._wait
                and protocol.blobs.find(self.name, digest).size > 65536
            ):
                raise WouldBlock(digest)
            body = read_verified(protocol, self.name, digest)
            self.root.bodies.put(digest, body, len(body) + 200)
        self.root.graphs.of(self.name).note_served(digest, body)
        return body

    def _child(self, reference: str) -> tuple[Digest | None, str]:
        """A manifest without a row, which an index of this repository lists or a referrer has as its subject."""
        if ":" not in reference:
            return None, ""
        with self._graph() as graph:
            if reference in graph.absent and not self._wait:
                raise WouldBlock(reference)
            graph.look_for(reference)
            media_type = graph.media_type(reference)
        return (parse_digest(reference), media_type) if media_type else (None, "")

    def usage(self) -> dict[str, int]:
        """The bytes of all that the manifests of this repository reference, and of themselves, by digest.

        They are what the manifests say, so that nothing is looked for. Raises NameUnknown.
        """
        self._seen()
        with self._graph() as graph:
            return {digest: max(sizes) for digest in graph.reachable() if (sizes := graph.sizes(digest))}

    def put_manifest(
        self,
        manifest: Manifest,
        body: bytes,
        tags: Sequence[str] = (),
        condition: Condition | None = None,
        user: str = "",
    ) -> TagsBefore:
        """Store a checked manifest and its tags as one commit, together with the other changes that are waiting.

        `condition` is asked within the commit: of two writers with the same one, the second sees the first.
        `user` is who pushes, for the history. Returns the digest that each of the tags had before, None for a new one.

        Raises ManifestBlobUnknown when something it references is missing, damaged or of another
        size. Returns when it is in index.json: nothing that comes later can lose it (I4, I5).
        """
        self._writable()
        staged = self.root.protocol.stage(body)
        before: TagsBefore = {}
        looked, facts = self._look_at_all(manifest), facts_of(manifest)

        def is_wrong(claim: str) -> bool:
            return not claim or contradicts(facts, claim)

        repository_graph, put_right = self.root.graphs.of(self.name), False

        def push(tx: Transaction, draft: Index) -> None:
            if condition is not None:
                condition(draft)
            self._require(tx, draft, manifest, looked)
            before.update({tag: str(row.digest) if (row := draft.find(tag)) and row.digest else None for tag in tags})
            tx.publish_manifest(manifest.digest, staged)
            for child in manifest.children:
                # A manifest that an index lists is a row too: other readers find it there, and nothing else names it.
                if looked[child.digest].leaf is None and child.digest not in draft:
                    draft.put(parse_digest(child.digest), child.size, child.media_type)
            nonlocal put_right
            put_right = any(map(is_wrong, draft.media_types_of(manifest.digest)))
            draft.put(manifest.digest, manifest.size, manifest.media_type, tags, is_wrong)
            # Before the rename: a collector must not find the row and go by an older push.
            self.root.history.note(self.name, "push", manifest.digest, before, user=user)

        try:
            self.root.protocol.prepare(self.name, _needs(manifest), manifest.digest, staged)
            self.root.committer.commit(self.name, push)
        except ManifestBlobUnknown:
            self._distrust(manifest)
            raise
        finally:
            self.root.protocol.unstage(staged)
        if put_right:
            repository_graph.forget(manifest.digest)  # what it was called is no claim any more
        self.root.bodies.put(manifest.digest, body, len(body) + 200)
        return before

    def _distrust(self, manifest: Manifest) -> None:
        """Hash blobs whose length differs from what this manifest says, once and without the lock."""
        repository_graph = self.root.graphs.of(self.name)
        for descriptor in (*manifest.blobs, *manifest.children):
            with suppress(DigestInvalid, StorageError):
                digest = parse_digest(descriptor.digest)
                size = self.root.protocol.blobs.find(self.name, digest).size
                doubtful = size != descriptor.size and not repository_graph.is_verified(digest, size)
                if doubtful and self.root.protocol.blobs.distrust(self.name, digest):
                    repository_graph.note_verified(digest, size)

    def _require(self, tx: Transaction, draft: Index, manifest: Manifest, looked: dict[str, ManifestNode]) -> None:
        """Everything referenced is there, as long as the descriptor says, what it is called, and not known to be
        damaged (I5).

        distribution-spec, "Push": only `subject` may be missing; image-spec, layer.md: so may layers
        that must not be distributed. A child that no row keeps (a collector dropped it, or it came as a blob) has
        to have what it needs, too. `looked` has what was read of children before the lock, and gets the rest.
        """
        todo, seen = [facts_of(manifest)], set[str]()
        while todo:
            one = todo.pop()
            missing = [d for d in one.blobs if not is_nondistributable(d.media_type)] + list(one.children)
            if faults := [fault for d in missing if (fault := _fault(tx, d))]:
                shown = "; ".join(reason for _, reason in faults[:5])
                raise ManifestBlobUnknown(f"{self.name}: {shown}", [digest for digest, _ in faults])
            for child in one.children:
                if child.digest not in looked:
                    looked[child.digest] = self._look_at(child)
                facts = _require_kind(child, looked[child.digest])
                if facts is not None and child.digest not in draft and child.digest not in seen:
                    seen.add(child.digest)
                    todo.append(facts)

    def _look_at_all(self, manifest: Manifest) -> dict[str, ManifestNode]:
        """Look at the children before the lock is taken. What is missing or unreadable is looked at again under it."""
        children = facts_of(manifest).children
        nodes = self.root.protocol.each([partial(self._look_at, child) for child in children])
        found = zip(children, nodes, strict=True)
        return {child.digest: node for child, node in found if not (node.fault and node.fault.may_pass)}

    def _look_at(self, child: Reference) -> ManifestNode:
        """What the bytes of a child say: those that are served from memory, or those that are stored, for what the
        graph has read of them may have rotted since."""
        body, stored = self.root.bodies.get(child.digest), reader_of(self.root.protocol, self.name)

        def read(digest: Digest, whole: bool) -> Content:
            return stored(digest, whole) if body is None else Content(len(body), body)

        return look_at(child.digest, [essence(child.media_type)], read)[0]

    def delete_manifest(
        self, reference: str, condition: Condition | None = None, user: str = "", gone: Gone | None = None
    ) -> None:
        """A tag: only the tag goes. A digest: the manifest, with all its tags.

        `condition` may refuse, seeing the index that is changed. `user` is who deletes, for the history. `gone` is
        called once with the tags that went and the digest that each had, as soon as they are out of index.json,
        whatever happens to the bytes then. Raises ManifestUnknown; Referenced for a manifest that an index lists.
        """
        self._writable()
        if ":" in reference:
            delete = partial(self._delete_by_digest, parse_digest(reference), condition, user)
        else:
            delete = partial(self._delete_tag, reference, condition, user)
        try:
            went = delete()
        except ManifestUnknown:
            self._seen()  # raises NameUnknown if there is no repository either
            raise
        if gone is not None:
            gone(went)
        if ":" in reference:
            # Its bytes go too, so that what a referrer still calls its subject is not kept alive by that.
            with suppress(BlobUnknown, Referenced):
                # Many are deleted one after the other, where a look at each subject that is missing may be a request.
                self._delete_bytes(parse_digest(reference), ManifestGraph.parents, again=not self.root.by_requests)

    def _delete_tag(self, tag: str, condition: Condition | None, user: str) -> TagsBefore:
        went: TagsBefore = {}

        def remove(tx: Transaction, draft: Index) -> None:
            row = draft.find(tag)
            if row is None or row.digest is None:
                raise ManifestUnknown(f"no tag {tag} in {self.name}", tag)
            if condition is not None:
                condition(draft)
            draft.untag(tag)
            # Before the rename, as for a push: from now on its delay runs.
            went[tag] = str(row.digest)
            self.root.history.note(self.name, "untag", row.digest, went, user=user)

        self.root.committer.commit(self.name, remove)
        return went

    def _delete_by_digest(self, digest: Digest, condition: Condition | None, user: str) -> TagsBefore:
        snapshot = self._look()
        has_no_row = snapshot is not None and digest not in snapshot.index
        with self._graph(certain=True, again=has_no_row) as graph:  # as for blobs
            doubtful = not graph.only_subjects().isdisjoint(graph.parents(digest))
        if doubtful:
            with self._graph(certain=True, again=True):
                pass  # another process may have deleted who lists it
        repository_graph = self.root.graphs.of(self.name)
        went: TagsBefore = {}

        def remove(tx: Transaction, draft: Index) -> None:
            if condition is not None:
                condition(draft)
            with repository_graph.at(draft, certain=True) as graph:
                graph.look_for(digest)
                if digest not in draft and digest not in graph.facts and digest not in graph.faults:
                    raise ManifestUnknown(f"no manifest {digest} in {self.name}", digest)
                # What a referrer calls its subject is only gone when its bytes are.
                repository_graph.require_known(draft, but=digest, damaged=bool(graph.referrers(digest)))
                parents = graph.parents(digest)
            if parents:
                raise Referenced(f"{digest} is listed by {', '.join(parents)}; delete that first", parents)
            went.clear()
            went.update(dict.fromkeys(draft.tags_of(digest), str(digest)))
            draft.drop(digest)
            if went:
                # Before the rename, as for a tag. The event of the deletion has no tags: to earlier versions it would
                # tell of these alone.
                self.root.history.note(self.name, "untag", digest, went, user=user)

        self.root.committer.commit(self.name, remove)
        self.root.history.note(self.name, "delete", digest, user=user)
        return went

    def referrers(self, digest: str, artifact_type: str | None = None) -> list[Descriptor]:
        """The manifests whose `subject` is this digest, whether or not that is here
        (distribution-spec, "Listing Referrers")."""
        if self._look() is None:
            return []
        with self._graph():
            found = self.root.graphs.of(self.name).referrers(digest)
        return [d for d in found if artifact_type is None or d.artifact_type == artifact_type]


def _needs(manifest: Manifest) -> list[Digest]:
    """Everything that a manifest needs here. A digest of an unknown algorithm is left out; the commit refuses it."""
    found = []
    for descriptor in (*manifest.blobs, *manifest.children):
        if not is_nondistributable(descriptor.media_type):
            with suppress(DigestInvalid):
                found.append(parse_digest(descriptor.digest))
    return found


def _fault(tx: Transaction, descriptor: Reference) -> tuple[str, str] | None:
    digest = descriptor.digest
    try:
        size = tx.require(parse_digest(digest)).size
    except Damaged as error:
        return digest, f"{error.message}, before the manifest"
    except (NotFound, DigestInvalid):
        return digest, f"{digest} is not here; push it before the manifest"
    if size != descriptor.size:
        return digest, f"{digest} has {size} bytes, not the {descriptor.size} of its descriptor"
    return None


def _require_kind(child: Reference, node: ManifestNode) -> ManifestFacts | None:
    """Require that a child is what its descriptor calls it, and return its facts. An unknown type is taken as it is.

    Raises ManifestInvalid, ManifestBlobUnknown, Unavailable.
    """
    fault, says = node.fault, ""
    if fault is not None and fault.kind == "unreadable":
        raise Unavailable(f"{child.digest} can't be read now: {fault.reason}")
    if fault is not None and fault.may_pass:
        raise ManifestBlobUnknown(f"{child.digest}: {fault.reason}; push it again before the manifest", [child.digest])
    if node.facts is not None and contradicts(node.facts, child.media_type):
        says = called(node.facts)
    elif fault is not None and fault.kind == "invalid_manifest":
        says = f"is no manifest: {fault.reason}"
    if says:
        raise ManifestInvalid(
            f"manifests: {child.digest} is listed as {quoted(child.media_type)} and {says} (image-spec, descriptor.md)",
            child.digest,
        )
    return node.facts
