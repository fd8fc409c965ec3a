"""`single_writer`: one process writes to such a bucket, so there is one worker, and no collection beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from zotctl.config.model import Config, RootConfig
from zotctl.config.problems import Problems


def with_one_writer(config: Config, origins: Mapping[str, str], problems: Problems) -> Config:
    """The configuration with one worker, and no collection in `serve`. A larger `http.workers` in it is a mistake."""
    storage = config.storage
    if not any(_is_alone(root) for root in (*storage.roots, *(route.root for route in storage.routes))):
        return config
    if (where := origins.get("http.workers")) and config.http.workers > 1:
        problems.mistake(where, "single_writer is for one process; write workers = 1, or leave it out")
    storage = replace(
        storage,
        roots=tuple(_uncollected(root) for root in storage.roots),
        routes=tuple(replace(route, root=_uncollected(route.root)) for route in storage.routes),
    )
    return replace(config, storage=storage, http=replace(config.http, workers=1))


def _is_alone(root: RootConfig) -> bool:
    return root.s3 is not None and root.s3.single_writer


def _uncollected(root: RootConfig) -> RootConfig:
    """The collection in `serve` is a process, and would be a second writer: run `zotctl gc` while `serve` is down."""
    return replace(root, gc=False) if _is_alone(root) else root
