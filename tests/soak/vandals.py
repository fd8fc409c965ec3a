"""Who does what nobody should: flips bits below the store, and hangs up in the middle of requests."""

from __future__ import annotations

import os
import random
import socket
import struct
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from tests import images
from tests.soak.actors import Actor, Pusher, Refused, World
from tests.soak.places import Place
from tests.soak.troubles import DAMAGE
from zotctl.oci.digest import Digest, digest_of

DAMAGED = "damaged"
"""The repository whose content is damaged; no other has any of it."""
FOUND_WITHIN = 120.0
"""Seconds, in which the scrubs of others are expected to find damage, and in which servers see what a scrub found."""
SCRUBBED_WITHIN = 900.0
"""Seconds, in which a scrub of one repository has to end, however often it is killed or kept out."""


class Vandal(Pusher):
    """Pushes content, flips a bit of it in the storage, waits until a scrub has found that out, so that nobody is
    served the damaged bytes any more, and pushes it again."""

    def __init__(self, world: World, name: str, place: Place) -> None:
        super().__init__(world, name, "quick")
        self._place = place

    def step(self) -> None:
        made, began = images.image(os.urandom(8).hex(), layers=1), time.time()
        self._push(made)
        self._put(DAMAGED, "tagged", made, began)
        body = random.choice(made.blobs)
        self._damage(made, body, digest_of(body))
        self.ask("DELETE", f"/v2/{DAMAGED}/manifests/{made.digest}")
        self.world.stop.wait(random.uniform(1, 5))

    def _damage(self, made: images.Image, body: bytes, digest: Digest) -> None:
        path, troubles = f"/v2/{DAMAGED}/blobs/{digest}", self._place.troubles
        if not (files := self._place.files(digest.encoded)):
            raise self.refuse("no file has what was pushed", self.ask("HEAD", path)[0], digest)
        troubles.damaged.add(str(digest))
        with troubles.during(DAMAGE):
            flip(files)
            self.journal.note(self.name, "flips a bit of", digest)
            self._await(path, str(digest))
            self._push(made)
            answer, _ = self.ask("GET", path, digest)
            if (answer.status_code, answer.content) != (200, body):
                raise self.refuse("damaged content was pushed again and is not healed", answer, digest)
        self.journal.count("damaged and healed")

    def _push(self, made: images.Image) -> None:
        for body in made.blobs:
            self._post(DAMAGED, str(digest_of(body)), body, made)

    def _await(self, path: str, digest: str) -> None:
        """Until it is not served. A scrub that began after the flip and says that it is done has found it, and each
        server knows that soon; one that is killed, or kept out by another, says nothing."""
        begun, done = time.monotonic(), float("inf")
        while self.ask("HEAD", path, digest)[0].status_code != 404:
            if time.monotonic() > done + FOUND_WITHIN:
                self.journal.fail("damage is not found", digest)
                raise Refused
            if time.monotonic() > begun + SCRUBBED_WITHIN:
                self.journal.fail("no scrub comes to its end", digest)
                raise Refused
            if self.world.stop.is_set() or time.monotonic() > begun + FOUND_WITHIN:
                code = self.world.jobs.run("scrub", "--repo", DAMAGED, allowed=(0, DAMAGE, 11))
                if code in (0, DAMAGE):
                    done = min(done, time.monotonic())
            time.sleep(0.3)


def flip(names: list[Path]) -> None:
    """One bit of each file, where it lies. A name of it may go at any time, as one in `tmp` does."""
    flipped = set[int]()
    for name in names:
        with suppress(FileNotFoundError), name.open("r+b", buffering=0) as opened:
            info = os.fstat(opened.fileno())
            if info.st_ino not in flipped:
                flipped.add(info.st_ino)
                at = random.randrange(info.st_size)
                opened.seek(at)
                (byte,) = opened.read(1)
                opened.seek(at)
                opened.write(bytes([byte ^ 1 << random.randrange(8)]))


class Vanisher(Actor):
    """Begins uploads and hangs up in the middle: in the head, in a body, before the answer."""

    def step(self) -> None:
        server = urlsplit(self.world.fleet.url())
        body = os.urandom(random.randrange(2, 200_000))
        head = f"POST /v2/{DAMAGED}/blobs/uploads/?digest={digest_of(body)} HTTP/1.1\r\nHost: x\r\n"
        if random.random() < 0.5:
            head += f"Content-Length: {len(body)}\r\n\r\n"
        else:
            head, body = f"{head}Transfer-Encoding: chunked\r\n\r\n", b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        request = head.encode() + body
        sent = random.choice((random.randrange(len(head)), random.randrange(len(request)), len(request)))
        try:
            with socket.create_connection((server.hostname, server.port), timeout=10) as connection:
                connection.sendall(request[:sent])
                self.world.stop.wait(random.choice((0, 0, 0.1, 2)))
                if random.random() < 0.5:  # by a reset
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError as error:
            self.journal.note(self.name, f"no connection: {error}")
        self.journal.count("vanished in a request")
        self.world.stop.wait(random.uniform(0.05, 0.5))
