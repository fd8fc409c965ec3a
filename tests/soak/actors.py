"""Clients of the store: pushers of several manners, pullers, contenders for the same tags, and one that imports; and
what each was told."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx

from tests import images
from tests.clients.peers import ACCEPT
from tests.soak.fleet import Fleet, Jobs
from tests.soak.journal import Journal
from tests.soak.places import InBucket
from tests.soak.registers import Call, Registers
from zotctl.oci.digest import digest_of
from zotctl.oci.media_types import OCI_MANIFEST

REPOSITORIES = ("one", "two/deep", "three")
CONTENDED = "contended"
"""Its tags are written by all contenders."""
RECIPES = 30
"""So few sets of layers that pushers, repositories and collections meet in the same blobs all the time."""
TAGS_KEPT = 2
"""Tags of one pusher in one repository; beyond that it deletes."""
MARGIN = 0.1
"""Seconds of the delay that a test leaves to the coarse clock of a file system."""


class Refused(Exception):
    """An answer that is a failure, and noted as one."""


@dataclass
class Tags:
    """What must be there: a tag has one owner, who alone writes it. A tag in `moving` is between two states."""

    held: dict[tuple[str, str], images.Image] = field(default_factory=dict)
    moving: dict[tuple[str, str], int] = field(default_factory=dict)
    mutex: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def change(self, name: str, tag: str, made: images.Image | None) -> Iterator[None]:
        with self.mutex:
            self.moving[name, tag] = self.moving.get((name, tag), 0) + 1
            self.held.pop((name, tag), None)
        yield
        if made is not None:
            with self.mutex:
                self.held[name, tag] = made

    def some(self) -> tuple[str, str, images.Image, int] | None:
        with self.mutex:
            if not self.held:
                return None
            (name, tag), made = random.choice(list(self.held.items()))
            return name, tag, made, self.moving[name, tag]

    def is_still(self, name: str, tag: str, version: int) -> bool:
        with self.mutex:
            return (name, tag) in self.held and self.moving[name, tag] == version

    def of(self, owner: str, name: str) -> list[str]:
        with self.mutex:
            return [tag for at, tag in self.held if at == name and tag.startswith(owner)]


@dataclass
class World:
    fleet: Fleet
    jobs: Jobs
    journal: Journal
    delay: float
    wanted: tuple[str, ...]
    tags: Tags = field(default_factory=Tags)
    registers: Registers = field(default_factory=Registers)
    stop: threading.Event = field(default_factory=threading.Event)


class Actor:
    """A client that goes to another server when one breaks the connection, and comes again after a 503 and while the
    disk is full. Each answer to a GET of content has to be that content."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name, self.journal = world, name, world.journal
        self._client = httpx.Client(timeout=60, trust_env=False)

    def loop(self, step: Callable[[], None]) -> None:
        while not self.world.stop.is_set():
            try:
                step()
            except Refused:
                time.sleep(0.2)
            except Exception as error:
                self.journal.fail(f"{self.name} can't go on: {error!r}")
                return
        self._client.close()

    def ask(self, method: str, path: str, *about: object, **options: object) -> tuple[httpx.Response, bool]:
        """The answer, and whether an earlier try may have done it already."""
        again = False
        for _ in range(600):
            try:
                answer = self._client.request(method, self.world.fleet.url() + path, **options)  # type: ignore[arg-type]
            except httpx.TransportError as error:
                self.journal.note(self.name, f"{method} {path} {type(error).__name__}", *about)
                again = True
                time.sleep(0.05)
                continue
            self.journal.note(self.name, f"{method} {path} {answer.status_code}", *about)
            self.journal.count("requests")
            if answer.status_code not in (503, 507):
                self.look_at_digest(method, path, answer)
                return answer, again
            again = True
            self.journal.count(str(answer.status_code))
            time.sleep(0.2)
        self.journal.fail(f"{self.name}: no answer to {method} {path}", *about)
        raise Refused

    def look_at_digest(self, method: str, path: str, answer: httpx.Response) -> None:
        """What is told of content is true of its bytes."""
        wanted = answer.headers.get("docker-content-digest")
        if method != "GET" or answer.status_code != 200 or wanted is None:
            return
        self.journal.count("digests checked")
        if wanted != str(digest_of(answer.content)) or ("sha256:" in path and wanted not in path):
            self.journal.fail(f"{self.name}: GET {path} has other bytes than it says", wanted)

    def refuse(self, what: str, answer: httpx.Response, *about: object) -> Refused:
        self.journal.fail(f"{self.name}: {what}: {answer.status_code} {answer.text[:500]}", *about)
        return Refused()


