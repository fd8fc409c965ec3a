"""Collection on a bucket, by the steps of docs/design/bucket.md.

collector   C1 for a whole root: each repository, then the pool and the reservations
pool        C1 for what several repositories share
seen        since when something is known to be unreachable
deletion    C2 to C7 for one batch
leftovers   what crashes leave behind
fate        what `--explain` says
"""
