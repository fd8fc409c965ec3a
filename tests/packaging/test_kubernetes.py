"""The manifests of contrib/kubernetes agree with the server: its probes, ports, places and configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from zotctl.config import Config, is_bucket, load_config
from zotctl.http.ratelimit import EXEMPT

FOLDER = Path(__file__).parents[2] / "contrib" / "kubernetes"
FILES = sorted(FOLDER.glob("*.yaml"))
PROBES = {"startupProbe": "/startupz", "livenessProbe": "/livez", "readinessProbe": "/readyz"}


def objects(path: Path) -> dict[str, Any]:
    """By kind."""
    return {found["kind"]: found for found in yaml.safe_load_all(path.read_text())}


def pod(found: dict[str, Any]) -> dict[str, Any]:
    (owner,) = [found[kind] for kind in ("StatefulSet", "Deployment") if kind in found]
    assert owner["spec"]["selector"]["matchLabels"] == owner["spec"]["template"]["metadata"]["labels"]
    assert found["Service"]["spec"]["selector"] == owner["spec"]["selector"]["matchLabels"]
    spec: dict[str, Any] = owner["spec"]["template"]["spec"]
    return spec


def config_of(found: dict[str, Any], home: Path) -> Config:
    (home / "zotctl.toml").write_text(found["ConfigMap"]["data"]["zotctl.toml"])
    return load_config(str(home / "zotctl.toml"), options={}, environ={})


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_probes_ports_and_the_configuration_are_the_servers(path: Path, tmp_path: Path) -> None:
    found = objects(path)
    spec, config = pod(found), config_of(found, tmp_path)
    (container,) = spec["containers"]
    assert {name: container[name]["httpGet"]["path"] for name in PROBES} == PROBES
    assert set(PROBES.values()) == EXEMPT
    (port,) = container["ports"]
    assert (port["containerPort"], config.http.address) == (config.http.port, "0.0.0.0")
    assert found["Service"]["spec"]["ports"][0]["targetPort"] == port["name"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert container["args"] == ["serve", "--config", "/etc/zotctl/zotctl.toml"] and mounts["/etc/zotctl"] == "config"
    claims = [
        claim["metadata"]["name"]
        for claim in found.get("StatefulSet", {}).get("spec", {}).get("volumeClaimTemplates", [])
    ]
    volumes = [volume["name"] for volume in spec["volumes"]] + claims
    assert sorted(mounts.values()) == sorted(volumes)
    for root in config.storage.roots:
        assert is_bucket(root.path) or any(
            root.path.startswith(f"{place}/") for place, name in mounts.items() if name in claims
        )
    assert spec["terminationGracePeriodSeconds"] > config.http.drain


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_pod_has_no_rights(path: Path) -> None:
    spec = pod(objects(path))
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] == 65532
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip


def test_one_is_for_a_volume_and_one_for_many_servers_on_a_bucket() -> None:
    volume, bucket = objects(FOLDER / "zotctl.yaml"), objects(FOLDER / "zotctl-s3.yaml")
    assert volume["StatefulSet"]["spec"]["replicas"] == 1
    assert bucket["Deployment"]["spec"]["replicas"] == 3 and "PodDisruptionBudget" in bucket
