"""A Linux kernel that runs as a process (User Mode Linux), for what the kernel of this machine may lack: an NFS server,
and two clients of it. Its root is this machine's root, so programs and checkout are where they are here.

    host "one"                     server                      host "two"
    namespace one, mount 4.1  <->  nfsd on ext4, commands  <->  namespace two, mount 4.2

Each client has a network namespace of its own and so, to the server, is a host of its own, with caches and locks of its
own. Commands run beside the server and see both mounts.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.tools import need, program

MODULES = Path("/usr/lib/uml/modules")
MOUNTS = (Path("/run/nfs/one"), Path("/run/nfs/two"))
"""Where commands in there find the one store."""
MEMORY = "1200M"
DISK_BYTES = 2 << 30
"""Sparse."""
NFSD = ("-N", "3", "-V", "4.1", "-V", "4.2", "-U", "8")
"""The options of the server: no other versions, no UDP, threads."""
LEASE_S = 15
"""After so long a client that is away loses its locks, and for so long a server that has restarted grants none."""

_INIT = """#!/bin/bash
exec > {home}/console 2>&1
export PATH={path}
mount -t proc proc /proc && mount -t sysfs sys /sys && mount -t tmpfs tmp /run
mkdir -p /run/fake/lib /run/disk /run/lock /run/nfs/one /run/nfs/two /dev/shm
ln -s {modules} /run/fake/lib/modules
ip link set lo up
for module in ext4 nfsd nfsv4 veth; do modprobe -d /run/fake $module; done
mount -t ext4 /dev/ubda /run/disk
mount -t tmpfs tmp /var/lib/nfs
mkdir -p /var/lib/nfs/sm /var/lib/nfs/sm.bak /var/lib/nfs/v4recovery /var/lib/nfs/rpc_pipefs
touch /var/lib/nfs/etab /var/lib/nfs/rmtab /var/lib/nfs/xtab
mount -t nfsd nfsd /proc/fs/nfsd
echo {lease} > /proc/fs/nfsd/nfsv4gracetime
echo {lease} > /proc/fs/nfsd/nfsv4leasetime
rpc.nfsd {nfsd}
exportfs -o rw,no_root_squash,fsid=0,insecure,no_subtree_check,sync '*:/run/disk'
rpc.mountd -N 3
client() {{  # NAME NUMBER VERSION
    ip netns add $1
    ip link add $1 type veth peer name eth0 netns $1
    ip addr add 10.9.$2.1/24 dev $1 && ip link set $1 up
    ip -n $1 addr add 10.9.$2.2/24 dev eth0 && ip -n $1 link set eth0 up
    nsenter --net=/run/netns/$1 mount -t nfs4 -o vers=$3,hard,timeo=30 10.9.$2.1:/ /run/nfs/$1
}}
client one 1 4.1
client two 2 4.2
cd {cwd}
export {environ}
if mountpoint /run/nfs/one && mountpoint /run/nfs/two; then
    {command} > {home}/output 2>&1
    echo $? > {home}/exit-code
fi
echo o > /proc/sysrq-trigger
sleep 9
"""


class OwnKernel:
    """Starts one for each command. Skips a test where a program is missing. `inode_bytes`: with 128, the server's file
    system keeps whole seconds only."""

    def __init__(self, inode_bytes: int = 256) -> None:
        self._inode_bytes = inode_bytes
        need("root", "linux.uml", "modprobe", "rpc.nfsd", "mount.nfs4", "ip", "mkfs.ext4", str(MODULES))

    def run(self, command: Sequence[str], *, timeout: float, **environ: str) -> tuple[int, str]:
        """The exit code and the output of a command in there. It gets the most of this process' environment."""
        with tempfile.TemporaryDirectory(prefix="zotctl-kernel-") as home:
            disk, init = Path(home, "disk"), Path(home, "init")
            with disk.open("wb") as file:
                file.truncate(DISK_BYTES)
            size = str(self._inode_bytes)
            subprocess.run([program("mkfs.ext4"), "-q", "-F", "-I", size, str(disk)], check=True, capture_output=True)
            init.write_text(self._init(command, home, environ))
            init.chmod(0o755)
            return self._boot(home, disk, init, timeout)

    def _init(self, command: Sequence[str], home: str, environ: dict[str, str]) -> str:
        kept = {key: text for key, text in os.environ.items() if key in ("PATH", "LANG", "CI", "PYTHONPATH")}
        kept |= {"HOME": home, "TMPDIR": home, "NFS_MOUNTS": ":".join(map(str, MOUNTS)), **environ}
        return _INIT.format(
            home=home,
            path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            modules=MODULES,
            lease=LEASE_S,
            nfsd=" ".join(NFSD),
            cwd=shlex.quote(os.getcwd()),
            environ=" ".join(f"{key}={shlex.quote(text)}" for key, text in kept.items()),
            command=shlex.join(command),
        )

    @staticmethod
    def _boot(home: str, disk: Path, init: Path, timeout: float) -> tuple[int, str]:
        words = [f"mem={MEMORY}", f"ubd0={disk}", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "rw"]
        words += [f"init={init}", f"uml_dir={home}", "con=null", "con0=null", "quiet"]
        with open(f"{home}/boot", "wb") as boot:
            kernel = subprocess.Popen(
                [program("linux.uml"), *words], stdin=subprocess.DEVNULL, stdout=boot, stderr=boot,
                start_new_session=True, env={**os.environ, "TMPDIR": home},
            )  # fmt: skip
        try:
            kernel.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(kernel.pid, signal.SIGKILL)
            kernel.wait()
        told = {name: _text(Path(home, name)) for name in ("exit-code", "output", "console", "boot")}
        if not told["exit-code"]:
            return -1, f"it did not end\n{told['output']}\n{told['console']}\n{told['boot'][-3000:]}"
        return int(told["exit-code"]), told["output"]


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
