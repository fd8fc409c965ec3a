"""Jobs on a bucket, by the steps of docs/design/bucket.md.

gc           C1 for a whole root: each repository, then the pool and the reservations, then leftovers
pool         C1 for what several repositories share
eligibility  since when something is unreachable, and whether it may be deleted
deletion     C2 to C7 for one batch
dedupe       into the pool, and back
jobs         what `jobs.stores` asks of a root, `gc --explain` and `verify --probe` with it
"""
