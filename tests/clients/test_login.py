"""Clients log in over TLS: every program with a password, without one, and as a user who may only read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import images
from tests.clients.secured import (
    NO_LOGIN_WORDS,
    POLICIES,
    PROGRAMS,
    READER,
    WRITER,
    SecuredPeer,
    Session,
    assert_only_logged_in,
    assert_reads_only,
    certificate,
    secured_peer,
)
from tests.clients.test_conformance import assert_passed, conformance
from tests.http.serving import Server, serving, until
from tests.logins import users_file
from tests.tools import need


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """A server, and the authority that its certificate is to be checked against."""
    home = tmp_path_factory.mktemp("login")
    cert, key = certificate(home)
    config = f"""
[http.tls]
cert = "{cert}"
key = "{key}"
[http.auth]
htpasswd = "{users_file(home, WRITER, READER)}"
{POLICIES}
"""
    with serving(home / "server", config=config, workers=2) as server:
        yield server, cert
        assert "traceback" not in server.log()


@pytest.fixture
def own(secured: tuple[Server, Path], tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[SecuredPeer]:
    server, authority = secured
    name = request.node.name.removeprefix("test_").replace("[", "/").rstrip("]")
    with secured_peer(server, authority, server.port, tmp_path / "home", name) as peer:
        yield peer


@pytest.fixture(params=PROGRAMS)
def session(own: SecuredPeer, request: pytest.FixtureRequest) -> Iterator[Session]:
    made = Session(request.param, own)
    yield made
    made.clean_up()


def test_only_who_is_logged_in(session: Session) -> None:
    assert_only_logged_in(session)

    def lines() -> list[dict[str, object]]:
        return [line for line in session.peer.server.lines() if line.get("repository") == session.peer.name]

    assert until(lambda: {line["user"] for line in lines() if line.get("status") == 201}) == {WRITER}


def test_a_user_who_may_only_read(session: Session) -> None:
    assert_reads_only(session)


def test_a_public_repository_needs_no_login(session: Session) -> None:
    peer, program = session.peer, session.program
    peer.name = f"public/{peer.name}"
    peer.push(images.image("public"), "1.0")
    session.source(images.image(f"not public {session.name}"))
    session.run(program.look)
    session.run(program.pull)
    session.refused(program.push, NO_LOGIN_WORDS)


def test_a_wrong_password_is_refused(own: SecuredPeer) -> None:
    words = ("--username", WRITER, "--password-stdin", own.host)
    need("skopeo")
    done = own.tried("skopeo", "login", *words, stdin="wrong")
    assert done.returncode != 0 and "invalid username/password" in done.stderr
    until(lambda: any("wrong name or password" in str(line.get("reason")) for line in own.server.lines()))


def test_the_conformance_program(own: SecuredPeer) -> None:
    trust = own.environment() | {"OCI_TLS": "enabled"}
    done = conformance(own.home / "without", own.host, "1.1", trust)
    assert done.returncode != 0 and "401" in done.stdout + done.stderr
    done = conformance(own.home / "with", own.host, "1.1", trust | {"OCI_USERNAME": WRITER, "OCI_PASSWORD": WRITER})
    assert_passed(done, own.home / "with")
