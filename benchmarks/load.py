"""The load client: raw HTTP/1.1 over plain sockets, one epoll loop, the same for every server.

It has to cost much less than what it measures. Bodies leave through `sendfile` from memory, bodies of answers
are dropped by the kernel without a copy (`MSG_TRUNC`), and digests are known before the clock starts.
What a connection says is a generator: it yields a `Request`, gets the `Answer`, and tells its `Tally`.
"""

from __future__ import annotations

import hashlib
import os
import re
import select
import socket
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

MIB = 1 << 20
_BLOCK = 16 * MIB
_TAIL = 32
_PATIENCE = 120.0
_DROP = bytearray(16 * MIB)  # never written: MSG_TRUNC copies nothing
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection:[ \t]*close", re.IGNORECASE)
_LOCATION = re.compile(rb"\r\nlocation:[ \t]*(?:https?://[^/\s]+)?(\S+)", re.IGNORECASE)

ACCEPT = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json"

Address = tuple[str, int]


@lru_cache(maxsize=1)
def _block() -> int:
    """A memory file of random bytes, the stuff that every large body is made of."""
    fd = os.memfd_create("load")
    with open(fd, "wb", closefd=False) as file:
        file.write(os.urandom(_BLOCK))
    return fd


@lru_cache(maxsize=16)
def _hashed(size: int) -> hashlib._Hash:
    """SHA-256 of the first `size` bytes of the endlessly repeated block."""
    state = hashlib.sha256()
    block = os.pread(_block(), _BLOCK, 0)
    for start in range(0, size, _BLOCK):
        state.update(memoryview(block)[: min(_BLOCK, size - start)])
    return state


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of bytes: literal ones, or `count` of the memory file from `offset`."""

    data: bytes = b""
    offset: int = 0
    count: int = 0


class Body:
    """`size` bytes unlike those of any other body: the repeated block, then 32 random bytes."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._filler = max(0, size - _TAIL)
        self._tail = os.urandom(size - self._filler)
        state = _hashed(self._filler).copy()
        state.update(self._tail)
        self.digest = "sha256:" + state.hexdigest()

    def pieces(self, start: int = 0, end: int | None = None) -> Iterator[Piece]:
        end = self.size if end is None else end
        while start < min(end, self._filler):
            offset = start % _BLOCK
            count = min(_BLOCK - offset, min(end, self._filler) - start)
            yield Piece(offset=offset, count=count)
            start += count
        if end > self._filler:
            yield Piece(data=self._tail[start - self._filler : end - self._filler])

    def write(self, path: str) -> None:
        with open(path, "wb") as file:
            for piece in self.pieces():
                file.write(piece.data or os.pread(_block(), piece.count, piece.offset))


@dataclass(frozen=True, slots=True)
class Request:
    """`head` ends with the empty line. `keep`: the body of the answer is wanted, else it is dropped."""

    head: bytes
    want: int = 200
    pieces: tuple[Piece, ...] = ()
    keep: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    head: bytes
    body: bytes = b""

    def location(self) -> str:
        found = _LOCATION.search(self.head)
        return found[1].decode() if found else ""


Script = Generator[Request, Answer, None]


class Maker:
    """Requests for one server."""

    def __init__(self, address: Address) -> None:
        self._host = f"Host: {address[0]}:{address[1]}\r\n"

    def _head(self, method: str, path: str, extra: str = "") -> bytes:
        return f"{method} {path} HTTP/1.1\r\n{self._host}{extra}\r\n".encode()

    def get(self, path: str, *, keep: bool = False) -> Request:
        return Request(self._head("GET", path, f"Accept: {ACCEPT}\r\n"), keep=keep)

    def head(self, path: str) -> Request:
        return Request(self._head("HEAD", path, f"Accept: {ACCEPT}\r\n"))

    def post(self, path: str) -> Request:
        return Request(self._head("POST", path, "Content-Length: 0\r\n"), want=202)

    def put(self, path: str, data: bytes, media_type: str) -> Request:
        extra = f"Content-Type: {media_type}\r\nContent-Length: {len(data)}\r\n"
        return Request(self._head("PUT", path, extra) + data, want=201)

    def put_blob(self, location: str, body: Body, *, start: int = 0) -> Request:
        """The closing PUT of an upload, with what is left of the body from `start` on."""
        path = f"{location}{'&' if '?' in location else '?'}digest={body.digest}"
        extra = f"Content-Type: application/octet-stream\r\nContent-Length: {body.size - start}\r\n"
        return Request(self._head("PUT", path, extra), 201, tuple(body.pieces(start)) if start < body.size else ())

    def patch(self, location: str, body: Body, start: int, end: int) -> Request:
        extra = (
            f"Content-Type: application/octet-stream\r\nContent-Length: {end - start}\r\n"
            f"Content-Range: {start}-{end - 1}\r\n"
        )
        return Request(self._head("PATCH", location, extra), 202, tuple(body.pieces(start, end)))


