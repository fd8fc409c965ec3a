"""What follows from an examination: findings, with the tags that are affected; marks, repairs.

Nothing is done to a name before it was looked at again, and a name is told of once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zotctl.errors import LayoutInvalid, NotFound, PermissionRefused, StorageError
from zotctl.jobs.check.damage import HashResult, Inspector, Looked, judge
from zotctl.jobs.check.repair import Repair
from zotctl.jobs.check.repository import (
    GraphView,
    RepositoryCheck,
    Trouble,
    layout_trouble,
    path_of,
    temporaries,
    view_of,
)
from zotctl.jobs.check.scrub_state import FirstSeen
from zotctl.jobs.report import Finding, Kind
from zotctl.jobs.run import Run
from zotctl.oci.digest import check_digest
from zotctl.storage import keys
from zotctl.storage.file_identity import HeldFile
from zotctl.storage.root import Root

KEPT_ASIDE = 7 * 86400.0
"""Seconds that damaged content is kept for a look when no name leads to it any more."""


class Outcome:
    """Of one run. `repair` None: damage is marked only. `quick`: nothing was hashed, so nothing is marked."""

    def __init__(
        self, run: Run, inspector: Inspector, first_seen: Mapping[str, FirstSeen], repair: Repair | None, *, quick: bool
    ) -> None:
        self._run, self._inspector, self._first_seen = run, inspector, first_seen
        self._repair, self._quick = repair, quick
        self._told: set[tuple[str, str]] = set()

    def of_whole(self, repo: RepositoryCheck) -> bool:
        """Everything about a repository of which each blob was looked at. False: some could not be."""
        errors = len(self._run.report.errors)
        view = self._view(repo)
        if view is not None:
            self._look_closer(repo, view)
            for trouble in repo.troubles(view, hashed=not self._quick):
                self._tell(repo, trouble, view)
        self._damage(repo, view)
        for trouble in repo.leftovers(self._run.clock.now()):
            self._tell(repo, trouble, None)
        self._run.add("repositories")
        self._first_seen[repo.root.label].gone_through(repo.name)
        return len(self._run.report.errors) == errors

    def of_part(self, repo: RepositoryCheck) -> None:
        """The damage found so far in a repository that could not be gone through as a whole."""
        if repo.damaged:
            self._damage(repo, self._view(repo))

    def of_left(self, root: Root, name: str, damaged: Sequence[HashResult]) -> None:
        """Damage that `dedupe` leaves where it is, in one repository: told in each run, and counted."""
        if damaged:
            self._run.add("left_damaged", len(damaged))
            self.of_part(RepositoryCheck(root, name, damaged=list(damaged)))

    def of_hidden(self, root: Root) -> None:
        """What a dead process left in our own directory; damaged content that is not needed any more goes."""
        now = self._run.clock.now()
        for trouble in temporaries(root, now):
            self._report(root, "", trouble.digest, trouble.kind, trouble.reason, None, {"path": trouble.path})
        self._first_seen[root.label].gone_through("")
        if not (self._run.dry_run or root.read_only):
            self._run.add("freed_bytes", root.maintenance.sweep(now - KEPT_ASIDE))

    def _view(self, repo: RepositoryCheck) -> GraphView | None:
        """What its manifests say. A layout that is not valid is told, and its blobs are no worse for it."""
        try:
            return view_of(repo.root, repo.name)
        except (LayoutInvalid, NotFound) as error:
            repo.root.require()
            if (trouble := layout_trouble(repo.root, repo.name, error)) is not None:
                self._tell(repo, trouble, None)
        except StorageError as error:
            self._run.error(repo.name, error, repo.root)
        return None

    def _view_of_other(self, root: Root, name: str) -> GraphView | None:
        """Of a repository that has its own turn, in which it is told if it is not valid."""
        try:
            return view_of(root, name)
        except (LayoutInvalid, NotFound):
            return None

    def _look_closer(self, repo: RepositoryCheck, view: GraphView) -> None:
        """Hash manifests that could not be read, though an earlier run found them good."""
        for digest in repo.unclear(view):
            result = self._inspector.blob(repo.root, repo.name, digest)
            if not result.good and not result.gone:
                repo.damaged.append(result)

    # -- the layout, references -----------------------------------------------------------------

    def _tell(self, repo: RepositoryCheck, trouble: Trouble, view: GraphView | None) -> None:
        details: dict[str, Any] = {"path": trouble.path}
        if trouble.wanted >= 0:
            details |= {"expected_bytes": trouble.wanted, "found_bytes": trouble.had}
        missing = trouble.kind in ("missing_blob", "missing_manifest")
        action = "repaired" if missing and self._bring_back(repo, trouble) else "none"
        self._report(repo.root, repo.name, trouble.digest, trouble.kind, trouble.reason, view, details, action)

    def _bring_back(self, repo: RepositoryCheck, trouble: Trouble) -> bool:
        if self._repair is None or trouble.digest is None or not self._may_write(repo):
            return False
        digest, manifest = check_digest(trouble.digest), trouble.kind == "missing_manifest"
        try:
            return self._repair.bring_back(repo.root, repo.name, digest, manifest)
        except StorageError as error:
            self._run.error(repo.name, error, repo.root)
            return False

    # -- content --------------------------------------------------------------------------------

    def _damage(self, repo: RepositoryCheck, view: GraphView | None) -> None:
        for result in repo.damaged:
            with self._inspector.again(repo.root, repo.name, result) as looked:
                if not (looked.result.good or looked.result.gone):
                    self._deal_with(repo, looked, view)

    def _deal_with(self, repo: RepositoryCheck, looked: Looked, view: GraphView | None) -> None:
        """Mark or heal, and tell it; of the other repositories that were healed with it, too."""
        action, healed, result = "none", list[str](), looked.result
        try:
            if self._may_write(repo) and looked.held is not None:
                action, healed = self._act(repo, result, looked.held, view)
        except StorageError as error:
            self._run.error(repo.name, error, repo.root)
        self._report_damage(repo.root, repo.name, result, view, action)
        for other in healed:
            if other != repo.name:
                with self._run.guarded(other, repo.root):
                    self._report_damage(repo.root, other, result, self._view_of_other(repo.root, other), action)

    def _act(
        self, repo: RepositoryCheck, result: HashResult, held: HeldFile, view: GraphView | None
    ) -> tuple[str, list[str]]:
        if isinstance(result.error, PermissionRefused):
            return "none", []  # that says nothing of the bytes, and another user may well read them
        if self._repair is not None:
            manifest = view is not None and view.is_manifest(result.digest)
            healed = self._repair.heal(repo.root, repo.name, result.digest, held, manifest)
            if repo.name in healed:
                return "repaired", healed
        # What can't be read now, or only has a wrong size, may be good yet.
        if result.found is not None and repo.root.maintenance.mark(repo.name, result.digest, held):
            return "marked", []
        return "none", []

    def _may_write(self, repo: RepositoryCheck) -> bool:
        return not self._run.dry_run and repo.root.owns(repo.name)

    # -- telling --------------------------------------------------------------------------------

    def _report_damage(self, root: Root, name: str, result: HashResult, view: GraphView | None, action: str) -> None:
        kind, reason, details = judge(result, view.sizes(result.digest) if view else set())
        details |= {"path": path_of(root, keys.blob(name, result.digest))}
        self._report(root, name, result.digest, kind, reason, view, details, action)

    def _report(
        self, root: Root, name: str, digest: str | None, kind: Kind, reason: str, view: GraphView | None,
        details: dict[str, Any], action: str = "none",
    ) -> None:  # fmt: skip
        path = details["path"]
        if (path, kind) in self._told:
            return
        self._told.add((path, kind))
        if kind == "unreadable":
            self._run.report.codes.append(5)
        details["first_seen_at"] = self._first_seen[root.label].of(name, digest, kind, path)
        tags = view.affected.tags(digest) if view is not None and digest is not None else ()
        self._run.finding(Finding(name, digest, kind, reason, tags, action, details))
        self._run.add("findings")
        if action != "none":
            self._run.add(action)
