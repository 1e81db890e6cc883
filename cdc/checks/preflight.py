"""Everything that reading one hospital rests on, looked at before it is relied on."""

from cdc.checks import kafka as kafka_checks
from cdc.checks import server as server_checks
from cdc.checks.grants import grants
from cdc.positions import Positions, Saved
from passport.check import Check
from passport.errors import Fatal, NotReady, Retry
from passport.settings import Hospital, Kafka

__all__ = ["checks", "grants"]


def checks(hospital_id: str, hospital: Hospital, kafka: Kafka) -> list[Check]:
    """The hospital's server, then Kafka. Never raises for what is wrong there: that is what a check
    says.
    """
    found: list[Check] = []
    saved: Saved | None = None
    try:
        found += kafka_checks.checks(hospital_id, hospital, kafka)
        saved = _saved(hospital_id, kafka, found)
    except (Fatal, NotReady) as error:
        found.append(Check("kafka", False, error.reason, error.hint))
    except Retry as error:
        found.append(Check("kafka", False, error.reason, "try again"))
    return [*server_checks.connected(hospital_id, hospital, saved), *found]


def _saved(hospital_id: str, kafka: Kafka, found: list[Check]) -> Saved | None:
    if any(check.name == "topics" and kafka.positions_topic in check.detail for check in found):
        return None
    return Positions(kafka).load(hospital_id)
