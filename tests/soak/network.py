"""A network between clients, servers and an object store that can be taken apart.

Each server has a network namespace of its own, joined to this one by a pair of interfaces. The addresses are of
198.18.0.0/15, which is for tests of networks (RFC 2544), and no packet leaves the machine. Of its 512 parts each
network takes one that is free: the name of the first namespace says which, and only one can have it.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable

from tests.tools import present, program

LINK, DEAF, MUTE, STORAGE = "link down", "requests lost", "answers lost", "storage away"
"""Nothing passes; a server hears nobody; nobody hears the server; it can't reach the object store."""
PARTS, TRIES = 512, 64


def possible() -> bool:
    return all(map(present, ("root", "ip", "iptables", "nsenter"))) and not _run("ip", "netns", "list")


class Network:
    """`storage_port`: where the object store is, on `host`; 0: there is none."""

    def __init__(self, servers: int) -> None:
        self._part, self.storage_port = _take_part(), 0
        second, third = divmod(self._part, 256)
        self._net = f"198.{18 + second}.{third}"
        self._names = [_name(self._part, number) for number in range(servers)]
        try:
            for number in range(servers):
                self._make(number)
        except BaseException:
            self.close()
            raise

    @property
    def host(self) -> str:
        """This side's address, for all of them."""
        return self._side(0, 1)

    def address(self, number: int) -> str:
        return self._side(number, 2)

    def prefix(self, number: int) -> tuple[str, ...]:
        """The words that run a command in there."""
        return (program("nsenter"), f"--net=/run/netns/{self._names[number]}")

    def kinds(self) -> tuple[str, ...]:
        return (LINK, DEAF, MUTE, STORAGE, STORAGE) if self.storage_port else (LINK, DEAF, MUTE)

    def cut(self, number: int, kind: str, port: int) -> Callable[[], None]:
        """Cut off the server that listens on `port`; what is returned joins it again."""
        if kind == LINK:
            self._inside(number, "ip", "link", "set", "eth0", "down")
            return lambda: self._up(number)
        rule = {
            DEAF: ("INPUT", "-p", "tcp", "--dport", str(port)),
            MUTE: ("OUTPUT", "-p", "tcp", "--sport", str(port)),
            STORAGE: ("OUTPUT", "-p", "tcp", "--dport", str(self.storage_port)),
        }[kind]
        self._inside(number, "iptables", "-w", "-A", *rule, "-j", "DROP")
        return lambda: self._inside(number, "iptables", "-w", "-D", *rule, "-j", "DROP")

    def close(self) -> None:
        for number, name in reversed([*enumerate(self._names)]):  # the first is the right to all the others
            # At once: the kernel takes its time with what a namespace held, and the next network has these names again.
            _run("ip", "link", "del", self._outer(number))
            _run("ip", "netns", "del", name)

    def _make(self, number: int) -> None:
        name, outer = self._names[number], self._outer(number)
        if number:
            _done("ip", "netns", "add", name)
        _done("ip", "link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", name)
        _done("ip", "addr", "add", f"{self._side(number, 1)}/30", "dev", outer)
        _done("ip", "link", "set", outer, "up")
        self._inside(number, "ip", "addr", "add", f"{self._side(number, 2)}/30", "dev", "eth0")
        self._inside(number, "ip", "link", "set", "lo", "up")
        self._up(number)

    def _outer(self, number: int) -> str:
        return f"zs{self._part}h{number}"

    def _up(self, number: int) -> None:
        self._inside(number, "ip", "link", "set", "eth0", "up")
        self._inside(number, "ip", "route", "replace", "default", "via", self._side(number, 1))

    def _inside(self, number: int, *words: str) -> None:
        _done(*self.prefix(number), program(words[0]), *words[1:])

    def _side(self, number: int, side: int) -> str:
        return f"{self._net}.{4 * number + side}"


def _take_part() -> int:
    """A part that no other network has, with its first namespace. What a run left that was killed stays taken."""
    told = ""
    for part in random.sample(range(PARTS), TRIES):
        if not (told := _run("ip", "netns", "add", _name(part, 0))):
            return part
    raise OSError(f"no network namespace can be made: {told}")


def _name(part: int, number: int) -> str:
    return f"zs{part}-{number}"


def _done(*words: str) -> None:
    if told := _run(*words):
        raise OSError(f"{' '.join(words)}: {told}")


def _run(*words: str) -> str:
    """What went wrong; "" if nothing did."""
    done = subprocess.run([program(words[0]), *words[1:]], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr or f"exit code {done.returncode}"
