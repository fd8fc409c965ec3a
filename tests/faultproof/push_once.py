"""Commands on a store, for a test to kill them in the middle: python -m tests.faultproof.push_once SOCKET-FD

A fork server. It has imported everything; for each request it forks a child that waits for "go" (meanwhile
the test attaches strace to it), runs one action and says how it went. All talk goes over `send` and
`recv`, which the tests never fail, so that a count of system calls counts the store's own and nothing else.
"""

from __future__ import annotations

import array
import ctypes
import gc
import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from tests import images
from tests.stores import push_blob, push_image, store_over
from zotctl.errors import StorageError, ZotctlError
from zotctl.oci.digest import digest_of
from zotctl.storage import Store
from zotctl.storage.local.driver import LocalDriver

NAME, TAG, OLD, NEW = "team/app", "v1", "old", "new"
BASE_LAYER = images.layer("a layer that nothing needs")[0]
ANY_TRACER = 0x59616D61
"""prctl(2), PR_SET_PTRACER, which takes -1 for "anybody"."""


def prepare(path: str, *, commit: bool) -> None:
    """What is there before an action: a tag, and a layer that no manifest needs."""
    store = store_over(LocalDriver(path), commit=commit)
    push_image(store, NAME, TAG, seed=OLD, layers=1)
    push_blob(store.repository_for_push(NAME), BASE_LAYER)
    store.close()


def push(store: Store) -> None:
    """Over the tag that is there."""
    push_image(store, NAME, TAG, seed=NEW, layers=1)


def push_first(store: Store) -> None:
    """Into a repository that is not there."""
    push_image(store, "fresh/one", TAG, seed=NEW, layers=1)


def push_shared(store: Store) -> None:
    """Content that the pool has."""
    push_image(store, "fresh/two", TAG, seed=OLD, layers=1)


def mount(store: Store) -> None:
    source, target = store.repository(NAME), store.repository_for_push("fresh/three")
    assert target.mount_blob(source, digest_of(BASE_LAYER))


def untag(store: Store) -> None:
    store.repository_for_push(NAME).delete_manifest(TAG)


def delete_manifest(store: Store) -> None:
    store.repository_for_push(NAME).delete_manifest(images.image(OLD, layers=1).digest)


def delete_blob(store: Store) -> None:
    store.repository_for_push(NAME).delete_blob(digest_of(BASE_LAYER))


def delete_used_blob(store: Store) -> None:
    """Refused, whatever fails."""
    store.repository_for_push(NAME).delete_blob(digest_of(images.image(OLD, layers=1).blobs[1]))


def read_all(store: Store) -> None:
    """Everything that a client can read, without a cache."""
    repository = store.repository(NAME)
    assert repository.tags() == [TAG]
    assert repository.manifest(TAG).body == images.image(OLD, layers=1).manifest
    assert repository.referrers(digest_of(b"nobody")) == []
    for body in images.image(OLD, layers=1).blobs:
        assert repository.blob(digest_of(body)) == len(body)
        with repository.open_blob(digest_of(body)) as reader:
            assert reader.read_at(0, reader.size) == body
    assert store.repositories() == [NAME]


ACTIONS: dict[str, Callable[[Store], None]] = {
    action.__name__: action
    for action in (
        push, push_first, push_shared, mount, untag, delete_manifest, delete_blob, delete_used_blob, read_all,
    )
}  # fmt: skip


def run(action: str, path: str, *, commit: bool) -> dict[str, Any]:
    """How it went: `ack`, or the class of the error, and whether that is one of ours."""
    try:
        store = store_over(LocalDriver(path), commit=commit)
        ACTIONS[action](store)
    except ZotctlError as error:
        kind = "storage" if isinstance(error, StorageError) else "oci"
        return {"ack": False, "error": type(error).__name__, "kind": kind, "text": str(error)}
    except Exception as error:
        return {"ack": False, "error": type(error).__name__, "kind": "foreign", "text": repr(error)}
    return {"ack": True, "error": None, "kind": "", "text": ""}


def _child(channel: socket.socket, request: dict[str, Any]) -> None:
    ctypes.CDLL(None).prctl(ANY_TRACER, ctypes.c_ulong(-1 & 0xFFFFFFFFFFFFFFFF), 0, 0, 0)
    channel.send(str(os.getpid()).encode())
    if channel.recv(10) == b"go":
        channel.send(json.dumps(run(request["action"], request["path"], commit=request["commit"])).encode())
        channel.recv(10)  # so that the test can see what it holds open


def _warm_up() -> None:
    """Whatever Python imports only when it is used."""
    for commit in (False, True):
        with tempfile.TemporaryDirectory() as directory:
            prepare(directory, commit=commit)
            for action in ("read_all", "push", "delete_used_blob", "untag", "delete_blob"):
                run(action, directory, commit=commit)


def main(server: socket.socket) -> None:
    _warm_up()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.freeze()
    while True:
        message, ancillary, _, _ = server.recvmsg(65536, socket.CMSG_LEN(4))
        if not message:
            return
        fds = array.array("i")
        fds.frombytes(ancillary[0][2])
        with socket.socket(fileno=fds[0]) as channel:
            if os.fork() == 0:
                server.close()
                _child(channel, json.loads(message))
                os._exit(0)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
