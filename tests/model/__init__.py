"""A model of the protocol of a bucket: small processes, one step a request, and every interleaving.

    python -m tests.model                    # the protocol of a bucket whole, and with one safeguard off in turn
    python -m tests.model recheck expiry     # only with these off: prints the shortest schedule that loses data

What the product does is simulated with its own code (`tests/simulation`); a model comes before a protocol is changed.
If it can't show a schedule that fails without a step, the step may not be needed.
"""
