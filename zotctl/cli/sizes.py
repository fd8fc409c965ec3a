"""Sizes as people read them."""

from __future__ import annotations


def bytes_text(count: int) -> str:
    """`1.0 MiB`, `12 B`"""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
