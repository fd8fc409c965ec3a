"""One action in a child of a warm fork server, with strace at it: kill or fail its n-th call of a kind."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from tests.tools import missing, program

HERE = Path(__file__).parents[2]
CHANGING = (
    "mkdir", "mkdirat", "open", "openat", "write", "writev", "pwrite64", "link", "linkat", "rename", "renameat",
    "renameat2", "unlink", "unlinkat", "rmdir", "fsync", "fdatasync", "ftruncate", "fallocate", "utimensat", "fchmod",
    "fchown",
)  # fmt: skip
READING = (
    "stat", "lstat", "newfstatat", "fstat", "pread64", "read", "getdents64", "statfs", "fstatfs", "fcntl", "close",
)  # fmt: skip
_CALL = re.compile(r"(\w+)\(")


class Outcome(NamedTuple):
    """`killed`: nothing was said. Otherwise an answer of `push_once.run`."""

    killed: bool
    ack: bool = False
    error: str | None = None
    kind: str = ""
    text: str = ""
    open_files: int = 0
    """What the process still held open at the end."""


class Tracer:
    def __init__(self) -> None:
        self._strace = program("strace")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", "tests.faultproof.push_once", str(theirs.fileno())]
        self._server = subprocess.Popen(command, cwd=HERE, pass_fds=[theirs.fileno()])
        theirs.close()
        self._channel = ours

    def close(self) -> None:
        self._channel.close()
        self._server.wait(10)

    def run(self, action: str, root: Path, *, commit: bool, inject: str = "", log: str = os.devnull) -> Outcome:
        """`inject`: as strace(1) has it, without the `when` of a set: `rename:signal=KILL:when=2`."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            request = {"action": action, "path": str(root), "commit": commit}
            socket.send_fds(self._channel, [json.dumps(request).encode()], [theirs.fileno()])
            theirs.close()
            pid = ours.recv(20).decode()
            tracer = self._attach(pid, inject, log)
            ours.send(b"go")
            answer = ours.recv(65536)
            held = len(os.listdir(f"/proc/{pid}/fd")) if answer else 0
        assert tracer.stderr
        tracer.stderr.read()
        tracer.wait()
        return Outcome(False, **json.loads(answer), open_files=held) if answer else Outcome(True)

    def calls(self, action: str, root: Path, *, commit: bool) -> Counter[str]:
        """How often an undisturbed action makes each call."""
        log = root.with_suffix(".strace")
        outcome = self.run(action, root, commit=commit, log=str(log))
        assert not outcome.killed and outcome.kind in ("", "oci"), outcome
        return Counter(match[1] for line in log.read_text().splitlines() if (match := _CALL.match(line)))

    def _attach(self, pid: str, inject: str, log: str) -> subprocess.Popen[bytes]:
        traced = ",".join(f"?{name}" for name in (*CHANGING, *READING)) if not inject else inject.partition(":")[0]
        command = [self._strace, "-p", pid, "-o", log, "-e", f"trace={traced}", "-e", "signal=none"]
        if inject:
            command += ["-e", f"inject={inject}"]
        tracer = subprocess.Popen(command, stderr=subprocess.PIPE)
        assert tracer.stderr
        said = tracer.stderr.readline()
        if b"attached" not in said:
            tracer.wait()
            missing(f"ptrace ({said.decode().strip()})")
        return tracer
