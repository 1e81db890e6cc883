"""What deploy/ names exists: metrics, their labels, commands."""

import json
import re
import tomllib
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import jsonschema_rs
import pytest
import yaml
from prometheus_client import Counter, Gauge, Histogram

from dev import dashboard_picture
from dev.rules import PRODUCT
from passport import metrics
from passport.configuration import load

DEPLOY = Path(__file__).parents[2] / "deploy"
ROOT = DEPLOY.parent
METRIC = re.compile(r"\b(passport_[a-z_]+)(?:\{([^}]*)\})?")


def alerts() -> list[dict[str, str]]:
    found: list[dict[str, str]] = yaml.safe_load((DEPLOY / "prometheus/alerts.yaml").read_text())[
        "groups"
    ][0]["rules"]
    return found


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in alerts())
    for panel in json.loads((DEPLOY / "grafana/passport.json").read_text())["panels"]:
        yield from (target["expr"] for target in panel["targets"])


def labels() -> dict[str, set[str]]:
    """Label names by every name under which a metric is exposed."""
    found: dict[str, set[str]] = {}
    for metric in vars(metrics).values():
        if isinstance(metric, Counter | Gauge | Histogram):
            (family,) = metric.describe()
            for name in (family.name, f"{family.name}_total", f"{family.name}_bucket"):
                found[name] = set(metric._labelnames)
    return found


@pytest.mark.parametrize("expression", [*expressions()])
def test_an_expression_names_metrics_that_exist(expression: str) -> None:
    known, named = labels(), METRIC.findall(expression)
    assert named or "up{" in expression
    for name, matchers in named:
        assert name in known
        assert set(re.findall(r"(\w+)=", matchers)) <= known[name]


@pytest.mark.parametrize("name", [name for name, one in vars(metrics).items() if name.isupper()])
def test_a_metric_is_counted_somewhere(name: str) -> None:
    code = [
        path
        for stage in PRODUCT
        for path in (ROOT / stage).rglob("*.py")
        if path.name != "metrics.py"
    ]
    assert any(re.search(rf"\b{name}\b", path.read_text(encoding="utf-8")) for path in code)


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_says_what_to_type(rule: dict[str, dict[str, str]]) -> None:
    assert rule["annotations"]["command"].startswith("passport ")
    assert rule["labels"]["severity"] in ("critical", "warning")


def test_the_picture_shows_the_dashboards_panels_and_queries() -> None:
    drawn = dashboard_picture.PICTURE.read_text(encoding="utf-8")
    shown = re.findall('data-title="([^"]*)" data-queries="([^"]*)"', drawn)
    panels = [
        (one["title"], " ".join(dashboard_picture.queries(one)))
        for one in dashboard_picture.panels()
    ]
    assert [(unescape(title), unescape(queries)) for title, queries in shown] == panels, (
        "python -m dev.dashboard_run"
    )


COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))


def compose_faults(compose: object) -> list[str]:
    schema = json.loads(
        (ROOT / "tests/schemas/compose/compose-spec.json").read_text(encoding="utf-8")
    )
    return [str(fault) for fault in jsonschema_rs.validator_for(schema).iter_errors(compose)]


def test_compose_is_as_its_specification_says() -> None:
    assert not compose_faults(COMPOSE)
    assert compose_faults(COMPOSE | {"services": {"kafka": {"image": 7}}})


def test_compose_has_its_profiles_and_what_they_need() -> None:
    services = COMPOSE["services"]
    profiles = {name: set(one.get("profiles", ())) for name, one in services.items()}
    assert set().union(*profiles.values()) == {"demo", "monitoring"}
    assert {name for name, of in profiles.items() if not of} == {"kafka", "mongo"}
    for name, one in services.items():
        for other in one.get("depends_on", ()):
            assert profiles[other] <= profiles[name], (
                f"{name} needs {other}, which its profile doesn't start"
            )
        for mounted in (config["source"] for config in one.get("configs", ())):
            assert mounted in COMPOSE["configs"]


def test_composes_settings_are_settings(tmp_path: Path) -> None:
    file = tmp_path / "local.yaml"
    file.write_text(COMPOSE["configs"]["local"]["content"], encoding="utf-8")
    settings, unknown = load(file)
    assert not unknown
    assert set(settings.hospitals) == {"kigali", "huye"}
    roles = {
        " ".join(one["command"].split()[2:4])
        for one in COMPOSE["services"].values()
        if "build" in one
    }
    assert roles == {"cdc run", "consume --destination", "reconcile --hospital", "portal"}


def test_prometheus_in_compose_looks_at_every_role() -> None:
    targets = yaml.safe_load(COMPOSE["configs"]["prometheus"]["content"])["scrape_configs"][0][
        "static_configs"
    ][0]
    roles = {name for name, one in COMPOSE["services"].items() if "build" in one}
    assert {target.removesuffix(":8080") for target in targets["targets"]} == roles


def test_the_image_gets_every_package_and_file_of_the_wheel() -> None:
    """What .dockerignore leaves out can't be copied, and what isn't copied is not in the image."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    kept = {line[1:] for line in lines if line.startswith("!")}
    copied: set[str] = set()
    for line in (ROOT / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            copied |= set(line.split()[1:-1])
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    built = wheel["targets"]["wheel"]
    needed = {*built["packages"], *built["force-include"]}
    assert needed <= copied
    assert needed <= kept
