"""What the OCI specifications define, without I/O and without a clock. Imports nothing above `zotctl.errors`."""
