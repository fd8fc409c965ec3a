"""Names of our own that lead to something else, or to a file that another store has, too."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.stores import push_image, store_over
from zotctl.config import RootConfig, StorageConfig
from zotctl.errors import ConfigError, Damaged
from zotctl.storage import keys, open_store
from zotctl.storage.clock import Clock
from zotctl.storage.local.driver import LocalDriver
from zotctl.storage.local.opening import open_root

FILES, DIRECTORIES = (keys.LOCK, keys.VERSION), (keys.TMP, keys.LEASES, keys.TRASH, keys.DAMAGED)
OTHERS: dict[str, Callable[[Path], None]] = {
    "directory": lambda path: path.mkdir(),
    "link": lambda path: path.symlink_to("/nowhere"),
    "fifo": lambda path: os.mkfifo(path),
    "file": lambda path: path.touch(),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.mkdir()
    push_image(store_over(LocalDriver(str(path))), "a", "v1")
    open_root(RootConfig(path=str(path)), Clock()).protocol.close()
    return path


def put(path: Path, kind: str) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    OTHERS[kind](path)


@pytest.mark.parametrize(
    ("key", "kind"),
    [*((key, kind) for key in FILES for kind in ("directory", "link", "fifo")),
     *((key, kind) for key in DIRECTORIES for kind in ("file", "link", "fifo"))],
)  # fmt: skip
def test_what_is_in_the_way_is_named(root: Path, key: str, kind: str) -> None:
    put(root / key, kind)
    with pytest.raises(Damaged, match=f"{key}: something .* in the way"):
        open_root(RootConfig(path=str(root)), Clock())


@pytest.mark.parametrize("key", DIRECTORIES)
def test_a_link_to_a_directory_is_not_in_the_way(root: Path, key: str) -> None:
    """Someone gave it a disk of its own."""
    elsewhere = root.parent / "elsewhere"
    (root / key).rename(elsewhere) if (root / key).exists() else elsewhere.mkdir()
    (root / key).symlink_to(elsewhere)
    open_root(RootConfig(path=str(root)), Clock()).protocol.close()


@pytest.mark.parametrize("kind", ["directory", "link"])
def test_what_has_the_name_of_a_lease_is_named(root: Path, kind: str) -> None:
    put(root / keys.lease("gc"), kind)
    opened = open_root(RootConfig(path=str(root)), Clock())
    with pytest.raises(Damaged, match=r"leases/gc: something .* in the way"), opened.maintenance.lease("gc"):
        pass


def test_a_root_that_is_given_twice_is_named_as_it_was_given(root: Path) -> None:
    link = root.parent / "link"
    link.symlink_to(root)
    with pytest.raises(ConfigError) as error:
        open_store(StorageConfig(roots=(RootConfig(path=str(root)), RootConfig(path=str(link)))))
    assert f"{root} and {link} are nested or the same" in error.value.message


def test_a_store_that_was_copied_by_links_has_a_history_of_its_own(root: Path) -> None:
    other = root.parent / "other"
    subprocess.run(["cp", "-al", str(root), str(other)], check=True)
    before = (other / keys.history("a")).read_bytes()
    push_image(store_over(LocalDriver(str(root))), "a", "v2", seed="second")
    assert (other / keys.history("a")).read_bytes() == before
    assert (root / keys.history("a")).read_bytes().startswith(before), "what was known is still known"
    assert b"v2" in (root / keys.history("a")).read_bytes()
