"""deploy/ by the tools that will read it: Prometheus' rules, Helm's chart, systemd's units."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.stack import install

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES, CHART = DEPLOY / "prometheus", DEPLOY / "helm/openmrs-passport"
VALUES: dict[str, Any] = {
    "settings": {
        "hospitals": {
            "kigali": {"partition": 0},
            "huye": {"partition": 1, "capture": "polling"},
            "far": {"partition": 2},
        },
        "kafka": {"bootstrap": "kafka:9092"},
        "destinations": {"passport": {"type": "mongo"}},
    },
    "readersElsewhere": ["far"],
    "existingSecret": "secrets",
    "consumers": {"replicas": 2},
    "portal": {"enabled": True},
    "serviceMonitor": {"enabled": True},
}


def run(
    program: Path, *arguments: str | Path, folder: Path = DEPLOY
) -> "subprocess.CompletedProcess[str]":
    command = [program, *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize(
    "what",
    ["check rules alerts.yaml", "check config prometheus.yml", "test rules alerts_test.yaml"],
)
def test_prometheus_takes_the_rules(what: str) -> None:
    done = run(install.promtool(), *what.split(), folder=RULES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_tests_can_fail(tmp_path: Path) -> None:
    for file in RULES.iterdir():
        shutil.copy(file, tmp_path)
    rules = tmp_path / "alerts.yaml"
    rules.write_text(
        rules.read_text().replace("passport_cdc_connected == 0", "passport_cdc_connected == 2")
    )
    assert (
        run(install.promtool(), "test", "rules", "alerts_test.yaml", folder=tmp_path).returncode
        != 0
    )


def rendered(tmp_path: Path, values: dict[str, Any]) -> "subprocess.CompletedProcess[str]":
    file = tmp_path / "values.yaml"
    file.write_text(json.dumps(values))
    return run(
        install.helm(), "template", "demo", CHART, "--values", file, "--kube-version", "1.31.0"
    )


@pytest.mark.long  # the first run builds helm
def test_the_chart_makes_a_deployment_a_role(tmp_path: Path) -> None:
    done = rendered(tmp_path, VALUES)
    assert done.returncode == 0, done.stderr
    found = [one for one in yaml.safe_load_all(done.stdout) if one]
    roles = {one["metadata"]["name"]: one["spec"] for one in found if one["kind"] == "Deployment"}
    assert set(roles) == {
        *("demo-cdc-kigali", "demo-consume-passport", "demo-portal-pages"),
        *(f"demo-reconcile-{hospital}" for hospital in ("kigali", "huye", "far")),
    }
    assert roles["demo-cdc-kigali"]["strategy"] == {"type": "Recreate"}
    assert roles["demo-consume-passport"]["replicas"] == 2
    for role in roles.values():
        (container,) = role["template"]["spec"]["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert role["template"]["spec"]["securityContext"]["runAsNonRoot"]
        assert container["envFrom"] == [{"secretRef": {"name": "secrets"}}]
    (pages,) = (
        one["spec"]
        for one in found
        if one["kind"] == "Service" and one["metadata"]["name"] == "demo-portal"
    )
    portal = roles["demo-portal-pages"]["template"]
    assert pages["selector"] == portal["metadata"]["labels"]
    (container,) = portal["spec"]["containers"]
    assert {"name": "pages", "containerPort": 8000} in container["ports"]
    assert {"name": "PASSPORT_PORTAL__PORT", "value": "8000"} in container["env"]
    assert pages["ports"][0]["targetPort"] == "pages"
    (settings,) = (one["data"] for one in found if one["kind"] == "ConfigMap")
    assert yaml.safe_load(settings["local.yaml"]) == VALUES["settings"]
    assert {one["kind"] for one in found} >= {"PodDisruptionBudget", "ServiceMonitor", "Service"}


@pytest.mark.long
@pytest.mark.parametrize(
    "wrong",
    [{"settings": {"hospitals": {"UPPER": {}}}}, {"hospital": []}, {"consumers": {"replicas": 0}}],
)
def test_the_chart_refuses_values_that_are_none(tmp_path: Path, wrong: dict[str, Any]) -> None:
    done = rendered(tmp_path, {**VALUES, **wrong})
    assert done.returncode != 0
    assert next(iter(wrong)) in done.stderr


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    units = []
    for file in (DEPLOY / "systemd").glob("*.service"):
        unit = tmp_path / file.name
        unit.write_text(
            file.read_text().replace("/opt/passport/bin/passport", shutil.which("true") or "")
        )
        units.append(unit)
    done = run(install.systemd_analyze(), "verify", "--man=no", *units)
    assert (len(units), done.stdout + done.stderr, done.returncode) == (3, "", 0)
