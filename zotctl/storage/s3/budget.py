"""How much memory all uploads of a process may hold."""

from __future__ import annotations


class Budget:
    """Bytes."""
