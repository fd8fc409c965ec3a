"""Models of the two protocols: small processes, one step a request or a system call, and every interleaving.

    python -m tests.model                    # both protocols whole, and with one safeguard off in turn
    python -m tests.model recheck expiry     # only with these off: prints the shortest schedule that loses data

What the product does is simulated with its own code (`tests/simulation`); a model comes before a protocol is changed.
If it can't show a schedule that fails without a step, the step may not be needed.
"""
