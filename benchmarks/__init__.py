"""Measurements of `zotctl serve` beside its peers. They print ratios and never fail on a time."""
