"""Is it valid? A store, a layout or an archive by the specifications; nothing is written anywhere.

What scrub finds is found here by the same code in its dry run; what only a reader of the specs asks is
looked at here: rows, names, tags, modes. See also `verify_url` for registries and `probe` for storage.
"""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from zotctl.errors import DigestInvalid, LayoutInvalid, ManifestInvalid, NameInvalid, NotFound
from zotctl.jobs.report import Finding, Kind
from zotctl.jobs.run import Run
from zotctl.jobs.scrub import ScrubOptions, scrub
from zotctl.oci.descriptor import Descriptor, validate
from zotctl.oci.layout import LAYOUT_FILE
from zotctl.oci.media_types import known
from zotctl.oci.reference import parse_name
from zotctl.oci.tags import CONTAINERD_NAME, REF_NAME
from zotctl.storage import keys
from zotctl.storage.index import Index, Row
from zotctl.storage.root import Root

_descriptor = msgspec.json.Decoder(Descriptor).decode


@dataclass(frozen=True)
class VerifyOptions:
    """`deep`: hash every blob, not only compare sizes."""

    deep: bool = False


def verify(run: Run, options: VerifyOptions | None = None) -> None:
    """Look at everything in the scope of the run, which must be a dry run. Damage is a finding (exit 4)."""
    assert run.dry_run, "verify writes nothing"
    for root, name in run.repositories():
        run.check()
        with run.guarded(name):
            for finding in _Reader(root, name).findings():
                run.finding(finding)
    for finding in (*_two_roots(run), *_bad_names(run)):
        run.finding(finding)
    scrub(run, ScrubOptions(quick=not (options or VerifyOptions()).deep, measure=True))


class _Reader:
    """One repository, as a reader of image-layout.md and image-index.md sees it."""

    def __init__(self, root: Root, name: str) -> None:
        self._root, self._name = root, name

    def findings(self) -> Iterator[Finding]:
        try:
            index = self._root.protocol.read_index(self._name).index
        except (LayoutInvalid, NotFound):
            return  # the scrub says which of the two files is wrong, and how
        for position, row in enumerate(index.rows()):
            yield from self._row(position, row)
        yield from self._tags(index)
        yield from self._modes(index)

    def _finding(self, kind: Kind, reason: str, digest: str | None = None, tag: str | None = None) -> Finding:
        return Finding(self._name, digest, kind, reason, (tag,) if tag else ())

    def _row(self, position: int, row: Row) -> Iterator[Finding]:
        where = f"index.json: manifests[{position}]"
        try:
            validate(_descriptor(row.raw), where)
        except (msgspec.MsgspecError, ManifestInvalid, DigestInvalid) as error:
            yield self._finding("invalid_index", f"{where}: {error} (image-spec, descriptor.md)", row.digest)
            return
        if not known(row.media_type):
            reason = f"{where}.mediaType: {row.media_type!r} is no manifest that is known (image-spec, image-index.md)"
            yield self._finding("unknown_media_type", reason, row.digest, row.tag or row.alias)
        yield from self._ref_name(where, row)

    def _ref_name(self, where: str, row: Row) -> Iterator[Finding]:
        annotations = _descriptor(row.raw).annotations or {}
        name = annotations.get(REF_NAME) or annotations.get(CONTAINERD_NAME)
        if name and row.tag is None:
            answers = f"it answers to {row.alias}" if row.alias else "it answers to its digest only"
            reason = f"{where}: {name!r} is not a tag (distribution-spec, Pulling manifests); {answers}"
            yield self._finding("bad_ref_name", reason, row.digest)

    def _tags(self, index: Index) -> Iterator[Finding]:
        for tag in index.duplicate_tags():
            row = index.find(tag)
            reason = f"index.json gives the tag {tag} twice; the last row counts"
            yield self._finding("duplicate_tag", reason, row.digest if row else None, tag)

    def _modes(self, index: Index) -> Iterator[Finding]:
        """What its own owner can't read, and what anybody may overwrite."""
        names = [keys.layout(self._name), keys.index(self._name), keys.blobs(self._name)]
        names += [keys.blob(self._name, row.digest) for row in index.rows() if row.digest]
        for key in dict.fromkeys(names):
            info = self._root.protocol.site.stat(key)
            if info is None or info.is_link:
                continue
            if not info.mode & stat.S_IRUSR:
                yield self._finding("mode", f"{key} can't be read by its owner (mode {stat.S_IMODE(info.mode):o})")
            elif info.mode & stat.S_IWOTH:
                yield self._finding("mode", f"{key} can be written by anybody (mode {stat.S_IMODE(info.mode):o})")


def _two_roots(run: Run) -> Iterator[Finding]:
    """The first root wins; what the other holds under that name nobody sees."""
    if len(run.roots) < 2:
        return
    counted = Counter(name for _, name in run.repositories())
    for name in sorted(name for name, times in counted.items() if times > 1):
        roots = [root.label for root in run.roots if _is_layout(root, name)]
        yield Finding(name, None, "two_roots", f"is in {' and in '.join(roots)}; only {roots[0]} is served")


def _is_layout(root: Root, name: str) -> bool:
    return root.protocol.site.stat(keys.layout(name)) is not None


def _bad_names(run: Run) -> Iterator[Finding]:
    """Layouts in directories whose path is no name of a repository: nobody can pull from these."""
    for root in run.roots:
        yield from _below(root, "", depth=4)


def _below(root: Root, directory: str, depth: int) -> Iterator[Finding]:
    for entry in root.driver.scan(directory):
        inside = f"{directory}/{entry.name}".lstrip("/")
        if not entry.is_dir or entry.name == keys.HIDDEN or entry.name == "blobs":
            continue
        if not _is_name(inside) and _is_layout(root, inside):
            reason = f"{inside} holds a {LAYOUT_FILE}, and is no name (distribution-spec, Pulling manifests)"
            yield Finding(inside, None, "bad_name", reason)
        if depth:
            with suppress(NotFound):
                yield from _below(root, inside, depth - 1)


def _is_name(text: str) -> bool:
    try:
        parse_name(text)
    except NameInvalid:
        return False
    return True
