"""The table of OpenMRS' Obs.Interpretation: which results are normal, abnormal or critical."""

from collections.abc import Mapping
from typing import Literal

TestStatus = Literal["Normal", "Abnormal", "Critical"]

# None: it says something else than that. A negative test may be good news or bad, a germ that is
# susceptible is both, and a change or the end of a scale is no judgement.
STATUSES: Mapping[str, TestStatus | None] = {
    "NORMAL": "Normal",
    "ABNORMAL": "Abnormal",
    "CRITICALLY_ABNORMAL": "Critical",
    "NEGATIVE": None,
    "POSITIVE": None,
    "CRITICALLY_LOW": "Critical",
    "LOW": "Abnormal",
    "HIGH": "Abnormal",
    "CRITICALLY_HIGH": "Critical",
    "VERY_SUSCEPTIBLE": None,
    "SUSCEPTIBLE": None,
    "INTERMEDIATE": None,
    "RESISTANT": None,
    "SIGNIFICANT_CHANGE_DOWN": None,
    "SIGNIFICANT_CHANGE_UP": None,
    "OFF_SCALE_LOW": None,
    "OFF_SCALE_HIGH": None,
}


def status_of(interpretation: str | None) -> TestStatus | None:
    """Return what a reader is told of a result; None of an interpretation that isn't known."""
    return STATUSES.get(interpretation or "")