@dataclass
class Tally:
    """What the connections of one measurement did together. It stops after `seconds`, or at `limit`."""

    seconds: float = 1e9
    limit: int = 1 << 60
    size: int = 0
    taken: list[float] = field(default_factory=list)
    errors: int = 0
    complaint: str = ""
    began: float = field(default_factory=time.perf_counter)
    ended: float = 0.0
    _begun: int = 0

    def more(self) -> bool:
        """Whether another operation may begin; counts it."""
        if self._begun >= self.limit or self.errors > 20 or time.perf_counter() - self.began > self.seconds:
            return False
        self._begun += 1
        return True

    def done(self, since: float, size: int = 0) -> None:
        self.ended = time.perf_counter()
        self.taken.append(self.ended - since)
        self.size += size

    def failed(self, request: Request, answer: Answer) -> None:
        self.errors += 1
        if not self.complaint:
            line = request.head.split(b" HTTP/1.1\r\n", 1)[0].decode()
            self.complaint = f"{answer.status} for {line}: {answer.body[:200].decode(errors='replace')}"

    @property
    def elapsed(self) -> float:
        return max(self.ended - self.began, 1e-9)

    def quantile(self, q: float) -> float:
        """In seconds; 0 if nothing was done."""
        ordered = sorted(self.taken)
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else 0.0


