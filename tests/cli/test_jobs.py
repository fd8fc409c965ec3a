"""What the jobs print, and how they end, for whoever runs them from a script or from cron."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import images
from tests.cli.running import PATIENCE_S, REPOSITORY, python, zotctl
from tests.http.serving import until
from tests.jobs.importing import tar_of
from tests.jobs.layouts import age, blob, flip, lay_out
from tests.storage.mounting import mount_at
from zotctl import __version__
from zotctl.cli.checking import CheckText
from zotctl.cli.report import _counters
from zotctl.errors import Interrupted
from zotctl.jobs.files import locked
from zotctl.jobs.report import Report, error_fields
from zotctl.oci.digest import digest_of

JOBS = ("gc", "scrub", "dedupe", "verify", "import-layout")


def words_of(job: str) -> list[str]:
    return [job, os.curdir] if job == "import-layout" else [job]


def document(*words: str, cwd: Path | None = None, environ: dict[str, str] | None = None) -> tuple[int, Any, str]:
    done = zotctl(*words, "--json", cwd=cwd, environ=environ)
    return done.returncode, json.loads(done.stdout), done.stderr


@pytest.mark.parametrize("job", JOBS)
def test_a_root_that_is_not_there_is_a_document(job: str, tmp_path: Path) -> None:
    code, told, stderr = document(*words_of(job), "--root", str(tmp_path / "none"))
    assert (code, told["exit_code"]) == (10, 10)
    assert (told["schema"], told["command"], told["version"]) == (f"zotctl.{job}/1", job, __version__)
    (error,) = told["errors"]
    assert error["error"] == "NoSuchStore" and "no such directory" in error["reason"]
    assert error["reason"] in stderr
    assert (told["items"], told["findings"]) == ([], [])


def test_whoever_imports_into_a_new_store_is_told_to_make_its_directory(tmp_path: Path) -> None:
    lay_out(tmp_path, "app", images.image(), "v1")
    words = ("import-layout", str(tmp_path / "app"), "--root", str(tmp_path / "new"))
    code, told, _ = document(*words)
    assert code == 10 and told["errors"][0]["reason"].endswith("or make the directory if the store is to be a new one")
    (tmp_path / "new").mkdir()
    assert document(*words)[0] == 0


def test_an_endpoint_without_a_scheme_is_refused_with_the_way_out() -> None:
    environ = {"AWS_ENDPOINT_URL_S3": "127.0.0.1:9", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    done = zotctl("scrub", "--root", "s3://images", environ=environ)
    assert done.returncode == 3
    assert done.stderr.endswith("Invalid endpoint: 127.0.0.1:9; write it as http://HOST:PORT or https://HOST\n")


@pytest.mark.parametrize("job", JOBS)
def test_a_root_that_is_not_there_is_lines_that_end_with_a_summary(job: str, tmp_path: Path) -> None:
    done = zotctl(*words_of(job), "--root", str(tmp_path / "none"), "--output", "jsonl")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["type"] for line in lines] == ["start", "error", "summary"]
    assert (done.returncode, lines[-1]["exit_code"], lines[0]["schema"]) == (10, 10, f"zotctl.{job}/1")


def test_a_configuration_is_refused_in_the_form_that_the_environment_asks_for(tmp_path: Path) -> None:
    (tmp_path / "zotctl.toml").write_text("[storage]\ngc_dely = '1h'\n[log]\nlevel = 'loud'\n")
    done = zotctl("gc", "--config", "zotctl.toml", cwd=tmp_path, environ={"ZOTCTL_OUTPUT": "json"})
    told = json.loads(done.stdout)
    assert (done.returncode, told["exit_code"], len(told["errors"])) == (3, 3, 2)


def test_a_wrong_duration_is_a_document(tmp_path: Path) -> None:
    lay_out(tmp_path, "app", images.image(), "v1")
    code, told, _ = document("gc", "--root", str(tmp_path), "--delay", "soon")
    assert (code, told["exit_code"], told["errors"][0]["error"]) == (2, 2, "UsageError")


def test_a_bug_is_a_document_too(tmp_path: Path) -> None:
    lay_out(tmp_path, "app", images.image(), "v1")
    script = "import sys, zotctl.jobs.gc as job; job._collect = None; from zotctl.cli import main; main()"
    done = python("-c", script, "gc", "--root", str(tmp_path), "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["exit_code"]) == (70, 70)
    assert told["errors"][0]["reason"].startswith("a bug: TypeError")
    assert done.stderr.startswith("zotctl: a bug")


@pytest.mark.parametrize("job", ["gc", "scrub", "dedupe", "verify"])
def test_a_glob_that_matches_nothing_ends_with_10(job: str, tmp_path: Path) -> None:
    lay_out(tmp_path, "team/app", images.image(), "v1")
    code, told, _ = document(job, "--root", str(tmp_path), "--repo", "teem/*")
    assert (code, told["errors"][0]["reason"]) == (10, "no repository matches --repo teem/*")
    for globs in (["--repo", "team/**"], ["--repo", "teem/*", "--repo", "*/app"]):
        assert document(job, "--root", str(tmp_path), *globs)[0] == 0


def test_one_finding_is_not_several(tmp_path: Path) -> None:
    made = images.image()
    lay_out(tmp_path, "app", made, "v1")
    flip(blob(tmp_path, "app", made.blobs[0]))
    done = zotctl("scrub", "--root", str(tmp_path), "--quiet")
    assert done.returncode == 4
    assert done.stdout == "" and ": damaged, 1 finding.\n" in done.stderr
    assert zotctl("gc", "--root", str(tmp_path), "-q").stdout == ""


def test_a_check_ends_in_a_sentence(tmp_path: Path) -> None:
    lay_out(tmp_path, "app", images.image(), "v1")
    done = zotctl("verify", "--root", str(tmp_path))
    assert (done.stdout, done.stderr) == ("Checked 4 blobs in 1 repository: no damage.\n", "")
    done = zotctl("scrub", "--root", str(tmp_path))
    assert done.stdout.startswith("Checked 4 blobs (") and done.stdout.endswith(") in 1 repository: no damage.\n")
    assert zotctl("scrub", "--root", str(tmp_path), "-q").stdout == ""
    done = zotctl("verify", "--usage", "--root", str(tmp_path))
    assert done.stdout.splitlines()[-1].startswith("Measured 1 repository with 1 tag: ")


def test_a_signal_is_no_error_of_the_store(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("scrub", __version__, codes=[130], summary={"repositories": 2, "checked_blobs": 7})
    report.errors.append(error_fields("", Interrupted("stopped by a signal; run it again to go on")))
    CheckText(quiet=False).close(report)
    assert capsys.readouterr().out == "Checked 7 blobs in 2 repositories: no damage found, stopped by a signal.\n"


def test_a_summary_is_for_people_and_tells_each_thing_once() -> None:
    summary = {"checked_blobs": 16, "checked_bytes": 4480, "purged": 2, "purged_bytes": 10, "findings": 3, "left": 0}
    assert list(_counters(summary)) == ["checked blobs 16", "checked 4.4 KiB", "purged 2 (10 B)"]
    assert list(_counters({"purged": 0, "purged_bytes": 10})) == ["purged 10 B"]


def test_a_damaged_index_is_named_once_and_gc_ends_with_5_where_scrub_ends_with_4(tmp_path: Path) -> None:
    made = images.image()
    lay_out(tmp_path, "app", made, "v1")
    lay_out(tmp_path, "other", made, "v1")
    blob(tmp_path, "app", made.manifest).unlink()
    (tmp_path / "other" / "index.json").write_text("{")
    age(tmp_path)
    assert document("gc", "--root", str(tmp_path))[0] == 5
    done = zotctl("scrub", "--root", str(tmp_path))
    assert done.returncode == 4
    assert "\ninvalid_index: other: index.json " in f"\n{done.stderr}"


def test_people_are_told_the_way_out_once(tmp_path: Path) -> None:
    made = images.image()
    for name in ("app", "cut", "other"):
        lay_out(tmp_path, name, made, "v1")
    for name in ("app", "other"):
        flip(blob(tmp_path, name, made.manifest))
    (tmp_path / "cut" / "index.json").write_text("{")
    age(tmp_path)
    for job, heal, layout, again in (("scrub", 1, 1, 0), ("gc", 1, 1, 1), ("dedupe", 1, 0, 0), ("verify", 0, 0, 0)):
        done = zotctl(job, "--root", str(tmp_path))
        assert done.stderr.count("push it again, or run `zotctl scrub --repair`") == heal, job
        assert done.stderr.count("put back its oci-layout or index.json from a copy") == layout, job
        assert done.stderr.count("to have it collected again") == again, job
        assert done.stdout.splitlines()[-1].startswith("Collected 0 repositories" if job == "gc" else "Checked ")
    intact = tmp_path.with_name("intact")
    lay_out(intact, "app", made, "v1")
    shutil.rmtree(tmp_path / "cut")
    done = zotctl("scrub", "--root", str(tmp_path), "--repair", "--from", str(intact / "app"))
    assert done.returncode == 4 and "zotctl: " not in done.stderr, "all is repaired"
    assert zotctl("scrub", "--root", str(tmp_path)).returncode == 0


def test_an_explanation_gives_the_chain_once(tmp_path: Path) -> None:
    made = images.image()
    lay_out(tmp_path, "app", made, "v1")
    done = zotctl("gc", "--root", str(tmp_path), "--explain", str(digest_of(made.blobs[1])))
    assert done.stdout.count(str(made.digest)) == 1
    assert done.stdout.splitlines()[0].startswith(f"app@{digest_of(made.blobs[1])}: kept: ")


def test_a_warning_is_a_line_for_people_where_cron_mails_it(tmp_path: Path) -> None:
    lay_out(tmp_path, "app", images.image(), "v1")
    done = zotctl("gc", "--root", str(tmp_path), environ={"ZOTCTL_ROTO": "x"})
    assert "warning config: environment ZOTCTL_ROTO: unknown variable" in done.stderr
    assert not done.stderr.startswith("{")


def test_a_dry_run_on_a_read_only_root_tells_what_the_owner_would_collect(tmp_path: Path) -> None:
    source, root = tmp_path / "source", tmp_path / "root"
    root.mkdir()
    stray = lay_out(source, "app", images.image(), "v1") / "blobs" / "sha256" / digest_of(b"stray").encoded
    stray.write_bytes(b"stray")
    age(source)
    with mount_at(root, "--bind", "-o", "ro", str(source)):
        code, told, stderr = document("gc", "--root", str(root), "--dry-run")
        assert (code, told["summary"]["unreachable"]) == (0, 1)
        code, told, stderr = document("gc", "--root", str(root))
        assert (code, told["errors"][0]["reason"]) == (12, "it can't be written, so nothing was done there")
        assert "so it is only read" in stderr


def test_a_run_that_the_clock_cut_short_says_so(tmp_path: Path) -> None:
    lay_out(tmp_path, "app", images.image(), "v1")
    done = zotctl("scrub", "--root", str(tmp_path), "--max-duration", "0s")
    assert (done.returncode, done.stdout.split(" in ")[0]) == (16, "scrub: nothing done, stopped at --max-duration")


@pytest.mark.parametrize("form", ["text", "json", "jsonl"])
def test_a_result_that_can_not_be_printed_is_no_bug(form: str, tmp_path: Path) -> None:
    lay_out(tmp_path, "app", images.image(), "v1")
    with open("/dev/full", "w") as full:
        done = zotctl("verify", "--root", str(tmp_path), "--output", form, stdout=full.fileno())
    assert (done.returncode, done.stderr) == (1, "zotctl: the result can't be printed: No space left on device\n")


def test_closed_outputs_change_no_exit_code(tmp_path: Path) -> None:
    lay_out(tmp_path, "app", images.image(), "v1")
    command = f"exec {sys.executable} -m zotctl.cli gc --root {tmp_path} "
    environ = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    assert subprocess.run(["sh", "-c", command + ">&-"], env=environ, check=False).returncode == 0
    assert subprocess.run(["sh", "-c", command + "2>&-"], env=environ, check=False).returncode == 0
    assert subprocess.run(["sh", "-c", command + ">&- 2>&- <&-"], env=environ, check=False).returncode == 0


def test_the_variable_names_several_roots(tmp_path: Path) -> None:
    """Separated by colons, as for `serve`."""
    for name in ("one", "two"):
        lay_out(tmp_path / name, name, images.image(name))
    environ = {"ZOTCTL_ROOT": f"{tmp_path / 'one'}:{tmp_path / 'two'}"}
    for repository in ("one", "two"):
        code, told, _ = document("verify", "--repo", repository, environ=environ)
        assert (code, told["errors"]) == (0, [])


def test_undo_warns_of_servers_that_would_share_again(tmp_path: Path) -> None:
    root, config = tmp_path / "root", tmp_path / "c.toml"
    lay_out(root, "app", images.image(), "v1")
    for said, where in (("", "the default for directories"), ("dedupe = true\n", f"{config}: storage.dedupe")):
        config.write_text(f'[storage]\nroots = ["{root}"]\n{said}')
        done = zotctl("dedupe", "--undo", "--config", str(config))
        assert done.returncode == 0
        assert f"{root}: dedupe is true ({where})" in done.stderr and "write dedupe = false" in done.stderr
        assert zotctl("dedupe", "--config", str(config)).stderr == ""
    config.write_text(f'[storage]\nroots = ["{root}"]\ndedupe = false\n')
    done = zotctl("dedupe", "--undo", "--config", str(config))
    assert (done.returncode, done.stderr) == (0, "")


def test_so_it_does_for_a_route_alone(tmp_path: Path) -> None:
    for name in ("root", "team"):
        lay_out(tmp_path / name, f"{name}/app", images.image(), "v1")
    config = tmp_path / "c.toml"
    config.write_text(
        f'[storage]\nroots = ["{tmp_path}/root"]\ndedupe = false\n[[storage.routes]]\nprefix = "team"\n'
        f'root = {{ path = "{tmp_path}/team", dedupe = true }}\n'
    )
    (line,) = zotctl("dedupe", "--undo", "--config", str(config)).stderr.splitlines()
    assert f"{tmp_path}/team: dedupe is true ({config}: storage.routes[0].root.dedupe)" in line


def test_one_thing_is_told_as_one(tmp_path: Path) -> None:
    lay_out(tmp_path, "app", images.image(), "v1")
    blob(tmp_path, "app", b"stray").write_bytes(b"stray")
    age(tmp_path)
    assert "1 blob with 5 bytes that no manifest reaches" in zotctl("verify", "--root", str(tmp_path)).stderr
    stray = f"app@{digest_of(b'stray')} (5 B)"
    rehearsed = zotctl("gc", "--root", str(tmp_path), "--dry-run").stdout
    assert f"{stray} would be moved to the trash" in rehearsed and "Dry run: nothing was removed." in rehearsed
    done = zotctl("gc", "--root", str(tmp_path)).stdout.splitlines()
    assert done[0] == f"{stray} moved to the trash"
    assert done[-1].startswith("Collected 1 repository: 1 blob (5 B) moved to the trash. 1 blob (5 B) waits in ")
    assert "app: 1 blob (5 B) of run " in zotctl("gc", "--root", str(tmp_path), "--list-trash").stdout
    assert "1 blob (5 B) deleted for good" in zotctl("gc", "--root", str(tmp_path), "--delay", "0s").stdout


@pytest.mark.parametrize("job", ["gc", "scrub", "dedupe", "verify", "import-layout", "serve"])
def test_one_layout_is_no_store(tmp_path: Path, job: str) -> None:
    """Its own directory as a root would hold no repository, and get a hidden directory of ours."""
    layout = lay_out(tmp_path, "app", images.image(), "v1")
    source = [str(lay_out(tmp_path, "source", images.image(), "v1"))] if job == "import-layout" else []
    done = zotctl(job, *source, "--root", str(layout))
    assert done.returncode == 3 and "is an image layout, not a store of them" in done.stderr
    assert sorted(path.name for path in layout.iterdir()) == ["blobs", "index.json", "oci-layout"]
    assert zotctl("verify", str(layout)).returncode == 0


def test_an_archive_is_verified_from_a_pipe(tmp_path: Path) -> None:
    archive = tar_of(lay_out(tmp_path, "app", images.image(), "v1"))
    command = [sys.executable, "-m", "zotctl.cli", "verify", "-", "--json"]
    for body, code in ((archive, 0), (archive[:3000], 4)):
        done = subprocess.run(command, input=body, capture_output=True, timeout=PATIENCE_S, check=False, cwd=REPOSITORY)
        assert done.returncode == code, done.stderr


def test_a_stray_file_makes_no_layout_of_a_store_in_use(tmp_path: Path) -> None:
    lay_out(tmp_path, "app", images.image(), "v1")
    assert zotctl("gc", "--root", str(tmp_path)).returncode == 0
    (tmp_path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    assert zotctl("gc", "--root", str(tmp_path)).returncode == 0


def test_gc_from_cron_appends_to_the_audit_file_of_the_server(tmp_path: Path) -> None:
    root, audit, config = tmp_path / "root", tmp_path / "audit", tmp_path / "zotctl.toml"
    lay_out(root, "app", images.image(), "v1")
    (stray := blob(root, "app", b"stray")).write_bytes(b"stray")
    age(root / "app")
    config.write_text(f'[storage]\nroots = ["{root}"]\n[log]\naudit = "{audit}"\n')
    assert zotctl("gc", "--config", str(config), "--dry-run").returncode == 0
    assert not audit.exists()
    audit.write_text("{}\n")
    done = zotctl("gc", "--config", str(config))
    assert (done.returncode, done.stderr, stray.exists()) == (0, "", False)
    first, line = map(json.loads, audit.read_text().splitlines())
    assert first == {}
    assert (line["action"], line["repository"], line["digest_before"]) == ("trash", "app", str(digest_of(b"stray")))
    assert line["reason"] == "gc: no manifest reaches it"
    config.write_text(f'[storage]\nroots = ["{root}"]\n[log]\naudit = "{tmp_path}/none/audit"\n')
    refused = zotctl("gc", "--config", str(config))
    assert refused.returncode == 3 and "log.audit" in refused.stderr


def test_gc_says_by_its_code_that_the_audit_file_could_not_be_written(tmp_path: Path) -> None:
    root, config = tmp_path / "root", tmp_path / "zotctl.toml"
    lay_out(root, "app", images.image(), "v1")
    (stray := blob(root, "app", b"stray")).write_bytes(b"stray")
    age(root / "app")
    config.write_text(f'[storage]\nroots = ["{root}"]\n[log]\naudit = "/dev/full"\n')
    done = zotctl("gc", "--config", str(config))
    assert (done.returncode, stray.exists()) == (1, False)
    assert "the audit file /dev/full can't be written" in done.stderr


@pytest.mark.parametrize(
    ("ignored", "numbers", "code"),
    [
        ("", [signal.SIGHUP], 129),
        ("", [signal.SIGTERM], 143),
        ("INT", [signal.SIGINT], 130),  # as a shell does for what it begins with &
        ("HUP", [signal.SIGHUP, signal.SIGTERM], 143),  # as nohup does
    ],
)
def test_a_signal_ends_a_job_with_its_report(
    tmp_path: Path, ignored: str, numbers: list[signal.Signals], code: int
) -> None:
    """SIGHUP, too: a terminal that is closed must not leave half an archive."""
    lay_out(tmp_path / "s", "app", images.image(), "1")
    words = ["import-layout", str(tmp_path / "s"), "--to", str(tmp_path / "a.tar"), "--rate", "1B", "--json"]
    command = ["sh", "-c", f'trap "" {ignored or 0}; exec "$@"', "sh", sys.executable, "-m", "zotctl", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as job:
        until(lambda: list(tmp_path.glob("a.tar.part")))
        with locked(str(tmp_path)):  # between making the file and knowing it a run is as good as killed
            pass
        for number in numbers:
            job.send_signal(number)
        told, _ = job.communicate(timeout=PATIENCE_S)
    assert job.returncode == code and json.loads(told)["errors"][0]["error"] == "Interrupted"
    assert os.listdir(tmp_path) == ["s"]
