"""All mutants, by name and by kind."""

from __future__ import annotations

from tests.mutants import bucket_gc, far_bucket, local_gc, local_store
from tests.mutants.mutant import Mutant

ALL: list[Mutant] = [*local_gc.MUTANTS, *local_store.MUTANTS, *bucket_gc.MUTANTS, *far_bucket.MUTANTS]
MUTANTS: dict[str, Mutant] = {mutant.name: mutant for mutant in ALL}
KINDS: dict[str, list[Mutant]] = {}
for _mutant in ALL:
    KINDS.setdefault(_mutant.kind, []).append(_mutant)
