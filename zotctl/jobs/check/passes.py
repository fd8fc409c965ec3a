"""How far `verify --deep --max-duration` has come in each root, so that the next run goes on: what `scrub` remembers
(`scrub_state`), kept elsewhere (`own_state`)."""

from __future__ import annotations

from zotctl.jobs.check.hashing import HashResult
from zotctl.jobs.check.own_state import OwnState
from zotctl.jobs.check.scrub_state import Checked
from zotctl.jobs.run import Run
from zotctl.oci.digest import Digest
from zotctl.storage.driver import Info
from zotctl.storage.root import Root


def note_stop(run: Run, name: str, digest: Digest) -> None:
    """Say that time was up in a blob."""
    reason = "stopped in it at --max-duration; the next run begins with it"
    run.item(action="note", repository=name, digest=digest, reason=reason)


def note_overrun(run: Run, name: str, digest: Digest) -> None:
    """Say why the run did not end in time."""
    reason = "it takes longer than --max-duration, and was read to its end"
    run.item(action="note", repository=name, digest=digest, reason=reason)


class Passes:
    """The unfinished pass over each root. `directory` None: nothing is kept. Used by one thread."""

    def __init__(self, run: Run, directory: str | None) -> None:
        self._run, self._directory = run, directory
        self._open: dict[str, tuple[Checked, OwnState]] = {}
        self._ended: set[str] = set()

    @property
    def are_kept(self) -> bool:
        """Whether the next run goes on where this one is stopped."""
        return self._directory is not None

    def _of(self, root: Root) -> Checked | None:
        if self._directory is None or root.label in self._ended:
            return None
        if root.label not in self._open:
            state = OwnState(self._directory, root.label, self._run.repos)
            checked = Checked(state, self._run.clock)
            checked.begin()
            self._open[root.label] = (checked, state)
        return self._open[root.label][0]

    def is_done(self, root: Root, name: str) -> bool:
        """Whether the repository was checked as a whole in this pass."""
        checked = self._of(root)
        return checked is not None and checked.repositories.get(name, 0) >= checked.began

    def done(self, root: Root, name: str) -> None:
        """Note that the repository was checked as a whole."""
        if (checked := self._of(root)) is not None:
            checked.note_repository(name)

    def found(self, root: Root, digest: Digest, info: Info) -> Digest | None:
        """The digest of the bytes of a blob that was read in this pass."""
        checked = self._of(root)
        return checked.found(digest, info) if checked is not None else None

    def note(self, root: Root, result: HashResult) -> None:
        """Note what was read."""
        if (checked := self._of(root)) is None or result.info is None or result.found is None:
            return
        if result.good:
            checked.note(result.digest, result.info)
        else:
            checked.note_damaged(result.digest, result.info, result.found)
        checked.save_now_and_then()

    def stopped(self, root: Root) -> list[tuple[str, Digest]]:
        """Repository and digest of the blobs in which the last run was stopped."""
        checked = self._of(root)
        return list(checked.stopped) if checked is not None else []

    def cut(self, root: Root, name: str, digest: Digest) -> None:
        """Note that time was up in a blob."""
        if (checked := self._of(root)) is not None:
            checked.stopped.append((name, digest))
            note_stop(self._run, name, digest)

    def end(self, root: Root) -> None:
        """The root was gone through: the next run begins anew."""
        if self._of(root) is not None:
            self._open.pop(root.label)[1].forget()
        self._ended.add(root.label)

    def save(self) -> None:
        """Keep what is unfinished."""
        for checked, _ in self._open.values():
            checked.save()
