"""A store in a bucket: `protocol.py` has its verbs, the other files its parts, `objects/` the seam below them."""
