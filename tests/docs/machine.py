"""A machine in a directory, on which the commands of a page run in order: its places, ports and stand-ins.

A block whose last line is `zotctl serve ...` is what a reader leaves running in another terminal: it runs in the
background, in place of an earlier one on the same port. Places such as /srv and /etc lie below the directory, ports are
free ones, and registry.example is this machine. A line that ends in `# refused` has to fail,
one in `# exit code N` with that code.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path

from tests import images
from tests.buckets import free_port
from tests.tools import need

HERE = Path(__file__).parents[2]
BLOCK = re.compile(r"^ *```sh\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
PLACES = (
    "srv",
    "etc/systemd/system",
    "etc/nginx/conf.d",
    "etc/caddy",
    "var/lib",
    "mnt",
    "opt",
    "usr/bin",
)
TOOLS = {
    "docker-registry", "skopeo", "umoci", "crane", "curl", "openssl", "htpasswd", "rsync", "restic", "versitygw",
    "promtool", "tar",
}  # fmt: skip
"""What is needed, where a page names it."""

LIBRARY = r"""
start() {  # PORT COMMAND...: in the background, until it listens
    port=$1; shift; stop "$port"
    : > "$HOME/serve-$port.log"
    "$@" >> "$HOME/serve-$port.log" 2>&1 &
    echo $! > "$HOME/serve-$port.pid"
    until grep -q "serving on" "$HOME/serve-$port.log"; do
        kill -0 "$(cat "$HOME/serve-$port.pid")" 2> /dev/null || { cat "$HOME/serve-$port.log" >&2; exit 1; }
        sleep 0.1
    done
}
stop() {  # PORT
    [ -e "$HOME/serve-$1.pid" ] || return 0
    pid=$(cat "$HOME/serve-$1.pid"); rm "$HOME/serve-$1.pid"
    kill "$pid" 2> /dev/null || true
    while kill -0 "$pid" 2> /dev/null; do sleep 0.05; done
}
"""
PRELUDE = """#!/bin/bash
set -eu
. "$HOME/library"
unit() { [ -e "$MACHINE/etc/systemd/system/$1" ] || { echo "no unit $1" >&2; exit 1; }; }
"""
STAND_INS = {
    # zotctl in a container of its own, without systemd as its first process
    "systemctl": """
action=$1; shift
case $action in daemon-reload | start | stop | restart | reload | enable) ;; *) exit 1 ;; esac
for name in "$@"; do
    case $name in -*) continue ;; nginx | caddy) continue ;; *.*) unit "$name" ;; *) unit "$name.service" ;; esac
    case $action$name in
        start*.timer | enable*.timer) ;;
        startzotctl-*) $(sed -n "s/^ExecStart=//p" "$MACHINE/etc/systemd/system/${name%.service}.service") ;;
        startzotctl* | restartzotctl* | enablezotctl*)
            start $ZOTCTL_HTTP_PORT zotctl serve --config "$MACHINE/etc/zotctl/zotctl.toml" ;;
        stopzotctl*) stop $ZOTCTL_HTTP_PORT ;;
        reloadzotctl*) kill -HUP "$(cat "$HOME/serve-$ZOTCTL_HTTP_PORT.pid")" ;;
    esac
done
""",
    # no engine: the words are looked at, and a manifest or a file that is named has to be there
    "docker": """
case $1 in pull | push | tag | login | logout) ;; *) exit 1 ;; esac
case " $* " in *" --password-stdin "*) cat > /dev/null ;; esac
""",
    "podman": """
case $1 in
    build) [ -e contrib/Containerfile ] ;;
    run) start $ZOTCTL_HTTP_PORT zotctl serve --root "$HOME/volume" ;;
    stop) stop $ZOTCTL_HTTP_PORT ;;
    *) exit 1 ;;
esac
""",
    "kubectl": """
case $1 in create | get | apply | rollout | port-forward | logs | exec | scale) ;; *) exit 1 ;; esac
while [ $# -gt 0 ]; do if [ "$1" = -f ]; then [ -e "$2" ] || { echo "no $2" >&2; exit 1; }; shift; fi; shift; done
""",
    # the real one, which takes skopeo's variable for one of its own keys
    "docker-registry": 'PATH=${PATH#*:} exec env -u REGISTRY_AUTH_FILE docker-registry "$@"\n',
    # Harbor's database, with the rows of what it has put below /data/registry
    "psql": """
case " $* " in *" -At -F   -c "*) ;; *) exit 1 ;; esac
mkdir -p "$MACHINE/data" && cp -r "$MACHINE/var/lib/docker-registry" "$MACHINE/data/registry"
cd "$MACHINE/data/registry/docker/registry/v2/repositories"
for link in */*/_manifests/tags/*/current/link; do
    tag=${link%/current/link}
    echo "${tag%%/_manifests*}:${tag##*/} $(cat "$link") 2024-05-06T07:08:09Z"
