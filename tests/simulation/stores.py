"""The kinds of stores that are simulated. Names of a bucket's scenarios begin with "bucket"."""

from __future__ import annotations

from tests.simulation.bucket.plan import BUCKET
from tests.simulation.local.plan import DIRECTORY
from tests.simulation.playing import Simulated

STORES: dict[str, Simulated] = {"directory": DIRECTORY, "bucket": BUCKET}
