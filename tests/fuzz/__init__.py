"""Fuzzed inputs for whatever reads bytes of others: `python -m tests.fuzz` (CONTRIBUTING.md)."""
