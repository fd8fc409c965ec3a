"""The dashboard and the alarms in contrib/ ask for metrics that there are, and Prometheus takes them."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.tools import need, program
from zotctl.http.counters import SharedCounters
from zotctl.http.metrics import _audit_errors, _conflicts, _roots, exposition
from zotctl.http.routes import names
from zotctl.http.service import Service
from zotctl.jobs import metrics

CONTRIB = Path(__file__).parents[2] / "contrib"
RULES = CONTRIB / "prometheus" / "zotctl.rules.yml"
DASHBOARD = CONTRIB / "grafana" / "zotctl.json"

TRIALS = r"""
rule_files: [RULES]
evaluation_interval: 5m
tests:
  - interval: 5m
    input_series:
      - {series: 'up{job="zotctl",instance="a"}', values: '0x40'}
      - {series: 'zotctl_scrub_damaged_blobs{instance="a",root="/srv"}', values: '1x40'}
      - {series: 'zotctl_storage_free_bytes{instance="a",root="/srv"}', values: '5x40'}
      - {series: 'zotctl_storage_used_bytes{instance="a",root="/srv"}', values: '95x40'}
      - {series: 'zotctl_job_last_success_timestamp_seconds{exported_job="gc",root="/srv"}', values: '-200000x40'}
      - {series: 'zotctl_job_last_success_timestamp_seconds{job="scrub",root="/srv"}', values: '-900000x40'}
      - {series: 'zotctl_job_runs_total{exported_job="gc",result="failed",instance="a"}', values: '0+1x40'}
      - {series: 'zotctl_http_requests_total{instance="a",code="503"}', values: '0+10x40'}
      - {series: 'zotctl_http_requests_total{instance="a",code="200"}', values: '0+100x40'}
      - {series: 'zotctl_audit_errors_total{instance="a"}', values: '0+1x40'}
    promql_expr_test:
      - expr: 'count by (alertname) (ALERTS{alertstate="firing"})'
        eval_time: 180m
        exp_samples: [SAMPLES]
"""
FIRING = ("Down", "Damage", "SpaceLow", "NotCollected", "NotScrubbed", "JobFails", "Errors", "AuditFile")


def exposed() -> set[str]:
    """The names of all samples that `serve` may answer with."""
    board = SharedCounters(len(names("/metrics")), 1)
    index = board.take()
    board.row(index, names("/metrics")).count("GET", "/v2/", 200, 0.1, 1, 1)
    service = cast(Service, SimpleNamespace(store=SimpleNamespace(roots=())))
    families = [_audit_errors(), *_conflicts(board, service), *_roots([])]
    found = set(metrics._SAMPLES)
    for family in text_string_to_metric_families(exposition(board, names("/metrics"), families).decode()):
        found |= {sample.name for sample in family.samples}
        found.add(f"{family.name}_total" if family.type == "counter" else family.name)
    return found


@pytest.mark.parametrize("path", [RULES, DASHBOARD], ids=lambda path: path.name)
def test_every_metric_exists(path: Path) -> None:
    asked = set(re.findall(r"\bzotctl_[a-z_]+", path.read_text()))
    assert len(asked) >= 9 and asked <= exposed(), asked - exposed()


def test_the_dashboard_shows_every_metric() -> None:
    text = DASHBOARD.read_text()
    families = {re.sub("_(total|bucket|sum|count|created)$", "", name) for name in exposed()}
    assert [name for name in sorted(families) if name not in text] == []


def test_panels_have_their_place() -> None:
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken and place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_each_alarm_names_the_command_that_helps() -> None:
    blocks = re.split(r"^ *- alert: ", RULES.read_text(), flags=re.MULTILINE)[1:]
    assert len(blocks) >= 10
    for block in blocks:
        description = block.partition("description:")[2]
        helps = "`" in description or "send the pushes of one repository to one server" in description
        assert helps and "summary:" in block, block


def test_prometheus_takes_the_rules_and_they_fire(tmp_path: Path) -> None:
    need("promtool")
    samples = ", ".join(f"{{labels: '{{alertname=\"Zotctl{name}\"}}', value: 1}}" for name in FIRING)
    trials = tmp_path / "trials.yml"
    trials.write_text(TRIALS.replace("RULES", str(RULES)).replace("SAMPLES", samples))
    for command in (["check", "rules", str(RULES)], ["test", "rules", str(trials)]):
        done = subprocess.run([program("promtool"), *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
