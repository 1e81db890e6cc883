"""A renamed metric is shown under both names for one release."""

from prometheus_client import REGISTRY

from passport import metrics


def test_a_former_name_shows_the_same_number() -> None:
    metrics.REENRICHED.labels("a hospital of this test").inc(3)
    for name in ("passport_reenriched_rows_total", "passport_reread_rows_total"):
        assert REGISTRY.get_sample_value(name, {"hospital": "a hospital of this test"}) == 3
