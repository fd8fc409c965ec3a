"""import-layout from archives: how tools write them, and how attackers do."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.filesystem import MemoryDriver
from tests.images import Image, image, lay_out, row
from tests.jobs.importing import (
    LAYOUT,
    actions,
    gzipped,
    header,
    kinds,
    left_behind,
    local_store,
    members_of,
    piped,
    rows_of,
    run_import,
    tar_bytes,
    tar_of,
)
from tests.jobs.test_import_layouts import pulls
from tests.stores import store_over
from tests.tools import ZSTD_MODULE, need
from zotctl.jobs.imports import archives, members
from zotctl.jobs.staging import STAGING
from zotctl.oci.digest import digest_of
from zotctl.storage import Store, tar

HEX = "a" * 64
BLOB = f"blobs/sha256/{HEX}"


def zstandard(body: bytes) -> bytes:
    need(ZSTD_MODULE)
    packed: bytes = tar.zstd_module("").compress(body)
    return packed


def in_frames(body: bytes) -> bytes:
    """As pzstd packs: before each frame one to be skipped."""
    half = len(body) // 2
    return b"".join(b"\x50\x2a\x4d\x18\x04\0\0\0size" + zstandard(part) for part in (body[:half], body[half:]))


@pytest.mark.parametrize("pack", [bytes, gzipped, zstandard, in_frames])
@pytest.mark.parametrize("prefix", ["", "./", "some/where/"])
@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_a_tar_plain_or_packed(store: Store, made: Image, tmp_path: Path, pack: Any, prefix: str, format: int) -> None:
    path = tmp_path / "busybox.tar.gz"
    path.write_bytes(pack(tar_bytes(members_of(made, row(made, "1.36"), prefix=prefix), format)))
    report = run_import(store, path)
    assert report.exit_code == 0, report.errors
    name = "some/where" if prefix == "some/where/" else "busybox"
    assert pulls(store, name, made, "1.36")
    assert all(one.startswith((".zotctl/pool/", name)) for one in left_behind(store))


def test_long_names_in_both_dialects(store: Store, made: Image, tmp_path: Path) -> None:
    for format in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        path = tmp_path / f"a{format}.tar"
        path.write_bytes(tar_bytes(members_of(made, prefix="very/" + "long" * 60 + "/"), format))
        assert run_import(store, path, repo=f"a{format}").exit_code == 0
        assert pulls(store, f"a{format}", made, "1.36")


@pytest.mark.parametrize("pack", [bytes, gzipped, zstandard])
def test_a_pipe(store: Store, made: Image, monkeypatch: pytest.MonkeyPatch, pack: Any) -> None:
    piped(monkeypatch, pack(tar_bytes(members_of(made, row(made, "docker.io/library/busybox:1.36")))))
    assert run_import(store, "-").exit_code == 0
    assert pulls(store, "library/busybox", made, "1.36")
    os.wait()


def test_a_pipe_needs_a_name(store: Store, made: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    piped(monkeypatch, tar_bytes(members_of(made)))
    report = run_import(store, "-")
    os.wait()
    assert report.exit_code == 2 and "--repo" in report.errors[0]["reason"] and left_behind(store) == []


def test_a_named_pipe(store: Store, made: Image, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "a.tar").write_bytes(tar_bytes(members_of(made)))
    with subprocess.Popen(["sh", "-c", f"cat {tmp_path}/a.tar > {tmp_path}/fifo"]):
        assert run_import(store, tmp_path / "fifo", repo="a").exit_code == 0
    assert pulls(store, "a", made, "1.36")


def test_without_the_zstd_extra_its_name_is_given(
    store: Store, made: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(module: str) -> None:
        raise ModuleNotFoundError(module)

    path = tmp_path / "a.tar.zst"
    path.write_bytes(tar._ZSTD + bytes(100))
    monkeypatch.setattr(tar, "import_module", missing)
    report = run_import(store, path)
    assert report.exit_code == 2 and "zotctl[zstd]" in report.errors[0]["reason"]


def test_docker_save(store: Store, tmp_path: Path) -> None:
    """moby/moby, image/tarexport/save.go: names in the annotations, and in manifest.json."""
    one, two = image("1"), image("2")
    configs = [digest_of(made.blobs[0]).encoded for made in (one, two)]
    manifest = [
        {"Config": f"blobs/sha256/{configs[0]}", "RepoTags": ["alpine:3", "alpine:latest"], "Layers": []},
        {"Config": f"blobs/sha256/{configs[1]}", "RepoTags": None, "Layers": []},
    ]
    rows = [row(one), row(two, "1.36", **{})]
    rows[1]["annotations"]["io.containerd.image.name"] = "docker.io/library/busybox:1.36"  # type: ignore[index]
    blobs = {f"blobs/sha256/{digest_of(b).encoded}": b for made in (one, two) for b in (*made.blobs, made.manifest)}
    index = json.dumps({"schemaVersion": 2, "manifests": rows}).encode()
    extra = [("manifest.json", json.dumps(manifest).encode()), ("repositories", b"{}"), ("index.json", index)]
    path = tmp_path / "saved.tar"
    path.write_bytes(tar_bytes([header("blobs/", tarfile.DIRTYPE), *blobs.items(), *extra, ("oci-layout", LAYOUT)]))
    assert run_import(store, path).findings == []
    assert store.repositories() == ["alpine", "library/busybox"]
    assert store.repository("alpine").tags() == ["3", "latest"] and pulls(store, "alpine", one, "latest")
    assert pulls(store, "library/busybox", two, "1.36")


def test_twice_and_damaged_members(store: Store, made: Image, tmp_path: Path) -> None:
    broken = image("broken")
    members = dict(members_of(made, row(made, "v1"), row(broken, "v2"))) | {
        f"blobs/sha256/{digest_of(body).encoded}": body for body in (*broken.blobs[:2], broken.manifest)
    }
    members[f"blobs/sha256/{digest_of(broken.blobs[2]).encoded}"] = b"something else"
    path = tmp_path / "a.tar"
    path.write_bytes(tar_bytes(members.items()))
    report = run_import(store, path)
    assert kinds(report) == ["digest_mismatch"] and report.findings[0].tags == ("v2",) and report.exit_code == 4
    rows = rows_of(store, "a")
    again = run_import(store, path)
    assert rows_of(store, "a") == rows and not actions(again, "import") and store.repository("a").tags() == ["v1"]


def test_layers_that_are_here_are_not_staged_again(
    store: Store, made: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(tar_bytes(members_of(made)))
    run_import(store, path, repo="a")
    taken: list[int] = []
    take = archives.Staging.take
    monkeypatch.setattr(archives, "LISTED_BODY_BYTES", 600)
    monkeypatch.setattr(archives.Staging, "take", lambda s, d, size, c: (taken.append(size), take(s, d, size, c))[1])
    big = lay_out(tmp_path / "big", Image(made.manifest, [*made.blobs]), [row(made, "v2")])
    path.write_bytes(tar_of(big))
    run_import(store, path, repo="a")
    assert all(size <= 600 for size in taken) and store.repository("a").tags() == ["1.36", "v2"]


def test_a_dry_run_of_an_archive_writes_nothing(store: Store, made: Image, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(gzipped(tar_bytes(members_of(made))))
    report = run_import(store, path, dry_run=True)
    size = len(made.manifest) + sum(map(len, made.blobs))
    assert report.summary["copied_bytes"] == size and actions(report, "import")[0]["tag"] == "1.36"
    assert left_behind(store) == []


@pytest.mark.parametrize("lost", ["manifest", "layer"])
def test_a_dry_run_of_an_archive_tells_what_is_missing(store: Store, made: Image, tmp_path: Path, lost: str) -> None:
    members = dict(members_of(made))
    del members[f"blobs/sha256/{(made.digest if lost == 'manifest' else digest_of(made.blobs[1])).encoded}"]
    path = tmp_path / "a.tar"
    path.write_bytes(tar_bytes(members.items()))
    report = run_import(store, path, dry_run=True)
    assert (
        report.exit_code == 4
        and report.errors == []
        and kinds(report) == ["missing_manifest" if lost == "manifest" else "missing_blob"]
    )


# -- hostile ------------------------------------------------------------------------------------


def hostile(store: Store, path: Path, body: bytes, reason: str, code: int = 1, **options: Any) -> None:
    """Refused with a reason, nothing left behind, nothing written outside."""
    path.write_bytes(body)
    around = sorted(str(p) for p in path.parent.iterdir())
    report = run_import(store, path, **options)
    assert report.exit_code == code, report.document()
    assert reason in report.errors[0]["reason"], report.errors
    assert store.repositories() == [] and left_behind(store) == []
    assert sorted(str(p) for p in path.parent.iterdir()) == around
    assert not Path(store.roots[0].label, STAGING).exists()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../../escape", "outside"),
        (f"x/../../{BLOB}", "outside"),
        ("..", "outside"),
        ("/etc/passwd", "outside"),
        (f"/{BLOB}", "outside"),
        (f"blobs/../{BLOB}", "outside"),
    ],
)
@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_i14_names_that_lead_outside(
    store: Store, made: Image, tmp_path: Path, name: str, reason: str, format: int
) -> None:
    hostile(store, tmp_path / "a.tar", tar_bytes([*members_of(made), (name, b"x")], format), reason)
    long = f"{'d/' * 80}../{name}"
    hostile(store, tmp_path / "a.tar", tar_bytes([*members_of(made), (long, b"x")], format), "outside")


STRANGE = [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE]


@pytest.mark.parametrize("kind", [*STRANGE, b"M", b"X"])
@pytest.mark.parametrize("name", ["blobs", BLOB, "index.json", "elsewhere"])
def test_i14_devices_and_the_like(store: Store, made: Image, tmp_path: Path, kind: bytes, name: str) -> None:
    members: list[tuple[str, bytes] | tarfile.TarInfo] = [header(name, kind), *members_of(made)]
    hostile(store, tmp_path / "a.tar", tar_bytes(members), "is a device")


@pytest.mark.parametrize("name", ["index.json", "oci-layout", "blob"])
def test_i14_members_that_come_twice(store: Store, made: Image, tmp_path: Path, name: str) -> None:
    members = members_of(made)
    again = next(m for m in members if m[0] == name or (name == "blob" and m[0].startswith("blobs")))
    hostile(store, tmp_path / "a.tar", tar_bytes([*members, (f"./{again[0]}", again[1])]), "twice")


def test_i14_sparse_members(store: Store, made: Image, tmp_path: Path) -> None:
    old = header(BLOB, tarfile.GNUTYPE_SPARSE)
    hostile(store, tmp_path / "a.tar", tar_bytes([*members_of(made), old]), "sparse")
    sparse = {"GNU.sparse.major": "1", "GNU.sparse.realsize": "9" * 15}
    pax = header("GNUSparseFile.0/x", tarfile.REGTYPE, pax_headers=sparse)
    hostile(store, tmp_path / "a.tar", tar_bytes([*members_of(made), pax]), "sparse")


def test_i14_a_member_that_lies_about_its_size(store: Store, made: Image, tmp_path: Path) -> None:
    giant = header(BLOB, tarfile.REGTYPE, size=1 << 50)
    hostile(
        store, tmp_path / "a.tar", tar_bytes([*members_of(made), giant], tarfile.GNU_FORMAT)[:-10240], "cut short", 4
    )
    body = bytearray(tar_bytes([header(BLOB, tarfile.REGTYPE), *members_of(made)], tarfile.GNU_FORMAT))
    body[124:136] = b"\xff" * 12  # minus one in base 256
    body[148:156] = b" " * 8
    body[148:156] = b"%06o\0 " % sum(body[:512])
    hostile(store, tmp_path / "a.tar", bytes(body), "bytes")
    pax = header(BLOB, tarfile.REGTYPE, pax_headers={"size": "-5"})
    hostile(store, tmp_path / "a.tar", tar_bytes([pax, *members_of(made)]), "-5")


def test_i14_a_header_of_a_gigabyte_is_not_read_into_memory(store: Store, tmp_path: Path) -> None:
    for kind in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
        giant = header("x", kind, size=1 << 30)
        hostile(store, tmp_path / "a.tar", tar_bytes([giant], tarfile.GNU_FORMAT), "extended header")


@pytest.mark.parametrize(
    "records",
    [
        b"99 path=x\n",
        b"x path=a\n",
        b"0 p=\n",
        b"5 a=b",
        b"-3 a=b\n",
        b"nothing",
        b"10 path=a\nnothing-more",
        b"10 path=a\n 5",
        b"10 path=a\n5",
    ],
)
def test_i14_damaged_extended_headers(store: Store, made: Image, tmp_path: Path, records: bytes) -> None:
    info = header("x", tarfile.XHDTYPE, size=len(records))
    body = info.tobuf(tarfile.USTAR_FORMAT) + records.ljust(512, b"\0") + tar_bytes(members_of(made))
    hostile(store, tmp_path / "a.tar", body, "extended header")


def test_i14_each_byte_of_an_extended_header_is_looked_at_once() -> None:
    """A mebibyte of the shortest records: what is left is not copied for each of them."""

    class Counted(bytes):
        copied = 0

        def __getitem__(self, key: Any) -> Any:
            found = super().__getitem__(key)
            Counted.copied += len(found) if isinstance(found, bytes) else 1
            return Counted(found) if isinstance(found, bytes) else found

        def partition(self, separator: Any) -> Any:
            Counted.copied += len(self)
            return tuple(map(Counted, super().partition(separator)))

    body = Counted(b"3 \n" * 5000 + b"14 path=a/b/c\n" + b"10 size=7\n")
    empty = tar.Tar(tar.TarBytes(io.BytesIO(), "a"))
    assert empty._records(body) == {"path": "a/b/c", "size": "7"}
    assert Counted.copied < 20 * len(body)


def test_i14_one_name_for_all_members(store: Store, made: Image, tmp_path: Path) -> None:
    records = b"17 path=../../..\n"
    info = header("x", tarfile.XGLTYPE, size=len(records))
    body = info.tobuf(tarfile.USTAR_FORMAT) + records.ljust(512, b"\0") + tar_bytes(members_of(made))
    hostile(store, tmp_path / "a.tar", body, "for all members")


def test_i14_i13_a_bomb_is_stopped_early_and_in_little_memory(
    store: Store, made: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar, "BOMB_FLOOR_BYTES", 16 << 20)
    packer = zlib.compressobj(9, wbits=31)
    zeros, parts = bytes(1 << 20), [packer.compress(tar_bytes(members_of(made))[:-10240])]
    info = header(BLOB, tarfile.REGTYPE, size=256 << 20)
    parts += [packer.compress(info.tobuf(tarfile.GNU_FORMAT))] + [packer.compress(zeros) for _ in range(256)]
    tracemalloc.start()
    hostile(store, tmp_path / "a.tar.gz", b"".join([*parts, packer.flush()]), "of one")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


def test_i14_too_many_members(store: Store, made: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar, "MOST_MEMBERS", 100)
    members = [(f"junk/{number}", b"") for number in range(200)]
    hostile(store, tmp_path / "a.tar", tar_bytes([*members_of(made), *members]), "100 members")


def test_i14_an_index_too_large_for_memory(
    store: Store, made: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(members.LIMITS, "index.json", 100)
    hostile(store, tmp_path / "a.tar", tar_bytes(members_of(made)), "index.json has")


@pytest.mark.parametrize(
    ("name", "body", "reason"),
    [
        ("oci-layout", b'{"imageLayoutVersion":"9.9.9"}', "9.9.9"),
        ("oci-layout", b"[]", "oci-layout"),
        ("oci-layout", b" " * 5000, "4096"),
        ("index.json", b'{"schemaVersion": 2, "manif', "index.json"),
        ("index.json", b"[" * 100_000, "index.json"),
        ("oci-layout", None, "oci-layout is missing"),
        ("index.json", None, "index.json is missing"),
    ],
)
def test_layouts_that_are_none(
    store: Store, made: Image, tmp_path: Path, name: str, body: bytes | None, reason: str
) -> None:
    members = [m for m in members_of(made) if m[0] != name] + ([(name, body)] if body is not None else [])
    hostile(store, tmp_path / "a.tar", tar_bytes(members), reason)


@pytest.mark.parametrize("pack", [bytes, gzipped, zstandard])
@pytest.mark.parametrize("at", [0.1, 0.5, 0.79])
def test_cut_archives(store: Store, made: Image, tmp_path: Path, pack: Any, at: float) -> None:
    body = pack(tar_bytes([*members_of(made), ("junk", os.urandom(30_000))][::-1]))
    hostile(store, tmp_path / "a.tar", body[: int(len(body) * at)], "cut short", 4)


def test_an_archive_that_is_cut_between_two_members(store: Store, made: Image, tmp_path: Path) -> None:
    """What is whole comes, but it is not all, so the exit code is 4."""
    body, path = tar_bytes([*members_of(made), ("junk", b"x")]), tmp_path / "a.tar"
    path.write_bytes(body[: body.index(b"junk")])
    for dry_run in (True, False):
        report = run_import(store, path, dry_run=dry_run)
        assert report.exit_code == 4 and kinds(report) == ["invalid_layout"]
        assert "cut between two members" in report.findings[0].reason
    assert pulls(store, "a", made, "1.36")
    hostile(local_store(tmp_path / "other"), path, body[: body.index(b"index.json")], "cut short", 4)


@pytest.mark.parametrize("pack", [bytes, gzipped])
def test_an_archive_that_follows_another_is_not_lost_in_silence(
    store: Store, made: Image, tmp_path: Path, pack: Any
) -> None:
    """As `cat` makes of two: tar reads the first one only."""
    path = tmp_path / "a.tar"
    path.write_bytes(pack(tar_bytes(members_of(made))) + pack(tar_bytes(members_of(image("other")))))
    for dry_run in (True, False):
        report = run_import(store, path, dry_run=dry_run)
        assert report.exit_code == 4 and kinds(report) == ["invalid_layout"]
        assert "another archive follows the end" in report.findings[0].reason
    assert pulls(store, "a", made, "1.36")


@pytest.mark.parametrize("rest", [bytes(1 << 20), b"a signature", bytes(5120) + b"x" * 512])
def test_what_else_follows_an_archive_is_passed_over(store: Store, made: Image, tmp_path: Path, rest: bytes) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(tar_bytes(members_of(made)) + rest)
    report = run_import(store, path)
    assert (report.exit_code, report.findings) == (0, [])


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "index.json"), (b"hello", "no tar"), (os.urandom(4096) + b"x", ""), (b"BZh91AY", "bzip2"),
        (b"\xfd7zXZ\x00", "xz"), (b"PK\x03\x04", "zip"),
        (b"\x1f\x8b" + bytes(50), "damaged"), (bytes(2048), "index.json"),
    ],
)  # fmt: skip
def test_what_is_no_archive(store: Store, tmp_path: Path, body: bytes, reason: str) -> None:
    is_whole = reason in ("bzip2", "xz", "zip") or body == bytes(2048)  # a tar without members
    hostile(store, tmp_path / "a.tar", body, reason, 1 if is_whole else 4)


def test_names_that_are_no_digests_are_passed_over(store: Store, made: Image, tmp_path: Path) -> None:
    strange = [(name, b"x") for name in ("blobs/sha256/short", f"blobs/md5/{'a' * 32}", "blobs/sha256/AA", "README")]
    path = tmp_path / "a.tar"
    path.write_bytes(tar_bytes([*strange, *members_of(made)]))
    assert run_import(store, path).findings == []
    assert not any("short" in name or "md5" in name for name in left_behind(store))


def test_the_same_steps_on_a_store_in_memory(made: Image, tmp_path: Path) -> None:
    """What the simulation runs: all of the store's files are touched through its driver."""
    store = store_over(MemoryDriver())
    path = tmp_path / "a.tar"
    path.write_bytes(tar_bytes(members_of(made)))
    assert run_import(store, path).exit_code == 0 and pulls(store, "a", made, "1.36")
    assert run_import(store, lay_out(tmp_path / "b", made)).exit_code == 0 and pulls(store, "b", made, made.digest)
