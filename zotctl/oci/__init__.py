"""The nouns of the OCI specifications, pure: no I/O, no clock, nothing above `zotctl.errors`."""
