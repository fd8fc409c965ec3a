"""Random operations by two servers on one root, with restarts, foreign edits and damage, against a dictionary.

Each step is checked whole: every tag, digest, blob and referrer of every repository, through both servers.
More examples: ZOTCTL_EXAMPLES=2000 pytest -k machine.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests import images
from tests.doubles.filesystem import MemoryDriver
from tests.storage.model import Rows
from tests.stores import closed, store_over
from zotctl.errors import (
    BlobUnknown,
    ManifestBlobUnknown,
    ManifestUnknown,
    NameUnknown,
    NotFound,
    Referenced,
    ZotctlError,
)
from zotctl.oci.digest import Digest, digest_of, parse_digest
from zotctl.oci.manifest import check_manifest
from zotctl.oci.media_types import OCI_INDEX, OCI_MANIFEST
from zotctl.storage import Repository, keys
from zotctl.storage.driver import Driver, read
from zotctl.storage.local.driver import LocalDriver

EXAMPLES = int(os.environ.get("ZOTCTL_EXAMPLES", "50"))
REF = "org.opencontainers.image.ref.name"

NAMES = ["a", "a/b"]
TAGS = ["v1", "v2", "latest"]
BLOBS = [b"", b"x", b"config" * 9, b"layer" * 1000]
GOOD, FLIPPED, SHORT, EMPTY = "good", "flipped", "short", "empty"


@dataclass(frozen=True)
class Known:
    """A manifest of the small world in which all this happens."""

    body: bytes
    media_type: str
    blobs: tuple[Digest, ...] = ()
    children: tuple[Digest, ...] = ()
    subject: Digest | None = None

    @property
    def digest(self) -> Digest:
        return digest_of(self.body)


def image(config: bytes, *layers: bytes, subject: Known | None = None) -> Known:
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": images.descriptor(config, images.CONFIG),
        "layers": [images.descriptor(layer, images.LAYER) for layer in layers],
    }
    if subject is not None:
        document["subject"] = images.descriptor(subject.body, subject.media_type)
    blobs = tuple(digest_of(blob) for blob in (config, *layers))
    return Known(json.dumps(document).encode(), OCI_MANIFEST, blobs, (), subject.digest if subject else None)


def index(*children: Known) -> Known:
    rows = [images.descriptor(child.body, child.media_type) for child in children]
    body = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": rows}).encode()
    return Known(body, OCI_INDEX, (), tuple(child.digest for child in children))


ONE = image(BLOBS[2], BLOBS[3])
TWO = image(BLOBS[2], BLOBS[1], BLOBS[0])
SBOM = image(BLOBS[1], subject=ONE)
INNER, NOTHING = index(ONE, TWO), index()
OUTER = index(INNER, SBOM)
MANIFESTS = {known.digest: known for known in (ONE, TWO, SBOM, INNER, NOTHING, OUTER)}
BODIES = {digest_of(body): body for body in [*BLOBS, *(known.body for known in MANIFESTS.values())]}


def spoilt(body: bytes, how: str) -> bytes:
    return {FLIPPED: bytes([*body[:-1], body[-1] ^ 1]), SHORT: body[:-1], EMPTY: b""}[how]


@dataclass
class Repo:
    """What must be there: rows, and which blobs in which state."""

    rows: Rows = field(default_factory=Rows)
    blobs: dict[Digest, str] = field(default_factory=dict)

    def seen_as_whole(self, digest: Digest) -> bool:
        """Its length is right, and nobody can know more without reading it."""
        return self.blobs.get(digest) in (GOOD, FLIPPED)

    def takes(self, known: Known, *, sure: bool) -> bool:
        """All that it names is there; a child that no row keeps needs what is below it as well. `sure`: no child has
        rotted; else a process that remembers one takes it for good, and one that reads it refuses what lists it."""
        todo, seen = [known], set[Digest]()
        while todo:
            one = todo.pop()
            if not all(map(self.seen_as_whole, (*one.blobs, *one.children))):
                return False
            if sure and any(self.blobs[child] != GOOD for child in one.children):
                return False
            fresh = {child for child in one.children if child not in self.rows.digests()} - seen
            seen |= fresh
            todo += [MANIFESTS[child] for child in fresh if self.blobs[child] == GOOD]
        return True

    def reachable(self, *, sure: bool) -> set[Digest]:
        """Manifests from the rows down, with subjects that are here. `sure`: only through what is whole; else also
        through what this process may remember from before the damage."""
        found: set[Digest] = set()
        todo = [parse_digest(digest) for digest in self.rows.digests()]
        while todo:
            digest = todo.pop()
            if digest not in found:
                found.add(digest)
                if not sure or self.blobs.get(digest) == GOOD:
                    known = MANIFESTS[digest]
                    todo += known.children
                    if known.subject is not None and known.subject in self.blobs:
                        todo.append(known.subject)
        return found

    def readable(self) -> set[Digest]:
        return {digest for digest in self.reachable(sure=True) if self.blobs.get(digest) == GOOD}

    def nameless(self) -> bool:
        """Is there a row of which it is not known what it names?"""
        return any(digest is None for digest, _, _ in self.rows.rows)

    def damaged(self) -> bool:
        return any(self.blobs.get(digest) != GOOD for digest in self.reachable(sure=False))

    def users(self, digest: Digest) -> set[Digest]:
        return {d for d in self.readable() if digest in (*MANIFESTS[d].blobs, *MANIFESTS[d].children)}

    def referrers(self, digest: Digest) -> set[Digest]:
        return {d for d in self.readable() if MANIFESTS[d].subject == digest}


class Machine(RuleBasedStateMachine):
    """`make` gives the driver: see the classes below."""

    make: ClassVar[Callable[[Machine], Driver]]

    def __init__(self) -> None:
        super().__init__()
        self.repos: dict[str, Repo] = {}
        self.edits = 0
        self.owed: set[tuple[str, Digest]] = set()
        """Damaged links of an inode that was healed elsewhere: these are healed too, sooner or later."""
        self.driver = type(self).make(self)
        self.made = ExitStack()
        self.made.enter_context(closed())  # thousands of sequences would fill the memory
        self.stores = [store_over(self.driver), store_over(self.driver)]

    @initialize(
        known=st.lists(st.sampled_from(list(MANIFESTS.values())), max_size=3),
        tags=st.lists(st.sampled_from(TAGS), min_size=3, max_size=3),
    )
    def begin(self, known: list[Known], tags: list[str]) -> None:
        """Most of what can go wrong needs something to be there."""
        for one, tag in zip(known, tags, strict=False):
            self.push_all("a", one, [tag])

    # -- what clients do ------------------------------------------------------------------------

    @rule(name=st.sampled_from(NAMES), body=st.sampled_from(BLOBS), one=st.booleans(), cut=st.integers(0, 9))
    def push_blob(self, name: str, body: bytes, one: bool, cut: int) -> None:
        first, second = self.stores if one else self.stores[::-1]
        self.owe(name, digest_of(body))
        upload_id = first.repository_for_push(name).start_upload()
        with first.repository_for_push(name).resume_upload(upload_id) as upload:
            upload.write([body[:cut]])
        with second.repository_for_push(name).resume_upload(upload_id) as upload:
            assert upload.offset == len(body[:cut])
            upload.write([body[cut:]])
            upload.finish(digest_of(body))
        self.repos.setdefault(name, Repo()).blobs[digest_of(body)] = GOOD

    @rule(source=st.sampled_from(NAMES), name=st.sampled_from(NAMES), body=st.sampled_from(BLOBS), one=st.booleans())
    def mount(self, source: str, name: str, body: bytes, one: bool) -> None:
        if source not in self.repos:
            return
        store, digest = self.stores[one], digest_of(body)
        there = self.repos[source].blobs.get(digest)
        done = store.repository_for_push(name).mount_blob(store.repository(source), digest)
        if there is None or there == EMPTY:
            assert not done
        elif there == GOOD and self.repos.get(name, Repo()).blobs.get(digest) in (None, GOOD):
            assert done == self.driver.capabilities.links
        if done:
            self.repos.setdefault(name, Repo()).blobs.setdefault(digest, there or "")

    @rule(
        name=st.sampled_from(NAMES),
        known=st.sampled_from(list(MANIFESTS.values())),
        tags=st.lists(st.sampled_from(TAGS), max_size=2),
        one=st.booleans(),
    )
    def push_manifest(self, name: str, known: Known, tags: list[str], one: bool) -> None:
        repo = self.repos.get(name, Repo())
        manifest = check_manifest(known.body, known.media_type)
        repository = self.stores[one].repository_for_push(name)
        self.owe(name, known.digest)
        try:
            repository.put_manifest(manifest, known.body, tags)
        except ManifestBlobUnknown:
            assert not repo.takes(known, sure=True)
            return
        assert repo.takes(known, sure=False), "something is missing (I5)"
        self.repos[name] = repo
        for child in known.children:
            repo.rows.put(child)
        repo.rows.put(known.digest, tags)
        repo.blobs[known.digest] = GOOD

    @rule(
        name=st.sampled_from(NAMES),
        known=st.sampled_from(list(MANIFESTS.values())),
        tags=st.lists(st.sampled_from(TAGS), max_size=1),
    )
    def push_all(self, name: str, known: Known, tags: list[str]) -> None:
        """As a client does it: what is below first."""
        for child in known.children:
            repo = self.repos.get(name, Repo())
            if not repo.seen_as_whole(child) or child not in repo.rows.digests():
                self.push_all(name, MANIFESTS[child], [])
        for digest in known.blobs:
            self.push_blob(name, BODIES[digest], True, 0)
        self.push_manifest(name, known, tags, False)

    @precondition(lambda self: any(repo.damaged() for repo in self.repos.values()))
    @rule(data=st.data(), tags=st.lists(st.sampled_from(TAGS), max_size=1))
    def heal(self, data: st.DataObject, tags: list[str]) -> None:
        """Push a manifest again that is damaged."""
        broken = [
            (name, digest)
            for name, repo in self.repos.items()
            for digest in repo.reachable(sure=False)
            if repo.blobs.get(digest) != GOOD
        ]
        name, digest = data.draw(st.sampled_from(sorted(broken)))
        self.push_all(name, MANIFESTS[digest], tags)

    @rule(name=st.sampled_from(NAMES), tag=st.sampled_from(TAGS), one=st.booleans())
    def delete_tag(self, name: str, tag: str, one: bool) -> None:
        repo = self.repos.get(name)
        repository = self.existing(name, one)
        if repo is None or repository is None:
            return
        if tag not in repo.rows.tags():
            with pytest.raises(ManifestUnknown):
                repository.delete_manifest(tag)
            return
        repository.delete_manifest(tag)
        repo.rows.untag(tag)

    @rule(name=st.sampled_from(NAMES), known=st.sampled_from(list(MANIFESTS.values())), one=st.booleans())
    def delete_manifest(self, name: str, known: Known, one: bool) -> None:
        repo = self.repos.get(name)
        repository = self.existing(name, one)
        if repo is None or repository is None:
            return
        digest = known.digest
        try:
            repository.delete_manifest(digest)
        except Referenced:
            assert repo.users(digest) or repo.damaged()
            return
        except ManifestUnknown:
            assert digest not in repo.rows.digests() and digest not in repo.readable()
            return
        assert digest in repo.reachable(sure=False), "there was none"  # as a subject, it needs no row
        assert not repo.users(digest), "an index lists it (I5)"
        repo.rows.drop(digest)
        self.forget(repo, name, digest)

    @rule(name=st.sampled_from(NAMES), digest=st.sampled_from(list(BODIES)), one=st.booleans())
    def delete_blob(self, name: str, digest: Digest, one: bool) -> None:
        repo = self.repos.get(name)
        repository = self.existing(name, one)
        if repo is None or repository is None:
            return
        used = digest in repo.rows.digests() or bool(repo.users(digest) or repo.referrers(digest))
        try:
            repository.delete_blob(digest)
        except BlobUnknown:
            assert repo.blobs.get(digest) != GOOD and self.inode(name, digest) is None
        except Referenced:
            assert digest in repo.blobs and (used or repo.damaged() or repo.nameless())
        else:
            assert digest in repo.blobs and not used and not repo.nameless(), "in use, or that can't be known (I5)"
            del repo.blobs[digest]

    def existing(self, name: str, one: bool) -> Repository | None:
        if name in self.repos:
            return self.stores[one].repository(name)
        with pytest.raises(NameUnknown):
            self.stores[one].repository(name)
        return None

    def forget(self, repo: Repo, name: str, digest: Digest) -> None:
        """The bytes of a deleted manifest go with it, unless something may need them."""
        try:
            self.driver.stat(keys.blob(name, digest))
        except ZotctlError:
            repo.blobs.pop(digest, None)
        else:
            may_stay = repo.damaged() or repo.nameless() or repo.users(digest)
            assert digest not in repo.blobs or may_stay, "left behind"

    def owe(self, name: str, digest: Digest) -> None:
        """Before a push of `digest`: who else has the damaged inode that it will replace?"""
        inode = self.inode(name, digest)
        if self.repos.get(name, Repo()).blobs.get(digest, GOOD) != GOOD:
            self.owed |= {(n, digest) for n in self.repos if n != name and self.inode(n, digest) == inode}

    def inode(self, name: str, digest: Digest) -> int | None:
        try:
            return self.driver.stat(keys.blob(name, digest)).ino
        except NotFound:
            return None

    # -- what others do -------------------------------------------------------------------------

    @rule(which=st.booleans())
    def restart(self, which: bool) -> None:
        self.stores[which].close()
        self.stores[which] = store_over(self.driver)

    @rule(which=st.booleans())
    def maintain(self, which: bool) -> None:
        self.stores[which].maintain()

    @precondition(lambda self: self.repos)
    @rule(data=st.data(), tag=st.sampled_from([*TAGS, "x:v1", "host:5000/y:v9"]), drop=st.booleans())
    def edit(self, data: st.DataObject, tag: str, drop: bool) -> None:
        """Another tool adds or removes a row, in place, and indents as it likes."""
        name = data.draw(st.sampled_from(sorted(self.repos)))
        repo = self.repos[name]
        key = keys.index(name)
        document = json.loads(read(self.driver, key, 1 << 20))
        rows = document["manifests"]
        if rows and drop:
            at = data.draw(st.integers(0, len(rows) - 1))
            del rows[at], repo.rows.rows[at]
        elif repo.readable():
            known = MANIFESTS[parse_digest(data.draw(st.sampled_from(sorted(repo.readable()))))]
            rows.append(images.descriptor(known.body, known.media_type) | {"annotations": {REF: tag, "k": "v"}})
            alias = tag.rpartition(":")[2] if ":" in tag else None
            repo.rows.rows.append((known.digest, None if alias else tag, alias))
        else:
            rows.append({"nobody": "knows"})
            repo.rows.rows.append((None, None, None))
        self.edits += 1
        document["x-edits"] = "e" * self.edits
        with self.driver.append(key) as writer:
            writer.truncate(0)
            writer.write([json.dumps(document, indent=self.edits % 3 or None).encode()])

    @precondition(lambda self: any(repo.blobs for repo in self.repos.values()))
    @rule(data=st.data(), how=st.sampled_from([FLIPPED, SHORT, EMPTY]), restart=st.booleans())
    def damage(self, data: st.DataObject, how: str, restart: bool) -> None:
        """A file with other content in the place of a blob; other links to the old one stay good."""
        places = [(name, d) for name, repo in self.repos.items() for d in repo.blobs if BODIES[d]]
        places = [(name, d) for name, d in places if self.inode(name, d)]  # what a push found damaged is put aside
        if not places:
            return
        name, digest = data.draw(st.sampled_from(places))
        self.driver.unlink(keys.blob(name, digest))
        with self.driver.create(keys.blob(name, digest)) as writer:
            writer.write([spoilt(BODIES[digest], how)])
        self.owed.discard((name, digest))
        self.repos[name].blobs[digest] = EMPTY if len(BODIES[digest]) == 1 and how == SHORT else how
        if restart:
            self.restart(False)  # who has read it before knows what it said

    @precondition(lambda self: any(repo.blobs for repo in self.repos.values()))
    @rule(how=st.sampled_from([FLIPPED, SHORT, EMPTY]))
    def damage_pool(self, how: str) -> None:
        """The copy that the next push will find."""
        for digest in sorted({digest for repo in self.repos.values() for digest in repo.blobs if BODIES[digest]}):
            key = keys.pool(digest)
            with suppress(NotFound):
                self.driver.unlink(key)
                with self.driver.create(key) as writer:
                    writer.write([spoilt(BODIES[digest], how)])

    # -- what must hold after each step ---------------------------------------------------------

    @invariant()
    def a_debt_is_paid_with_good_bytes(self) -> None:
        """First of the invariants, for the others go by what it finds."""
        for name, digest in sorted(self.owed):
            blobs = self.repos[name].blobs
            if digest not in blobs or blobs[digest] == GOOD:
                self.owed.discard((name, digest))
            elif read(self.driver, keys.blob(name, digest), 1 << 20) == BODIES[digest]:
                blobs[digest] = GOOD
                self.owed.discard((name, digest))

    @invariant()
    def everything_is_as_the_model_says(self) -> None:
        for store in self.stores:
            assert store.repositories() == sorted(self.repos, key=lambda name: name.split("/"))
            for name, repo in self.repos.items():
                self.check_repository(store.repository(name), repo)

    def check_repository(self, repository: Repository, repo: Repo) -> None:
        tags = repo.rows.tags()
        assert repository.tags() == sorted(tags)
        for tag in {*TAGS, "v9", *tags}:
            self.check_manifest(repository, repo, tag, tags.get(tag))
        sure, maybe = repo.reachable(sure=True), repo.reachable(sure=False)
        for digest in MANIFESTS:
            if digest in sure or digest not in maybe:
                self.check_manifest(repository, repo, digest, digest if digest in sure else None)
        for digest, body in BODIES.items():
            self.check_blob(repository, repo, digest, body)
        found = [d.digest for d in repository.referrers(ONE.digest)]
        if not repo.damaged():
            assert found == sorted(repo.referrers(ONE.digest))
        else:
            assert repo.referrers(ONE.digest) <= set(found)

    def check_manifest(self, repository: Repository, repo: Repo, reference: str, digest: str | None) -> None:
        state = repo.blobs.get(parse_digest(digest)) if digest else None
        try:
            found = repository.manifest(reference)
        except ManifestUnknown:
            assert state != GOOD, f"{reference} is lost (I4)"
            return
        known = MANIFESTS[found.digest]
        assert (found.digest, found.body, found.media_type) == (digest, known.body, known.media_type)
        assert state in (GOOD, FLIPPED), "flipped: this process may have it in memory"

    def check_blob(self, repository: Repository, repo: Repo, digest: Digest, body: bytes) -> None:
        state = repo.blobs.get(digest)
        size_known = digest in repo.rows.digests() or bool(repo.users(digest))
        for ask in (repository.blob, lambda d: self.bytes_of(repository, d)):
            try:
                found = ask(digest)
            except BlobUnknown:
                assert state != GOOD, f"{digest} is lost"
                continue
            assert state in (GOOD, FLIPPED, SHORT) and not (state == SHORT and size_known), "wrong length (I2)"
            size = found if isinstance(found, int) else len(found)
            assert size == len(body) - (state == SHORT)
            assert isinstance(found, int) or state != GOOD or found == body

    @staticmethod
    def bytes_of(repository: Repository, digest: Digest) -> bytes:
        with repository.open_blob(digest) as reader:
            return reader.read_at(0, reader.size)

    @invariant()
    def index_json_is_what_the_model_says(self) -> None:
        for name, repo in self.repos.items():
            document = json.loads(read(self.driver, keys.index(name), 1 << 20))
            assert [row.get("digest") for row in document["manifests"]] == [row[0] for row in repo.rows.rows]
            assert [row for row in document["manifests"] if "digest" not in row] == [{"nobody": "knows"}] * sum(
                row[0] is None for row in repo.rows.rows
            )

    @invariant()
    def nothing_is_left_over(self) -> None:
        for directory in (keys.TMP, keys.UPLOADS):
            assert self.driver.scan(directory) == []
        for name in self.repos:
            found = {entry.name for entry in self.driver.scan(name)}
            assert found <= {"oci-layout", "index.json", "blobs", "b"}, "a temporary file stays"

    def teardown(self) -> None:
        for store in self.stores:
            store.close()
        self.made.close()


class MemoryMachine(Machine):
    make = lambda self: MemoryDriver()  # noqa: E731


class LinklessMachine(Machine):
    make = lambda self: MemoryDriver(links=False)  # noqa: E731


class LocalMachine(Machine):
    def make_local(self) -> Driver:
        self.directory = tempfile.mkdtemp(prefix="zotctl-machine-")
        return LocalDriver(self.directory)

    make = make_local

    def teardown(self) -> None:
        super().teardown()
        shutil.rmtree(self.directory)


CHECKED = settings(
    max_examples=EXAMPLES, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
patient = pytest.mark.timeout(900 + 10 * EXAMPLES)  # a failure is made smaller before it is shown: that takes minutes
TestMemoryMachine = patient(MemoryMachine.TestCase)
TestLinklessMachine = patient(LinklessMachine.TestCase)
TestLocalMachine = patient(LocalMachine.TestCase)
TestMemoryMachine.settings = TestLinklessMachine.settings = TestLocalMachine.settings = CHECKED


class Chosen:
    """In the place of what draws: these values, in order."""

    def __init__(self, *values: object) -> None:
        self._values = list(values)

    def draw(self, strategy: object) -> Any:
        return self._values.pop(0)


Steps = Iterator[None]
"""The steps of a sequence; whatever comes after one of them is checked there."""


def a_child_rots_and_a_server_begins_anew(machine: Machine, one: bool) -> Steps:
    """That one reads it and refuses the index until it is pushed again; the other one remembers it."""
    yield machine.push_all("a", ONE, [])
    yield machine.push_all("a", TWO, [])
    yield machine.damage(Chosen(("a", ONE.digest)), FLIPPED, True)
    yield machine.push_manifest("a", INNER, ["v1"], one)
    assert ("v1" in machine.repos["a"].rows.tags()) == one
    yield machine.push_all("a", ONE, [])
    yield machine.push_manifest("a", INNER, ["v1"], one)
    assert "v1" in machine.repos["a"].rows.tags()


def a_subject_loses_its_row_and_is_deleted(machine: Machine, one: bool) -> Steps:
    """It is served for its referrer, so it can be deleted."""
    yield machine.push_all("a", ONE, [])
    yield machine.push_all("a", SBOM, [])
    yield machine.edit(Chosen("a", 0), "v1", True)
    yield machine.delete_manifest("a", ONE, one)
    assert ONE.digest not in machine.repos["a"].blobs


def a_subject_loses_its_row_and_is_deleted_twice(machine: Machine, one: bool) -> Steps:
    """The other server remembers it."""
    yield machine.push_all("a", ONE, [])
    yield machine.push_all("a", SBOM, [])
    yield machine.edit(Chosen("a", 0), "v1", True)
    yield machine.delete_manifest("a", ONE, one)
    yield machine.delete_manifest("a", ONE, not one)
    yield machine.delete_blob("a", digest_of(BLOBS[3]), not one)
    assert digest_of(BLOBS[3]) not in machine.repos["a"].blobs


def a_subject_loses_its_row_and_is_deleted_as_a_blob(machine: Machine, one: bool) -> Steps:
    """It is refused, as its referrer needs it."""
    yield machine.push_all("a", ONE, [])
    yield machine.push_all("a", SBOM, [])
    yield machine.edit(Chosen("a", 0), "v1", True)
    yield machine.delete_blob("a", ONE.digest, one)
    assert ONE.digest in machine.repos["a"].blobs


def a_config_is_cut_short_and_deleted(machine: Machine, one: bool) -> Steps:
    """The refusal of the manifest marks it; where there are no links, it is put aside, so not there to be deleted."""
    yield machine.push_all("a", ONE, [])
    yield machine.damage(Chosen(("a", digest_of(BLOBS[2]))), SHORT, True)
    yield machine.push_manifest("a", TWO, [], one)
    yield machine.delete_manifest("a", ONE, one)
    yield machine.delete_blob("a", digest_of(BLOBS[2]), one)


FOUND = [
    a_child_rots_and_a_server_begins_anew,
    a_subject_loses_its_row_and_is_deleted,
    a_subject_loses_its_row_and_is_deleted_twice,
    a_subject_loses_its_row_and_is_deleted_as_a_blob,
    a_config_is_cut_short_and_deleted,
]


@pytest.mark.parametrize("one", [False, True])
@pytest.mark.parametrize("steps", FOUND)
@pytest.mark.parametrize("make", [MemoryMachine, LinklessMachine, LocalMachine])
def test_sequences_that_were_found(make: type[Machine], steps: Callable[[Machine, bool], Steps], one: bool) -> None:
    machine = make()
    try:
        for _ in steps(machine, one):
            for check in machine.invariants:
                check.function(machine)
    finally:
        machine.teardown()
