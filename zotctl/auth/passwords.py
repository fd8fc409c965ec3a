"""Passwords in a file of Apache's htpasswd, hashed by bcrypt.

A check takes tens of milliseconds of a core on purpose. So checks have threads of their own, for which clients take
turns, equal ones that come together are one check, one that no request waits for any more is dropped, and a success is
remembered for minutes: a push is dozens of requests.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import bcrypt

from zotctl.auth.turns import Turns
from zotctl.config.watched import FileState, file_state
from zotctl.errors import ConfigError, about_file

CHECK_THREADS = 2
WAITING_CHECKS = 64
"""More are refused, so that a flood of logins takes bounded time and memory."""
REMEMBERED_S = 300.0
REMEMBERED_LOGINS = 4096
LOOK_EVERY_S = 1.0
BCRYPT_BYTES = 72
"""bcrypt hashes no more of a password."""

_BCRYPT = re.compile(rb"\$2[aby]\$(0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{30}[.CGKOSWaeimquy26]")
"""With 16 bytes of salt and 23 of hash. The last character of each has fewer bits: with others no password matches."""


@dataclass(slots=True, eq=False)
class _Check:
    """One check, and how many wait for it."""

    done: Future[bool]
    waiting: int = 0


class PasswordFile:
    """Users and hashes of one file, which is read again when it changes. Thread-safe."""

    def __init__(self, path: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises ConfigError if the file cannot be read, or names a user whose hash is none of bcrypt."""
        self._path, self._clock = path, clock
        self._log = logging.getLogger("zotctl.auth")
        self._lock = threading.RLock()
        """Taken again where a check that begins takes the place of another one, which ends with that."""
        self._state = _state(path)
        self._hashes = _read(path)
        self._nobody = _nobody(self._hashes)
        self._looked = clock()
        self._turns = Turns(CHECK_THREADS, WAITING_CHECKS, "password")
        self._running: dict[bytes, _Check] = {}
        self._key = secrets.token_bytes(32)
        self._remembered: dict[bytes, float] = {}

    def known(self, user: str, password: bytes) -> bool:
        """Whether this login was checked in the last minutes and is right. It does not wait for a check."""
        login = self._login(user, password)
        with self._lock:
            return self._remembered.get(login, 0.0) > self._clock()

    def check(self, user: str, password: bytes, client: Hashable = None) -> Future[bool]:
        """Check a login in a thread, in the turn of `client`. A user who is not there costs as much as a wrong
        password.

        Raises TooManyRequests if too many checks wait; so does the future when others need its place. A caller that
        waits no more cancels the future; the check is dropped with the last of them, unless it has begun.
        """
        login = self._login(user, password)
        answer = Future[bool]()
        with self._lock:
            if (check := self._running.get(login)) is None:
                stored = self._hashes.get(user, self._nobody)
                check = _Check(self._turns.submit(client, partial(_matches, stored, password, user in self._hashes)))
                self._running[login] = check
                check.done.add_done_callback(partial(self._checked, login))
            check.waiting += 1
        answer.add_done_callback(partial(self._leave, check))
        check.done.add_done_callback(partial(_pass_on, answer))
        return answer

    def refuse_waiting(self) -> None:
        """The server stops: refuse the checks that wait for a thread."""
        self._turns.refuse_waiting()

    def close(self) -> None:
        """End the threads. Checks that wait are dropped."""
        self._turns.close()

    def _leave(self, check: _Check, answer: Future[bool]) -> None:
        if answer.cancelled():
            with self._lock:  # no request joins meanwhile
                check.waiting -= 1
                if not check.waiting:
                    check.done.cancel()

    def _checked(self, login: bytes, done: Future[bool]) -> None:
        with self._lock:
            self._running.pop(login, None)
            if done.cancelled() or done.exception() is not None or not done.result():
                return
            if len(self._remembered) >= REMEMBERED_LOGINS:
                self._remembered.pop(next(iter(self._remembered)))
            self._remembered.pop(login, None)
            self._remembered[login] = self._clock() + REMEMBERED_S

    def _login(self, user: str, password: bytes) -> bytes:
        """A keyed hash of all that a success depends on: another hash in the file makes it another login."""
        self._look()
        parts = (user.encode("utf-8", "surrogateescape"), password, self._hashes.get(user, b""))
        text = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
        return hmac.digest(self._key, text, hashlib.sha256)

    def _look(self) -> None:
        """Read the file again if it is another one. One that cannot be used leaves the users as they are."""
        with self._lock:
            if (now := self._clock()) < self._looked + LOOK_EVERY_S:
                return
            self._looked = now
        try:
            if (state := _state(self._path)) == self._state:
                return
            hashes = _read(self._path)
        except ConfigError as error:
            self._log.error("%s; the users stay as they were", error.message)
            return
        with self._lock:
            self._state, self._hashes, self._nobody = state, hashes, _nobody(hashes)
        self._log.info("%s: read again, %d users", self._path, len(hashes))


def _nobody(hashes: Mapping[str, bytes]) -> bytes:
    """A hash of the cost that most users have, which no password matches: time does not tell who exists."""
    costs = Counter(int(stored[4:6]) for stored in hashes.values())
    cost = costs.most_common(1)[0][0] if costs else 10
    return b"$2b$%02d$" % cost + b"." * 53


def _pass_on(answer: Future[bool], done: Future[bool]) -> None:
    if done.cancelled():
        answer.cancel()
    elif answer.set_running_or_notify_cancel():
        if (error := done.exception()) is not None:
            answer.set_exception(error)
        else:
            answer.set_result(done.result())


def _matches(stored: bytes, password: bytes, exists: bool) -> bool:
    with suppress(ValueError):
        return bcrypt.checkpw(password[:BCRYPT_BYTES], stored) and exists
    return False


def _state(path: str) -> FileState:
    try:
        return file_state(path)
    except OSError as error:
        raise ConfigError(f"http.auth.htpasswd: {about_file(path, error)}") from None


def _read(path: str) -> dict[str, bytes]:
    try:
        with open(path, "rb") as stream:
            return dict(_entries(path, stream.read()))
    except OSError as error:
        raise ConfigError(f"http.auth.htpasswd: {about_file(path, error)}") from None


def _entries(path: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip() or line.startswith(b"#"):
            continue
        user, colon, stored = line.partition(b":")
        where = f"http.auth.htpasswd: {path}, line {number}"
        if not colon or not user:
            raise ConfigError(f"{where}: not USER:HASH")
        if not _BCRYPT.fullmatch(stored := stored.strip()):
            raise ConfigError(
                f"{where}: the password of {user.decode(errors='replace')!r} is not hashed by bcrypt; "
                f"write it anew: htpasswd -B {path} {user.decode(errors='replace')}"
            )
        yield user.decode("utf-8", "surrogateescape"), stored
