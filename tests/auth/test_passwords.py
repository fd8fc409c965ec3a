"""Passwords in a htpasswd file."""

from __future__ import annotations

import os
import threading
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import bcrypt
import pytest

from tests.clocks import Hand
from tests.http.serving import until
from tests.logins import hashed
from zotctl.auth import passwords
from zotctl.auth.logins import Logins, PasswordCheck
from zotctl.auth.passwords import PasswordFile
from zotctl.config import AuthConfig, HttpConfig
from zotctl.errors import ConfigError, TooManyRequests


@contextmanager
def opened(path: Path, clock: Hand | None = None) -> Iterator[PasswordFile]:
    found = PasswordFile(str(path), clock=(clock or Hand()).elapsed)
    try:
        yield found
    finally:
        found.close()


def test_the_right_password_of_each_kind_of_bcrypt(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text("# users\n\n" + "".join(f"{kind}:{hashed(kind, kind)}\n" for kind in ("2a", "2b", "2y")))
    with opened(path) as users:
        for kind in ("2a", "2b", "2y"):
            assert users.check(kind, kind.encode()).result()
            assert not users.check(kind, b"wrong").result()
        assert not users.check("unknown", b"").result()
        assert not users.check("", b"").result()


def test_bcrypt_looks_at_72_bytes(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text(f"ann:{hashed('x' * 72)}\n")
    with opened(path) as users:
        assert users.check("ann", b"x" * 100).result()
        assert not users.check("ann", b"x" * 71).result()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ann:$apr1$x$y", "'ann' is not hashed by bcrypt; write it anew: htpasswd -B"),
        ("ann:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "'ann' is not hashed by bcrypt"),
        ("ann:secret", "'ann' is not hashed by bcrypt"),
        ("ann:$2b$99$" + "." * 53, "'ann' is not hashed by bcrypt"),
        ("ann:$2b$12$" + "a" * 53, "'ann' is not hashed by bcrypt"),
        ("ann:$2b$12$" + "." * 52 + "z", "'ann' is not hashed by bcrypt"),
        ("ann", "line 2: not USER:HASH"),
        (":$2b$10$" + "a" * 53, "line 2: not USER:HASH"),
    ],
)
def test_another_hash_is_refused_with_the_name_of_the_user(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "users"
    path.write_text(f"bob:{hashed('b')}\n{line}\n")
    with pytest.raises(ConfigError) as caught:
        PasswordFile(str(path))
    assert str(path) in caught.value.message and said in caught.value.message
    assert "secret" not in caught.value.message


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="users: No such file"):
        PasswordFile(str(tmp_path / "users"))


def test_a_success_is_remembered_for_minutes_and_a_failure_never(tmp_path: Path) -> None:
    path, clock = tmp_path / "users", Hand()
    path.write_text(f"ann:{hashed('a')}\n")
    with opened(path, clock) as users:
        assert not users.known("ann", b"a")
        assert users.check("ann", b"a").result() and not users.check("ann", b"b").result()
        assert users.known("ann", b"a") and not users.known("ann", b"b") and not users.known("bob", b"a")
        clock.sleep(passwords.REMEMBERED_S)
        assert not users.known("ann", b"a")


def test_a_remembered_login_is_of_one_user(tmp_path: Path) -> None:
    path, stored = tmp_path / "users", hashed("a")
    path.write_text(f"ann:{stored}\n")
    with opened(path) as users:
        assert users.check("ann", b"a").result() and users.known("ann", b"a")
        assert not users.known("an", b"na" + stored.encode())


def test_so_many_logins_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "REMEMBERED_LOGINS", 2)
    path = tmp_path / "users"
    path.write_text("".join(f"{name}:{hashed(name)}\n" for name in "abc"))
    with opened(path) as users:
        for name in "abc":
            assert users.check(name, name.encode()).result()
            until(partial(users.known, name, name.encode()))
        assert not users.known("a", b"a") and users.known("b", b"b")


def test_the_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path, clock = tmp_path / "users", Hand()
    path.write_text(f"ann:{hashed('a')}\n")
    with opened(path, clock) as users:
        assert users.check("ann", b"a").result()
        other = tmp_path / "new"
        other.write_text(f"ann:{hashed('other')}\nbob:{hashed('b')}\n")
        os.replace(other, path)
        clock.sleep(passwords.LOOK_EVERY_S)
        assert not users.known("ann", b"a"), "a success with the old password is forgotten"
        assert not users.check("ann", b"a").result()
        assert users.check("ann", b"other").result() and users.check("bob", b"b").result()


def test_a_file_that_is_changed_in_place_and_dated_back_is_read_again(tmp_path: Path) -> None:
    """As `rsync --inplace --times` does. Hashes are all of one size."""
    path, clock = tmp_path / "users", Hand()

    def write(password: str) -> int:
        path.write_text(f"ann:{hashed(password)}\n")
        os.utime(path, (0, 0))
        return path.stat().st_ctime_ns

    first = write("a")
    with opened(path, clock) as users:
        assert users.check("ann", b"a").result()
        until(lambda: write("other") != first)
        clock.sleep(passwords.LOOK_EVERY_S)
        assert not users.known("ann", b"a") and not users.check("ann", b"a").result()


