"""Single edits that a developer could make, each in one file of `zotctl`, and each caught by one named fast test.

    python -m tests.mutants              # all of them, side by side; fails if one survives
    python -m tests.mutants NAME...      # some; the name of a kind stands for all of that kind
    python -m tests.mutants --table      # with the mutants of the simulations, and how many schedules each takes

`table` has them; `hook` puts one into a process, whose checkout stays as it is; `running` looks what becomes of it.
An ordinary test run tries some and reads all: an edit whose place is not there any more fails it at once.
"""