class Pusher(Actor):
    """`manner`: quick, slow (the manifest seconds after the blobs), or reserved (HEAD, then the manifest)."""

    def __init__(self, world: World, name: str, manner: str) -> None:
        super().__init__(world, name)
        self._manner, self._count = manner, 0

    def step(self) -> None:
        name, self._count = random.choice(REPOSITORIES), self._count + 1
        seed = random.randrange(RECIPES)
        made = images.image(f"recipe {seed}", layers=2, annotations={"who": self.name, "n": str(self._count)})
        # Some tags are moved, some are new.
        tag = f"{self.name}-{self._count if random.random() < 0.7 else 'moving'}"
        began = time.time()
        for body in made.blobs:
            self._provide(name, body, made)
        time.sleep(random.uniform(0, 0.1) if self._manner == "quick" else random.uniform(0.5, self.world.delay - 1.5))
        with self.world.tags.change(name, tag, made):
            self._put(name, tag, made, began)
        self.journal.count(f"pushed {self._manner}")
        if random.random() < 0.3:
            self._delete_some(name)

    def _provide(self, name: str, body: bytes, made: images.Image) -> None:
        digest = digest_of(body)
        if self._manner == "reserved":
            answer, _ = self.ask("HEAD", f"/v2/{name}/blobs/{digest}", made.digest)
            if answer.status_code == 200:
                self.journal.count("blobs reserved by HEAD")
                return
            if answer.status_code != 404:
                raise self.refuse("HEAD", answer, digest, made.digest)
            if random.random() < 0.5 and self._mount(name, str(digest), made):
                return
        if random.random() < 0.5:
            self._post(name, str(digest), body, made)
        else:
            self._chunks(name, str(digest), body, made)

    def _mount(self, name: str, digest: str, made: images.Image) -> bool:
        source = random.choice(REPOSITORIES)
        params = {"mount": digest, "from": source}
        answer, _ = self.ask("POST", f"/v2/{name}/blobs/uploads/", digest, made.digest, params=params)
        if answer.status_code not in (201, 202):
            raise self.refuse("mount", answer, digest, made.digest)
        self.journal.count("blobs reserved by mount", answer.status_code == 201)
        return answer.status_code == 201

    def _post(self, name: str, digest: str, body: bytes, made: images.Image) -> None:
        path = f"/v2/{name}/blobs/uploads/"
        answer, _ = self.ask("POST", path, digest, made.digest, params={"digest": digest}, content=body)
        if answer.status_code != 201:
            raise self.refuse("push of a blob", answer, digest, made.digest)

    def _chunks(self, name: str, digest: str, body: bytes, made: images.Image) -> None:
        """Each request may reach another server. A session whose request was lost is begun again."""
        for _ in range(100):
            # Its age counts from when the server took the request, and the answer may be long under way.
            began = time.time()
            answer, _ = self.ask("POST", f"/v2/{name}/blobs/uploads/", digest, made.digest)
            if answer.status_code != 202:
                raise self.refuse("start of an upload", answer, digest, made.digest)
            location = answer.headers["location"]
            half, lost = len(body) // 2, False
            for method, part in (("PATCH", body[:half]), ("PUT", body[half:])):
                params = {"digest": digest} if method == "PUT" else {}
                answer, lost = self.ask(method, location, digest, made.digest, params=params, content=part)
                if lost or answer.status_code >= 300:
                    break
            if answer.status_code == 201:
                return
            if not lost and time.time() - began < self.world.delay - MARGIN:
                raise self.refuse(f"{method} of an upload", answer, digest, made.digest)
        raise self.refuse("a hundred uploads were lost", answer, digest, made.digest)

    def _put(self, name: str, tag: str, made: images.Image, began: float) -> None:
        """What was told within the delay has to hold; what comes later may be refused, and is pushed whole."""
        for _ in range(50):
            headers = {"Content-Type": OCI_MANIFEST}
            path = f"/v2/{name}/manifests/{tag}"
            answer, _ = self.ask("PUT", path, made.digest, content=made.manifest, headers=headers)
            if answer.status_code == 201:
                return
            self.look_at_delay(answer, began, name, tag, made)
            began = time.time()
            for body in made.blobs:
                self._post(name, str(digest_of(body)), body, made)
        raise self.refuse("never taken", answer, name, tag, made.digest)

    def look_at_delay(self, answer: httpx.Response, began: float, name: str, tag: str, made: images.Image) -> None:
        """A manifest may be refused only if its first blob was there for the delay, and may be gone."""
        passed = time.time() - began
        if answer.status_code >= 500 or passed < self.world.delay - MARGIN:
            about = (name, tag, made.digest, *map(digest_of, made.blobs))
            raise self.refuse(f"refused {passed:.1f} s after its blobs were there", answer, *about)
        self.journal.count("refused after the delay")

    def _delete_some(self, name: str) -> None:
        """Tags, and manifests with all that names them."""
        mine = self.world.tags.of(f"{self.name}-", name)
        while len(mine) > TAGS_KEPT:
            tag = mine.pop(random.randrange(len(mine)))
            made = self.world.tags.held[name, tag]
            reference = random.choice((tag, str(made.digest)))
            with self.world.tags.change(name, tag, None):
                answer, again = self.ask("DELETE", f"/v2/{name}/manifests/{reference}", made.digest)
                if answer.status_code != 202 and not (again and answer.status_code == 404):
                    raise self.refuse("delete", answer, name, tag, made.digest)
            self.journal.count("deleted")


