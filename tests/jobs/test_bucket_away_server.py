"""A real object store that is lost in the middle of a job, behind a proxy: reset, 503."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.buckets import Bucket, bucket  # noqa: F401 - a fixture
from tests.jobs.test_bucket_away import checked, collected, deduped, scrubbed, undone
from tests.object_proxy import RESET, SLOW, ProxiedRequest, Proxy
from tests.stores import bucket_store, push_image
from zotctl.jobs.run import Run
from zotctl.storage import keys
from zotctl.storage.bucket.objects.retry import Retrying


@pytest.fixture
def proxy(bucket: Bucket) -> Iterator[Proxy]:  # noqa: F811
    made = Proxy(bucket.server.endpoint)
    yield made
    made.close()


@pytest.mark.parametrize("fault", [RESET, SLOW])
@pytest.mark.parametrize("work", [scrubbed, checked, deduped, undone, collected])
def test_a_store_that_is_lost_is_one_line(
    bucket: Bucket,  # noqa: F811
    proxy: Proxy,
    work: Callable[[Run], None],
    fault: str,
) -> None:
    for number in range(3):
        push_image(bucket_store(bucket.client()), f"app{number}", "v1", seed=str(number))
    run = Run("job", bucket_store(Retrying(bucket.client(endpoint=proxy.endpoint), timeout=0.3)))
    begun = list[str]()

    def choose(request: ProxiedRequest) -> str:
        if begun or "/app1/" in request.path:
            begun.append(request.path)
        return fault if begun else ""

    proxy.choose = choose
    report = run.finish(lambda: work(run))
    assert (report.exit_code, report.findings, len(report.errors)) == (14, [], 1), (report.findings, report.errors)
    assert not list(bucket.client().list(f"{keys.DAMAGED}/"))