done
""",
    # what changes the machine itself
    "apt-get": "[ $1 = install ]\n",
    "dpkg-buildpackage": "[ -e debian/rules ]\n",
    "useradd": "true\n",
    "chown": "true\n",
    "mount": "true\n",
    "journalctl": "cat $HOME/serve-*.log\n",
    # `.ci/run` installs by the README's command, the tests of the packages by others
    "python3": """
[ "$1 $2" = "-m venv" ]
mkdir -p "$3/bin" "$3/share/bash-completion/completions"
ln -sf /bin/true "$3/bin/pip" && ln -sf "$HOME/bin/zotctl" "$3/bin/zotctl"
ln -sf "$PYTHONPATH/completions/zotctl.bash" "$3/share/bash-completion/completions/zotctl"
""",
}  # fmt: skip
"""Programs that can't run in a test, or not as they are called, and why. Each fails on words that it doesn't know."""


class Machine:
    """`home` is empty at the start."""

    def __init__(self, home: Path) -> None:
        self.home, self._ports = home, dict[str, str]()
        work = home / "work"
        work.mkdir(parents=True)
        for place in PLACES:
            (home / "machine" / place).mkdir(parents=True)
        for file in [path for path in (HERE / "contrib").rglob("*") if path.is_file()]:
            copy = work / file.relative_to(HERE)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(self._placed(file.read_text()))
        made = images.image("hello")
        images.lay_out(work / "hello", made, [images.row(made, "1.0")])
        self._programs()

    def _programs(self) -> None:
        programs = self.home / "bin"
        programs.mkdir()
        (self.home / "library").write_text(LIBRARY)
        own = f'#!/bin/sh\nexec "{sys.executable}" -m zotctl.cli "$@"\n'
        for name, text in {"zotctl": own, **{name: PRELUDE + text for name, text in STAND_INS.items()}}.items():
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)

    def run(self, page: str) -> None:
        """All blocks of a page, in one shell that stops at the first command that fails."""
        blocks = BLOCK.findall(page)
        need(*(TOOLS & set(re.findall(r"[\w-]+", "\n".join(blocks)))))
        script = "".join(map(self._prepared, blocks))
        file = self.home / "script"
        file.write_text(f'. "$HOME/library"\nset -x\n{script}')
        with (self.home / "output").open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-eu", "-o", "pipefail", str(file)], cwd=self.home / "work", env=self._environment(),
                start_new_session=True, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        try:
            process.wait(280)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        assert process.returncode == 0, (self.home / "output").read_text()

    def _prepared(self, block: str) -> str:
        text = block.replace("DNS:registry.example", "IP:127.0.0.1").replace("registry.example", "127.0.0.1")
        text = text.replace("0.0.0.0", "127.0.0.1")
        text = re.sub(r"(?<=[\w.]:)(\d{4})\b(?!-)", lambda found: self._port(found[1]), text)
        text = re.sub(r"^(.*\S) +# refused$", r"if \1; then exit 1; fi", self._placed(text), flags=re.M)
        text = re.sub(
            r"^(.*\S) +# exit code (\d+)$", r"code=0; \1 || code=$?; [ $code = \2 ]", text, flags=re.MULTILINE
        )
        *before, last = textwrap.dedent(text).splitlines()
        if last.startswith("zotctl serve"):
            port = re.search(r"--listen \S+:(\d+)", last)
            last = f"start {port[1] if port else self._port('5000')} {last}"
        return "\n".join([*before, last, ""])

    def _placed(self, text: str) -> str:
        return re.sub(r"(?<![\w.)}/])/(srv|etc|var|mnt|data|backup|opt|usr/bin)\b", rf"{self.home}/machine/\1", text)

    def _port(self, written: str) -> str:
        return self._ports.setdefault(written, str(free_port()))

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("LANG", "TMPDIR") if name in os.environ}
        return kept | {
            "PATH": f"{self.home / 'bin'}:{os.environ['PATH']}:/usr/sbin:/sbin", "HOME": str(self.home),
            "MACHINE": str(self.home / "machine"), "PYTHONPATH": str(HERE), "ZOTCTL_HTTP_PORT": self._port("5000"),
            "REGISTRY_AUTH_FILE": str(self.home / "auth.json"), "DOCKER_CONFIG": str(self.home / ".docker"),
            "ZOTCTL_HTTP_WORKERS": "1", "ZOTCTL_STORAGE_GC": "false", "AWS_EC2_METADATA_DISABLED": "true",
        }  # fmt: skip
