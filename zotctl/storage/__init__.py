"""The storage module: everything that serves, collects, scrubs or imports works on this."""

from zotctl.storage.opening import open_store
from zotctl.storage.protocol import WouldBlock
from zotctl.storage.repository import Repository, StoredManifest, Upload
from zotctl.storage.store import Store

__all__ = ["Repository", "Store", "StoredManifest", "Upload", "WouldBlock", "open_store"]