class Puller(Actor):
    def step(self) -> None:
        if (chosen := self.world.tags.some()) is None:
            time.sleep(0.1)
            return
        name, tag, made, version = chosen
        fault = self.fault(name, tag, made)
        if not self.world.tags.is_still(name, tag, version):
            return
        if fault:
            self.journal.fail(f"{self.name}: {fault}", name, tag, made.digest, *map(digest_of, made.blobs))
        self.journal.count("pulled")
        time.sleep(random.uniform(0, 0.1))

    def fault(self, name: str, tag: str, made: images.Image) -> str | None:
        """What is wrong with a tag."""
        answer, _ = self.ask("GET", f"/v2/{name}/manifests/{tag}", made.digest, headers=ACCEPT)
        if (answer.status_code, answer.content) != (200, made.manifest):
            return f"{name}:{tag} is not what was acknowledged: {answer.status_code} {answer.text[:300]}"
        for body in made.blobs:
            answer, _ = self.ask("GET", f"/v2/{name}/blobs/{digest_of(body)}", made.digest)
            if (answer.status_code, answer.content) != (200, body):
                return f"a blob of {name}:{tag} is not what was pushed: {answer.status_code} {answer.text[:300]}"
        return None


class Contender(Pusher):
    """Puts, reads, lists and deletes tags that others write too. Each request is sent once and noted as one call, also
    when the client does not wait for the answer."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name, "quick")

    def step(self) -> None:
        tag = self.world.registers.next_tag()
        kind = random.choices(("put", "read", "listed", "delete", "drop"), (8, 8, 3, 2, 1))[0]
        if kind == "put":
            self._push(tag)
        elif kind == "listed":
            self._list(tag)
        elif kind == "read":
            self.read(tag)
        elif kind == "delete":
            self._tell(Call(self.name, kind, None, time.monotonic()), tag, "DELETE", tag)
        elif (digest := self.world.registers.some_digest(tag)) is not None:
            self._tell(Call(self.name, kind, digest, time.monotonic()), tag, "DELETE", digest)
        self.journal.count("contended")
        time.sleep(random.uniform(0, 0.05))

    def read(self, tag: str) -> str | None:
        """The digest that the tag names, noted."""
        began = time.monotonic()
        answer = self._once("GET", f"manifests/{tag}", headers=ACCEPT)
        if answer is None or answer.status_code not in (200, 404):
            return None
        value = str(digest_of(answer.content)) if answer.status_code == 200 else None
        self.world.registers.note(tag, Call(self.name, "read", value, began, time.monotonic()))
        return value

    def _push(self, tag: str) -> None:
        self._count += 1
        seed, began = random.randrange(RECIPES), time.time()
        made = images.image(f"recipe {seed}", layers=1, annotations={"who": self.name, "n": str(self._count)})
        for body in made.blobs:
            self._provide(CONTENDED, body, made)
        call = Call(self.name, "put", str(self.world.registers.made(made)), time.monotonic())
        headers = {"Content-Type": OCI_MANIFEST}
        answer = self._tell(call, tag, "PUT", tag, content=made.manifest, headers=headers)
        if answer is not None and answer.status_code == 404:
            self.look_at_delay(answer, began, CONTENDED, tag, made)

    def _list(self, tag: str) -> None:
        began = time.monotonic()
        answer = self._once("GET", "tags/list")
        if answer is not None and answer.status_code in (200, 404):
            found = answer.status_code == 200 and tag in (answer.json()["tags"] or ())
            value = "there" if found else None
            self.world.registers.note(tag, Call(self.name, "listed", value, began, time.monotonic()))

    def _tell(self, call: Call, tag: str, method: str, reference: str, **options: object) -> httpx.Response | None:
        """Send a change and note what is known of it: it happened, it did not, or it may at any time. The answer to
        it; None, if there was none."""
        answer = self._once(method, f"manifests/{reference}", **options)
        done = replace(call, ended=time.monotonic())
        if answer is None or answer.status_code >= 500:
            self.world.registers.note(tag, call)
        elif answer.status_code in (201, 202):
            self.world.registers.note(tag, done)
        elif answer.status_code != 404:
            raise self.refuse(f"{method} of a contended tag", answer, CONTENDED, tag)
        elif call.kind == "delete":
            self.world.registers.note(tag, replace(done, kind="read"))
        return answer

    def _once(self, method: str, path: str, **options: object) -> httpx.Response | None:
        """The answer to one try. None: the client did not wait for it, or the server died."""
        timeout = random.choices((60, 0.02, 0.2), (8, 1, 1))[0]
        url = f"{self.world.fleet.url()}/v2/{CONTENDED}/{path}"
        try:
            answer = self._client.request(method, url, timeout=timeout, **options)  # type: ignore[arg-type]
        except httpx.TransportError as error:
            self.journal.note(self.name, f"{method} {path} {type(error).__name__}")
            return None
        self.journal.note(self.name, f"{method} {path} {answer.status_code}")
        self.journal.count("requests")
        self.look_at_digest(method, path, answer)
        return answer


class Importer(Actor):
    """Layouts made by hand, imported until the command says that it is done. The oldest go again."""

    KEPT = 20

    def __init__(self, world: World, name: str, home: Path) -> None:
        super().__init__(world, name)
        self._home, self._count = home, 0
        self._there: list[tuple[str, str]] = []

    def step(self) -> None:
        self._count += 1
        name, tag = f"imported/{self._count % 2}", f"{self.name}-{self._count}"
        made = images.image(f"recipe {self._count % RECIPES}", annotations={"n": tag})
        source = images.lay_out(self._home / tag, made, [images.row(made, tag)])
        # In a bucket, what a collector that was killed had been about to delete is refused while its intent lives.
        errors = {"Busy"} if isinstance(self.world.jobs.place, InBucket) else set[str]()
        with self.world.tags.change(name, tag, made):
            while self.world.jobs.run("import-layout", str(source), "--repo", name, errors=errors) != 0:
                if self.world.stop.is_set() and self.journal.failures:
                    raise Refused
                time.sleep(0.2)
        shutil.rmtree(source)
        self.journal.count("imported")
        self._there.append((name, tag))
        if len(self._there) > self.KEPT:
            name, tag = self._there.pop(0)
            with self.world.tags.change(name, tag, None):
                answer, again = self.ask("DELETE", f"/v2/{name}/manifests/{tag}")
                if answer.status_code != 202 and not (again and answer.status_code == 404):
                    raise self.refuse("delete", answer, name, tag)
        time.sleep(random.uniform(0.3, 1))