class Connection:
    """One keep-alive connection that plays one script, asking anew after the server closed it."""

    def __init__(self, address: Address, script: Script, poll: select.epoll, tally: Tally) -> None:
        self._address, self._script, self._poll, self._tally = address, script, poll, tally
        self._buffer = b""
        self._left = 0  # bytes of the answer's body still to be dropped
        self._close = False
        self.live = True
        self._connect()
        self._begin(next(script, None))

    def fileno(self) -> int:
        return self._socket.fileno()

    def _connect(self) -> None:
        self._socket = socket.create_connection(self._address, timeout=10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        self._events = select.EPOLLIN
        self._poll.register(self._socket, self._events)

    def _disconnect(self) -> None:
        self._poll.unregister(self._socket)
        self._socket.close()

    def _listen(self, events: int) -> None:
        if events != self._events:
            self._events = events
            self._poll.modify(self._socket, events)

    def _begin(self, request: Request | None) -> None:
        if request is None:
            self.live = False
            self._disconnect()
            return
        self._request = request
        self._answer: Answer | None = None
        self._buffer, self._left = b"", 0
        self._pieces = iter((Piece(data=request.head), *request.pieces))
        self._piece: Piece | None = next(self._pieces)
        self._sent = 0
        self.send()

    def send(self) -> None:
        """As much of the request as the socket takes."""
        try:
            while self._piece is not None:
                if not self._send_some(self._piece):
                    self._piece, self._sent = next(self._pieces, None), 0
        except BlockingIOError:
            self._listen(select.EPOLLIN | select.EPOLLOUT)
            return
        except (BrokenPipeError, ConnectionResetError):
            self._piece = None  # the answer, or the end of the stream, says why
        self._listen(select.EPOLLIN)

    def _send_some(self, piece: Piece) -> int:
        """What is left of the piece after one call. A small head with a body goes out with MSG_MORE."""
        if piece.count:
            self._sent += os.sendfile(
                self._socket.fileno(), _block(), piece.offset + self._sent, piece.count - self._sent
            )
            return piece.count - self._sent
        flags = socket.MSG_MORE if self._request.pieces and piece.data is self._request.head else 0
        self._sent += self._socket.send(piece.data[self._sent :] if self._sent else piece.data, flags)
        return len(piece.data) - self._sent

    def receive(self) -> None:
        try:
            if self._left:
                self._drop()
            else:
                self._read_head()
        except BlockingIOError:
            return
        except ConnectionError:
            self._broken()

    def _drop(self) -> None:
        count = self._socket.recv_into(_DROP, min(self._left, len(_DROP)), socket.MSG_TRUNC)
        if not count:
            raise ConnectionResetError
        self._left -= count
        if not self._left:
            self._finish()

    def _read_head(self) -> None:
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionResetError
        self._buffer = self._buffer + data if self._buffer else data
        end = self._buffer.find(b"\r\n\r\n")
        if end >= 0:
            self._read_body(self._buffer[:end], end + 4)

    def _read_body(self, head: bytes, start: int) -> None:
        """The body begins at `start`. One that is kept, or chunked, is read into the buffer whole."""
        status = int(head[9:12])
        self._close = _CLOSE.search(head) is not None
        if status == 204 or self._request.head.startswith(b"HEAD"):
            self._end(Answer(status, head))
        elif length := _LENGTH.search(head):
            self._sized(Answer(status, head), start, int(length[1]))
        elif _CHUNKED.search(head):
            body = _unchunk(self._buffer, start)
            if body is not None:
                self._end(Answer(status, head, body))
        else:
            raise ConnectionResetError

    def _sized(self, answer: Answer, start: int, length: int) -> None:
        have = len(self._buffer) - start
        if have >= length:
            self._end(Answer(answer.status, answer.head, self._buffer[start : start + length]))
        elif not self._request.keep and answer.status == self._request.want:
            self._answer, self._left = answer, length - have

    def _finish(self) -> None:
        assert self._answer is not None
        self._end(self._answer)

    def _end(self, answer: Answer) -> None:
        early = self._piece is not None
        if answer.status != self._request.want:
            self._tally.failed(self._request, answer)
        if self._close or early:
            self._disconnect()
            self._connect()
        self._begin(_send(self._script, answer))

    def _broken(self) -> None:
        """The server went away in the middle: an error; the script goes on with a new connection."""
        self._disconnect()
        answer = Answer(0, b"", b"connection closed before the answer was whole")
        self._tally.failed(self._request, answer)
        self._connect()
        self._begin(_send(self._script, answer))


def _send(script: Script, answer: Answer) -> Request | None:
    try:
        return script.send(answer)
    except StopIteration:
        return None


def _unchunk(data: bytes, start: int) -> bytes | None:
    """The chunked body at `start`, or None if its end is not there yet."""
    if not data.endswith(b"0\r\n\r\n"):
        return None
    parts: list[bytes] = []
    while True:
        line = data.find(b"\r\n", start)
        size = int(data[start:line].split(b";")[0], 16) if line >= 0 else -1
        if size < 0 or line + size + 4 > len(data):
            return None
        if size == 0:
            return b"".join(parts)
        parts.append(data[line + 2 : line + 2 + size])
        start = line + size + 4


def play(address: Address, scripts: list[Script], tally: Tally) -> None:
    """Every script on its own connection, until all have ended. Raises TimeoutError if nothing moves."""
    with select.epoll() as poll:
        tally.began = time.perf_counter()
        live: dict[int, Connection] = {}
        for script in scripts:
            connection = Connection(address, script, poll, tally)
            if connection.live:
                live[connection.fileno()] = connection
        while live:
            _round(poll, live)


def _round(poll: select.epoll, live: dict[int, Connection]) -> None:
    events = poll.poll(_PATIENCE)
    if not events:
        raise TimeoutError(f"no answer within {_PATIENCE:.0f} s")
    for fd, event in events:
        connection = live.pop(fd)
        if event & ~select.EPOLLOUT:
            connection.receive()
        elif event & select.EPOLLOUT:
            connection.send()
        if connection.live:
            live[connection.fileno()] = connection


def gets(tally: Tally, requests: list[Request], size: int = 0) -> Script:
    """The same requests again and again; `size` is what one answer carries."""
    clock = time.perf_counter
    while True:
        for request in requests:
            if not tally.more():
                return
            since = clock()
            answer = yield request
            if answer.status == request.want:
                tally.done(since, size)


def puts(tally: Tally, requests: Iterator[Request]) -> Script:
    """Requests that are each sent once, as manifests are."""
    while tally.more():
        request = next(requests, None)
        if request is None:
            return
        since = time.perf_counter()
        answer = yield request
        if answer.status == request.want:
            tally.done(since)


def pushes(tally: Tally, maker: Maker, repository: str, bodies: Iterator[Body], chunk: int = 0) -> Script:
    """Blobs by POST and PUT, or with `chunk` by POST, PATCHes of that many bytes and an empty PUT."""
    while tally.more():
        body = next(bodies, None)
        if body is None:
            return
        since = time.perf_counter()
        answer = yield maker.post(f"/v2/{repository}/blobs/uploads/")
        location, start = answer.location(), 0
        while chunk and answer.status == 202 and start < body.size:
            end = min(start + chunk, body.size)
            answer = yield maker.patch(location, body, start, end)
            location, start = answer.location(), end
        if answer.status == 202:
            answer = yield maker.put_blob(location, body, start=start)
        if answer.status == 201:
            tally.done(since, body.size)


def once(address: Address, make: Callable[[Maker], Request]) -> Answer:
    """One request outside any measurement, its body kept."""
    answers: list[Answer] = []

    def script() -> Script:
        answers.append((yield make(Maker(address))))

    play(address, [script()], Tally())
    return answers[0]
