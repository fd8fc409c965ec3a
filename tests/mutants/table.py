"""All mutants, by name and by kind."""

from __future__ import annotations

from tests.mutants import (
    bucket_batches,
    bucket_bytes,
    bucket_converting,
    bucket_dedupe,
    bucket_gc,
    bucket_names,
    bucket_promises,
    bucket_replies,
    bucket_swaps,
    bucket_uploads,
    checking,
    collection_edges,
    collection_rounds,
    deletions,
    far_bucket,
    foreign_tools,
    graph,
    history_events,
    importing,
    local_flushes,
    local_gc,
    local_identity,
    local_retention,
    local_store,
    outages,
    publishing,
    retention_clocks,
    retention_rules,
    room_and_repairs,
    rows,
    taking_over,
    verifying,
)
from tests.mutants.mutant import Mutant

MODULES = (
    graph,
    local_gc,
    local_identity,
    local_store,
    local_retention,
    local_flushes,
    bucket_batches,
    bucket_bytes,
    bucket_names,
    bucket_dedupe,
    bucket_replies,
    bucket_converting,
    bucket_gc,
    checking,
    collection_edges,
    collection_rounds,
    deletions,
    bucket_promises,
    bucket_swaps,
    bucket_uploads,
    far_bucket,
    foreign_tools,
    history_events,
    importing,
    outages,
    publishing,
    retention_clocks,
    retention_rules,
    room_and_repairs,
    rows,
    taking_over,
    verifying,
)
ALL: list[Mutant] = [mutant for module in MODULES for mutant in module.MUTANTS]
MUTANTS: dict[str, Mutant] = {mutant.name: mutant for mutant in ALL}
KINDS: dict[str, list[Mutant]] = {}
for _mutant in ALL:
    KINDS.setdefault(_mutant.kind, []).append(_mutant)
