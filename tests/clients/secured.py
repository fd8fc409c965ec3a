"""A registry with TLS and passwords, the programs that log in to it, and what each of them must and must not do."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests import images
from tests.clients.peers import Peer, assert_holds, assert_same, layout
from tests.http.serving import Server
from tests.tools import need

WRITER, READER = "ann", "reader"
"""Each name is its own password."""
POLICIES = f"""
[[http.access_control.repositories]]
pattern = "**"
policies = [{{ users = ["{WRITER}"], actions = ["read", "create", "update", "delete"] }}]
default_policy = ["read"]
[[http.access_control.repositories]]
pattern = "public/**"
policies = [{{ users = ["{WRITER}"], actions = ["read", "create", "update", "delete"] }}]
anonymous_policy = ["read"]
"""


def certificate(home: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, which is its own authority, and its key."""
    need("openssl")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=registry", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=home, check=True, capture_output=True,
    )  # fmt: skip
    return home / "cert.pem", home / "key.pem"


@dataclass
class SecuredPeer(Peer):
    """A peer whose programs trust `authority`. `port` is that of the server or of a proxy in front of it."""

    authority: Path
    port: int

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        return super().environment() | {"SSL_CERT_FILE": str(self.authority), "SSL_CERT_DIR": "/nonexistent"}


@contextmanager
def secured_client(port: int, authority: Path, user: str = "", address: str | None = None) -> Iterator[httpx.Client]:
    """Logged in as `user`, if there is one. `address`: where it connects from."""
    transport = httpx.HTTPTransport(
        verify=ssl.create_default_context(cafile=str(authority)), local_address=address, retries=0
    )
    auth = (user, user) if user else None
    with httpx.Client(base_url=f"https://127.0.0.1:{port}", transport=transport, auth=auth, timeout=60) as client:
        yield client


@contextmanager
def secured_peer(server: Server, authority: Path, port: int, home: Path, name: str) -> Iterator[SecuredPeer]:
    home.mkdir(exist_ok=True)
    with secured_client(port, authority, WRITER) as client:
        yield SecuredPeer(server, client, home, name, authority, port)


@dataclass(frozen=True)
class Program:
    """The words of a program for one thing each. HOST, REPO, USER and ROOT stand for what a test has; a push takes the
    image 1.0 of the layout `source`, and a pull makes the layout `back`. `exact`: the layout has the same bytes."""

    login: str
    push: str
    look: str
    pull: str
    logout: str
    exact: bool = True


_BUILDAH = "buildah --root storage --runroot run --storage-driver vfs"
PROGRAMS = {
    "skopeo": Program(
        "skopeo login --username USER --password-stdin HOST",
        "skopeo copy --preserve-digests oci:source:1.0 docker://REPO:1.0",
        "skopeo inspect docker://REPO:1.0",
        "skopeo copy --preserve-digests docker://REPO:1.0 oci:back:1.0",
        "skopeo logout HOST",
    ),
    "crane": Program(
        "crane auth login HOST --username USER --password-stdin",
        "crane push source REPO:1.0",
        "crane digest REPO:1.0",
        "crane pull --format oci REPO:1.0 back",
        "crane auth logout HOST",
    ),
    "oras": Program(
        "oras login HOST --username USER --password-stdin",
        "oras copy --from-oci-layout source:1.0 REPO:1.0",
        "oras manifest fetch REPO:1.0",
        "oras copy --to-oci-layout REPO:1.0 back:1.0",
        "oras logout HOST",
    ),
    "regctl": Program(
        "regctl registry login HOST --user USER --pass-stdin --skip-check",
        "regctl image copy ocidir://source:1.0 REPO:1.0",
        "regctl image digest REPO:1.0",
        "regctl image copy REPO:1.0 ocidir://back:1.0",
        "regctl registry logout HOST",
    ),
    "buildah": Program(
        "buildah login --username USER --password-stdin HOST",
        f"{_BUILDAH} push --format oci localhost/source:1.0 docker://REPO:1.0",
        f"{_BUILDAH} pull --policy always docker://REPO:1.0",
        f"{_BUILDAH} pull --policy always docker://REPO:1.0",
        "buildah logout HOST",
        exact=False,
    ),
}


@dataclass
class Session:
    """A program in the home of a peer."""

    name: str
    peer: SecuredPeer

    def __post_init__(self) -> None:
        need(self.name)
        self.program = PROGRAMS[self.name]
        if self.name == "buildah":
            need("root")

    def words(self, text: str, user: str = "") -> list[str]:
        stands = {"HOST": self.peer.host, "USER": user}
        return [stands.get(word, word.replace("REPO", self.peer.repository)) for word in text.split()]

    def login(self, user: str) -> None:
        self.peer.run(*self.words(self.program.login, user), stdin=user)

    def source(self, made: images.Image) -> None:
        """What a push takes."""
        layout(self.peer.home / "source", made, "1.0")
        if self.name == "buildah":
            pulled = self.peer.run(*_BUILDAH.split(), "pull", "oci:source:1.0").strip()
            self.peer.run(*_BUILDAH.split(), "tag", pulled, "localhost/source:1.0")

    def run(self, text: str) -> None:
        self.peer.run(*self.words(text))

    def refused(self, text: str, words: tuple[str, ...]) -> None:
        """It fails, and says why by one of the words."""
        said = self.peer.fails(*self.words(text)).lower()
        assert any(word in said for word in words), said

    def clean_up(self) -> None:
        if self.name == "buildah":
            self.peer.tried(*_BUILDAH.split(), "rmi", "--all", "--force")


NO_LOGIN_WORDS = ("unauthorized", "authentication required", "credential not found")
NOT_ALLOWED_WORDS = ("denied", "forbidden", "may not")


def assert_only_logged_in(session: Session) -> None:
    """Without a login nothing, with one everything, and nothing again after the logout."""
    made, peer, program = images.image(f"secured {session.name}", layers=3), session.peer, session.program
    session.source(made)
    for refused in (program.push, program.pull):
        session.refused(refused, NO_LOGIN_WORDS)
    assert peer.client.get(f"/v2/{peer.name}/tags/list").status_code == 404
    session.login(WRITER)
    session.run(program.push)
    session.run(program.look)
    session.run(program.pull)
    if program.exact:
        assert_same(peer, made, "1.0")
        assert_holds(peer.home / "back", made)
    assert peer.tags() == ["1.0"]
    session.run(program.logout)
    session.refused(program.pull, NO_LOGIN_WORDS)


def assert_reads_only(session: Session) -> None:
    """A user who may only read pulls what another pushed, and is told that a push is not allowed."""
    peer, program = session.peer, session.program
    peer.push(images.image("theirs"), "1.0")
    before = peer.manifest("1.0")
    session.source(images.image(f"mine {session.name}"))
    session.login(READER)
    session.run(program.look)
    session.run(program.pull)
    session.refused(program.push, NOT_ALLOWED_WORDS)
    assert peer.manifest("1.0") == before
