"""One of several processes on one store, for a test to stop, kill and count: python -m tests.faultproof.worker ...

push ROOT NAME PREFIX THREADS COUNT   pushes; a line "TAG DIGEST" on stdout for each that was acknowledged
hold ROOT NAME                        takes the lock of a repository, says "held" and sleeps
"""

from __future__ import annotations

import sys
import threading
import time

from tests.stores import push_image, store_over
from zotctl.errors import ZotctlError
from zotctl.storage.clock import Clock
from zotctl.storage.local.driver import LocalDriver
from zotctl.storage.locks import Locks


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def push(root: str, name: str, prefix: str, threads: str, count: str) -> None:
    store = store_over(LocalDriver(root))
    said = threading.Lock()

    def pusher(number: int) -> None:
        for turn in range(int(count)):
            tag = f"{prefix}-{number}-{turn}"
            try:
                digest = push_image(store, name, tag, seed=tag, layers=1)
            except ZotctlError as error:
                with said:
                    say("failed", type(error).__name__)
                continue
            with said:
                say(tag, digest)

    running = [threading.Thread(target=pusher, args=(number,)) for number in range(int(threads))]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    store.close()


def hold(root: str, name: str) -> None:
    with Locks(LocalDriver(root), Clock()).hold(name):
        say("held")
        time.sleep(60)


if __name__ == "__main__":
    command, *words = sys.argv[1:]
    if command == "push":
        push(*words)
    else:
        hold(*words)
