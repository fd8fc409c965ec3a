"""What can this storage do? Tried in the hidden directory, or in one of its own where a root has none, and cleaned
up, with a plain result. The store itself is opened read-only: a look at a directory must not make it a root.
"""

from __future__ import annotations

from zotctl.jobs.run import Run
from zotctl.jobs.stores import jobs_of


def probe(run: Run) -> None:
    """One item for each ability of each root, and one result. Raises what the storage raises."""
    for root in run.roots:
        root.require()
        found, said = jobs_of(root).probe()
        for ability, answer in found.items():
            run.item(root=root.label, ability=ability, answer=answer)
        run.item(root=root.label, ability="verdict", answer=said)
