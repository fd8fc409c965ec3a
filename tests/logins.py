"""Users of a registry under test: each name is its own password."""

from __future__ import annotations

from pathlib import Path

import bcrypt


def hashed(password: str, prefix: str = "2b", cost: int = 4) -> str:
    """As htpasswd -B writes it; at the lowest cost, since nothing is kept from anyone here."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode().replace("$2b$", f"${prefix}$")


def users_file(home: Path, *names: str) -> Path:
    """A file for `http.auth.htpasswd`."""
    path = home / "users"
    path.write_text("".join(f"{name}:{hashed(name)}\n" for name in names))
    return path
