"""An archive is verified by importing it into a store that is thrown away: what an import refuses or finds
is what is wrong with it.
"""

from __future__ import annotations

import tempfile

from zotctl.config import RootConfig, StorageConfig
from zotctl.jobs.import_plan import ImportOptions
from zotctl.jobs.importer import import_layout
from zotctl.jobs.run import Run
from zotctl.jobs.verify import VerifyOptions, verify
from zotctl.storage import open_store


def verify_archive(run: Run, path: str) -> None:
    """Every byte is hashed on the way. Needs room for the content in the directory for temporary files."""
    with tempfile.TemporaryDirectory(prefix="zotctl-verify-") as directory:
        store = open_store(StorageConfig(roots=(RootConfig(path=directory, create=True, gc=False),)))
        try:
            taken = Run("import-layout", store)
            report = taken.finish(lambda: import_layout(taken, path, ImportOptions(repo="archive", all=True)))
            looked = Run("verify", store, dry_run=True)
            looked.finish(lambda: verify(looked, VerifyOptions()))
        finally:
            store.close()
    for finding in (*report.findings, *looked.report.findings):
        run.finding(finding)
    for error in report.errors:
        run.report.errors.append(error)
    run.report.codes.extend(report.codes)
    run.report.summary.update(looked.report.summary | {"imported": report.summary.get("imported", 0)})
