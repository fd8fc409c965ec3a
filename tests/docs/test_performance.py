"""The benchmarks run, and docs/performance.md shows what its data say. No time is asserted."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import chart, growth, page, scale, table
from benchmarks.bench import LIMIT, Bench
from benchmarks.figures import Sample, Spread, from_plain, middle, ratio, to_plain
from benchmarks.layouts import tagged
from benchmarks.load import MIB
from benchmarks.rows import Row, Sizes, all_rows, get_tags
from benchmarks.servers import local_servers

TINY = Sizes(seconds=0.1, growth=0.1, manifests=4, middle=MIB, middles=4, huge=MIB, rest=0.1)
UNITS = ("/s", "ms")
MACHINE = ("date", "processor", "memory", "kernel", "file system", "Python", "command")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> page.Run:
    """Two rows of our own server, in one turn."""
    folder, (ours, *_) = tmp_path_factory.mktemp("bench"), local_servers()
    bench = Bench([ours], folder, TINY, turns=1)
    rows = [all_rows()["push-64m-c4-patch"], Row("get", UNITS, lambda sizes: {"growth": tagged(2)}, get_tags(2))]
    found = page.Run(dict.fromkeys(MACHINE, "") | {"others": "0.5"}, [ours.name], {}, {}, {})
    for row in rows:
        # CPU is counted in hundredths of a second, of which a turn as short as this may have none.
        samples = {name: [replace(one, cpu=one.cpu or 0.01) for one in taken] for name, taken in bench.row(row).items()}
        found.units[row.name], found.rows[row.name] = row.units, samples
    assert not list(folder.glob("*-zotctl-*/")), "a store is removed after its turn"
    return found


def test_a_row_measures_the_server_and_the_limit_of_the_machine(measured: page.Run) -> None:
    push = measured.rows["push-64m-c4-patch"]
    assert set(push) == {"zotctl", LIMIT}
    for samples in (*push.values(), measured.rows["get"]["zotctl"]):
        (sample,) = samples
        assert sample.speed and not sample.note
    assert push["zotctl"][0].memory > 1
    line = table.line(all_rows()["push-64m-c4-patch"], measured.rows, ["zotctl"])
    assert "x limit" in line and "zot: not measured" in line and line.count("|") == 6


def test_what_was_measured_comes_back_from_json(measured: page.Run) -> None:
    assert page.Run.from_plain(json.loads(json.dumps(measured.to_plain()))) == measured


def test_charts_and_tables_show_each_row(measured: page.Run) -> None:
    drawn = page.charts("rows", measured)
    assert set(drawn) == {"rows-bytes.svg", "rows-requests.svg"}
    assert "push-64m-c4-patch" in texts(drawn["rows-bytes.svg"]) and "get" in texts(drawn["rows-requests.svg"])
    assert any(text.startswith("limit ") for text in texts(drawn["rows-bytes.svg"]))
    lines = page.rows(measured).splitlines()
    assert any("busy" in line for line in lines)
    assert sum(line.startswith("| `push-64m-c4-patch`") for line in lines) == 2


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")]


def test_ratios_are_made_turn_by_turn() -> None:
    """A neighbour that slows a whole turn down changes no ratio."""
    ours = [Sample(speed=1, cpu=cpu) for cpu in (1.0, 10.0, 2.0)]
    theirs = [Sample(speed=1, cpu=cpu) for cpu in (2.0, 20.0, 5.0)]
    assert ratio("cpu", ours, theirs) == Spread(0.5, 0.4, 0.5)
    assert ratio("cpu", ours, [Sample(note="none")]) is None
    assert middle([Sample(note="away"), Sample(speed=4.0)]) == Sample(speed=4.0, note="away")
    assert from_plain(to_plain({"a": ours})) == {"a": ours}


@pytest.mark.parametrize("power", [0.0, 1.0, -0.5])
def test_the_fit_finds_the_power(power: float) -> None:
    sizes = (10, 100, 1_000, 10_000)
    samples = tuple(Sample(speed=1, cpu=3 * size**power) for size in sizes)
    curve = growth.Curve("zotctl", "cpu", (*sizes, 100_000), (*samples, Sample(note="it did not start")))
    assert math.isclose(curve.exponent(), power, abs_tol=1e-9)
    assert math.isclose(curve.ratio(), 1000**power)
    assert "10,000" in texts(chart.curves("t", [chart.Line("zotctl", curve.points)]))


def test_each_axis_has_rows() -> None:
    for axis in growth.axes().values():
        rows = [axis.row(size) for size in axis.sizes]
        assert axis.unit in ("ms", "s/GiB", "MiB") and len({row.units for row in rows}) == 1


def test_a_job_is_measured_over_a_store_of_many_blobs(tmp_path: Path) -> None:
    (shape,) = scale.shapes(["300/3"])
    ((job, spent),) = scale.measured(shape, tmp_path, ["gc --dry-run"])
    assert spent.memory > 10 and not list(tmp_path.iterdir())
    plain = {
        "machine": dict.fromkeys(MACHINE, "") | {"others": "0"},
        "jobs": [vars(shape) | {"job": job} | vars(spent)],
    }
    table = page.scale(plain)
    assert "| 300 in 3 |" in table and "| `gc --dry-run` |" in table
    with pytest.raises(ValueError, match="BLOBS/REPOSITORIES"):
        scale.shapes(["10/11"])


def test_the_page_shows_what_its_data_say() -> None:
    """After another run: python -m benchmarks.page."""
    for path, wanted in page.made():
        assert path.read_text() == wanted, path
    for named in page.PAGE.read_text().split("](performance/")[1:]:
        assert (page.DATA / named.partition(")")[0]).exists()
