"""Where `verify --deep --max-duration` keeps its place: a file of the user's own, since it writes to no store."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256

from zotctl.errors import NotFound
from zotctl.jobs.files import locked, replace_file

log = logging.getLogger("zotctl.jobs")


class OwnState:
    """A file in `directory` about one root, and one choice of its repositories. Without it a run begins anew, so a
    failure is only a warning."""

    def __init__(self, directory: str, root: str, repos: Sequence[str]) -> None:
        name = sha256("\n".join([root, *sorted(repos)]).encode("utf-8", "surrogateescape")).hexdigest()[:32]
        self._directory, self._path = directory, os.path.join(directory, f"verify-{name}")

    def read(self, most_bytes: int) -> bytes:
        """What was written last. Raises NotFound."""
        try:
            with open(self._path, "rb") as file:
                return file.read(most_bytes)
        except OSError as error:
            raise NotFound(f"{self._path}: {error.strerror}") from error

    def write(self, parts: Sequence[bytes]) -> None:
        """Replace the file, which no other user may read."""
        try:
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            with locked(self._directory):
                replace_file(self._path, b"".join(parts), 0o600)
        except OSError as error:
            log.warning("%s: %s: the next run begins anew; set XDG_STATE_HOME", self._path, error.strerror)

    def forget(self) -> None:
        """Remove the file: the next run begins anew."""
        with suppress(OSError):
            os.unlink(self._path)
