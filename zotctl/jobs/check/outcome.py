"""Acts on the results of a check: reports findings, with the tags that are affected, marks damage, and repairs it.

A file is checked again before anything is done to it, and each finding about it is reported once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from zotctl.errors import LayoutInvalid, NotFound, PermissionRefused, StorageError
from zotctl.jobs.check.hashing import HashResult, Inspector, Looked
from zotctl.jobs.check.repository import GraphView, StoredCheck, temporaries, view_of
from zotctl.jobs.check.scrub_state import FirstSeen
from zotctl.jobs.finding import Finding
from zotctl.jobs.run import Run
from zotctl.oci.digest import check_digest
from zotctl.storage.file_identity import HeldFile
from zotctl.storage.root import Root

if TYPE_CHECKING:
    from zotctl.jobs.check.repair import Repair

DAMAGED_KEPT_S = 7 * 86400.0
"""How long damaged content is kept for inspection after it was healed."""


class Outcome:
    """The consequences of the checks of one run. `repair` None: damage is only marked. `quick`: nothing was hashed, so
    nothing is marked. Used by one thread."""

    def __init__(
        self, run: Run, inspector: Inspector, first_seen: Mapping[str, FirstSeen], repair: Repair | None, *, quick: bool
    ) -> None:
        self._run, self._inspector, self._first_seen = run, inspector, first_seen
        self._repair, self._quick = repair, quick
        self._told: set[tuple[str, str]] = set()

    def report_repository(self, check: StoredCheck) -> bool:
        """Report everything about a repository whose blobs were all checked, and act on it. False: there were
        errors."""
        errors = len(self._run.report.errors)
        view = self._view(check)
        if view is not None:
            for digest in check.unclear(view):  # though an earlier run found them good
                result = self._inspector.blob(check.root, check.name, digest)
                if not result.good and not result.gone:
                    check.damaged.append(result)
            for finding in check.findings(view, hashed=not self._quick):
                self._tell(check.root, self._brought_back(check, finding))
        self._damage(check, view)
        for finding in check.leftovers():
            self._tell(check.root, finding)
        self._run.add("repositories")
        self._first_seen[check.root.label].gone_through(check.name)
        return len(self._run.report.errors) == errors

    def report_damage_so_far(self, check: StoredCheck) -> None:
        """Report and mark the damage found so far in a repository that was not checked as a whole."""
        if check.damaged:
            self._damage(check, self._view(check))

    def report_left(self, root: Root, name: str, damaged: Sequence[HashResult]) -> None:
        """Report damage that `dedupe` leaves where it is in a repository, and count it."""
        if damaged:
            self._run.add("left_damaged", len(damaged))
            check = StoredCheck(root, name)
            check.damaged += damaged
            self.report_damage_so_far(check)

    def report_hidden(self, root: Root) -> None:
        """Report what dead processes left in the hidden directory, and delete damaged content that was healed long
        ago."""
        now = root.protocol.now()
        for finding in temporaries(root, now):
            self._tell(root, finding)
        self._first_seen[root.label].gone_through("")
        if not (self._run.dry_run or root.read_only):
            self._run.add("freed_bytes", root.maintenance.sweep(now - DAMAGED_KEPT_S))

    def _view(self, check: StoredCheck) -> GraphView | None:
        """What the manifests of a repository say. None: its layout is not valid, which is reported."""
        try:
            return view_of(check.root, check.name)
        except (LayoutInvalid, NotFound) as error:
            check.root.require()
            if (finding := check.layout_finding(error)) is not None:
                self._tell(check.root, finding)
        except StorageError as error:
            self._run.error(check.name, error, check.root)
        return None

    def _brought_back(self, check: StoredCheck, finding: Finding) -> Finding:
        """With `--repair`, publish what is missing, as a push would. The finding, with what was done."""
        missing = finding.kind in ("missing_blob", "missing_manifest")
        if not missing or self._repair is None or finding.digest is None or not self._may_write(check):
            return finding
        digest, manifest = check_digest(finding.digest), finding.kind == "missing_manifest"
        try:
            done = self._repair.bring_back(check.root, check.name, digest, manifest)
        except StorageError as error:
            self._run.error(check.name, error, check.root)
            return finding
        return replace(finding, action="repaired") if done else finding

    # -- content --------------------------------------------------------------------------------

    def _damage(self, check: StoredCheck, view: GraphView | None) -> None:
        for result in check.damaged:
            with self._inspector.again(check.root, check.name, result) as looked:
                if not (looked.result.good or looked.result.gone):
                    self._deal_with(check, looked, view)

    def _deal_with(self, check: StoredCheck, looked: Looked, view: GraphView | None) -> None:
        """Mark or heal a damaged blob, and report it, also for the other repositories that were healed with it."""
        root, action, healed, result = check.root, "none", list[str](), looked.result
        try:
            if self._may_write(check) and looked.held is not None:
                action, healed = self._act(check, result, looked.held, view)
        except StorageError as error:
            self._run.error(check.name, error, root)
        self._tell(root, replace(check.damage(result, view), action=action))
        for name in healed:
            if name == check.name:
                continue
            with self._run.guarded(name, root):
                other, its = StoredCheck(root, name), None
                with suppress(LayoutInvalid, NotFound):  # reported when that repository is checked
                    its = view_of(root, name)
                self._tell(root, replace(other.damage(result, its), action=action))

    def _act(
        self, check: StoredCheck, result: HashResult, held: HeldFile, view: GraphView | None
    ) -> tuple[str, list[str]]:
        """Repair or mark a damaged blob: what was done, and the names of the repositories that were healed."""
        root, name, digest = check.root, check.name, result.digest
        if isinstance(result.error, PermissionRefused):
            return "none", []  # that says nothing of the bytes, and another user may well read them
        if self._repair is not None:
            manifest = view is not None and view.is_manifest(digest)
            healed = self._repair.heal(root, name, digest, held, manifest)
            if name in healed:
                return "repaired", healed
        # What can't be read now, or only has a wrong size, may still be good.
        if result.found is not None and root.maintenance.mark(name, digest, held):
            return "marked", []
        return "none", []

    def _may_write(self, check: StoredCheck) -> bool:
        return not self._run.dry_run and check.root.owns(check.name)

    # -- telling --------------------------------------------------------------------------------

    def _tell(self, root: Root, finding: Finding) -> None:
        """Report a finding once for each file and kind, with the time when it was first seen."""
        path, kind = finding.details["path"], finding.kind
        if (path, kind) in self._told:
            return
        self._told.add((path, kind))
        if kind == "unreadable":
            self._run.report.codes.append(5)
        seen = self._first_seen[root.label].of(finding.repository, finding.digest, kind, path)
        self._run.finding(replace(finding, details=finding.details | {"first_seen_at": seen}))
        self._run.add("findings")
        if finding.action != "none":
            self._run.add(finding.action)
