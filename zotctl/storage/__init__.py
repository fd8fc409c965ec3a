"""The storage module: everything that serves, collects, scrubs or imports works on this."""

from zotctl.storage.opening import first_link, open_store, preload, remember_roots
from zotctl.storage.protocol import Sighting, UploadSession, WouldBlock
from zotctl.storage.quota import Quotas
from zotctl.storage.repository import Condition, Repository, StoredManifest, TagsBefore
from zotctl.storage.store import Store

__all__ = [
    "Condition", "Quotas", "Repository", "Sighting", "Store", "StoredManifest", "TagsBefore", "UploadSession",
    "WouldBlock", "first_link", "open_store", "preload", "remember_roots",
]  # fmt: skip
