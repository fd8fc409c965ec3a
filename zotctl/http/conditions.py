"""Conditions on a push: RFC 9110, section 13. The commit evaluates them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zotctl.errors import PreconditionFailed, quoted
from zotctl.http.ranges import names_etag
from zotctl.storage import Condition

if TYPE_CHECKING:
    from multidict import CIMultiDictProxy

    from zotctl.storage.index import Index


def of_push(headers: CIMultiDictProxy[str], reference: str) -> Condition | None:
    """The condition of If-Match and If-None-Match on the manifest at `reference`; None: no condition.

    It raises PreconditionFailed. Other tags of the same push are no target of it, and are not looked at.
    """
    wanted, unwanted = (", ".join(headers.getall(name, ())) for name in ("If-Match", "If-None-Match"))
    if "If-Match" not in headers and "If-None-Match" not in headers:
        return None

    def check(index: Index) -> None:
        row = index.find(reference)
        current = row.digest if row is not None else None
        # Section 13.2.2: If-Match comes first, then If-None-Match.
        if "If-Match" in headers and not _matches(wanted, current, weak=False):
            raise _failed("If-Match", wanted, reference, current)
        if "If-None-Match" in headers and _matches(unwanted, current, weak=True):
            raise _failed("If-None-Match", unwanted, reference, current)

    return check


def _matches(header: str, current: str | None, *, weak: bool) -> bool:
    # "*": true "if the origin server has a current representation for the target resource".
    return current is not None and names_etag(header, f'"{current}"', weak=weak)


def _failed(name: str, value: str, reference: str, current: str | None) -> PreconditionFailed:
    there = f"is {current}" if current else "is not here"
    return PreconditionFailed(f"{name}: {quoted(value)} does not hold: {reference} {there}", {"current": current})