def test_a_broken_file_leaves_the_users_as_they_are(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, clock = tmp_path / "users", Hand()
    path.write_text(f"ann:{hashed('a')}\n")
    with opened(path, clock) as users:
        for content in ("ann:plain\n", None):
            path.unlink() if content is None else path.write_text(content)
            clock.sleep(passwords.LOOK_EVERY_S)
            assert users.check("ann", b"a").result()
    assert "'ann' is not hashed by bcrypt" in caplog.text and "No such file" in caplog.text
    assert "the users stay as they were" in caplog.text and "plain" not in caplog.text


def test_equal_logins_are_one_check_and_too_many_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, go, calls = tmp_path / "users", threading.Event(), []
    path.write_text(f"ann:{hashed('a')}\n")

    def slow(password: bytes, _: bytes) -> bool:
        calls.append(password)
        return go.wait(60)

    monkeypatch.setattr(bcrypt, "checkpw", slow)
    with opened(path) as users:
        try:
            futures: list[Future[bool]] = [users.check("ann", b"a") for _ in range(10)]
            futures += [users.check("ann", b"busy %d" % number) for number in range(1, passwords.CHECK_THREADS)]
            until(lambda: len(calls) == passwords.CHECK_THREADS)
            futures += [users.check("ann", b"%d" % number) for number in range(passwords.WAITING_CHECKS)]
            with pytest.raises(TooManyRequests):
                users.check("ann", b"one more")
            futures.append(users.check("ann", b"a"))  # a check that is under way is joined
            others = users.check("ann", b"of another client", "another client")
        finally:
            go.set()
        with pytest.raises(TooManyRequests):
            futures.pop(-2).result()
        assert others.result() and all(future.result() for future in futures)
        assert len(calls) == passwords.CHECK_THREADS + passwords.WAITING_CHECKS
        assert users.check("ann", b"one more").result()


class Slow:
    """In place of bcrypt: each check waits until `go` is set. `seen`: the passwords whose check has begun."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen, self.go = list[bytes](), threading.Event()
        monkeypatch.setattr(bcrypt, "checkpw", self.checkpw)

    def checkpw(self, password: bytes, _: bytes) -> bool:
        self.seen.append(password)
        return self.go.wait(60)

    def fill(self, users: PasswordFile) -> list[Future[bool]]:
        """Have all threads busy."""
        futures = [users.check("ann", b"busy %d" % number) for number in range(passwords.CHECK_THREADS)]
        until(lambda: len(self.seen) == passwords.CHECK_THREADS)
        return futures


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    made = Slow(monkeypatch)
    yield made
    made.go.set()


def test_a_check_that_nobody_waits_for_is_dropped(tmp_path: Path, slow: Slow) -> None:
    path = tmp_path / "users"
    path.write_text(f"ann:{hashed('a')}\n")
    with opened(path) as users:
        busy = slow.fill(users)
        for _ in range(3):  # a place that was left is free again
            left = [users.check("ann", b"left %d" % number) for number in range(passwords.WAITING_CHECKS)]
            assert all(future.cancel() for future in left)
        first, second = users.check("ann", b"shared"), users.check("ann", b"shared")
        gone, back = users.check("ann", b"back"), None
        assert first.cancel() and gone.cancel()
        back = users.check("ann", b"back")
        busy[0].cancel()  # it runs: that can't be helped
        slow.go.set()
        assert second.result(60) and back.result(60) and busy[1].result(60)
    assert sorted(slow.seen[passwords.CHECK_THREADS :]) == [b"back", b"shared"]


def test_a_server_that_stops_refuses_the_checks_that_wait(tmp_path: Path, slow: Slow) -> None:
    path = tmp_path / "users"
    path.write_text(f"ann:{hashed('a')}\n")
    with opened(path) as users:
        busy = slow.fill(users)
        waiting = [users.check("ann", b"waits %d" % number) for number in range(10)]
        users.refuse_waiting()
        assert all(isinstance(future.exception(0), TooManyRequests) for future in waiting)
        late = [users.check("ann", b"late %d" % number) for number in range(passwords.CHECK_THREADS)]
        with pytest.raises(TooManyRequests):
            users.check("ann", b"one more")
        slow.go.set()
        assert all(future.result(60) for future in (*busy, *late))
    assert not any(password.startswith(b"waits") for password in slow.seen)


def test_each_hash_that_bcrypt_makes_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text("".join(f"user{number}:{hashed(str(number))}\n" for number in range(60)))
    with opened(path) as users:
        assert users.check("user59", b"59").result()


def test_an_unknown_user_costs_a_check_of_the_same_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = tmp_path / "users", []
    path.write_text(f"ann:{hashed('a', cost=6)}\n")

    def spy(_: bytes, stored: bytes) -> bool:
        seen.append(stored[:7])
        return True

    monkeypatch.setattr(bcrypt, "checkpw", spy)
    with opened(path) as users:
        assert not users.check("unknown", b"a").result(), "even if the hash matched"
        assert users.check("ann", b"a").result()
    assert seen[0] == seen[1] == b"$2b$06$"


def test_no_password_matches_the_hash_for_unknown_users(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text("")
    with opened(path) as users:
        assert users._nobody == b"$2b$10$" + b"." * 53
        bcrypt.checkpw(b"x", users._nobody)


def test_a_password_may_have_colons(tmp_path: Path) -> None:
    """RFC 7617: the name has none, and ends at the first."""
    (tmp_path / "users").write_text(f"ann:{hashed('a:b:c')}\n")
    logins = Logins(HttpConfig(auth=AuthConfig(htpasswd=str(tmp_path / "users"))))
    check = logins.identify(f"Basic {b64encode(b'ann:a:b:c').decode()}", None, "")
    assert isinstance(check, PasswordCheck)
    assert check.user == "ann" and check.begin(None).result()
    logins.close()
