"""zotctl: an OCI registry on plain image layouts, and the tools that keep it."""

__version__ = "0.1.0"
