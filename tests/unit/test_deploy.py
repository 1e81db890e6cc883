"""What deploy/ names exists: metrics, their labels, commands."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client import Counter, Gauge, Histogram

from passport import metrics

DEPLOY = Path(__file__).parents[2] / "deploy"
METRIC = re.compile(r"\b(passport_[a-z_]+)(?:\{([^}]*)\})?")


def alerts() -> list[dict[str, str]]:
    found: list[dict[str, str]] = yaml.safe_load((DEPLOY / "prometheus/alerts.yaml").read_text())["groups"][0]["rules"]
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


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_says_what_to_type(rule: dict[str, dict[str, str]]) -> None:
    assert rule["annotations"]["command"].startswith("passport ")
    assert rule["labels"]["severity"] in ("critical", "warning")
