"""The settings of tests, built in one place: hospitals, the topics of Kafka, destinations."""

from collections.abc import Mapping
from typing import Any

from passport.settings import Destination, Hospital, Kafka, MySQL, Settings

# The readers of tests report often and come back soon.
QUICK_CDC = {"heartbeat_s": 0.5, "checkpoint_s": 0.1, "reconnect_max_s": 1}
NOWHERE = MySQL(host="127.0.0.1", user="nobody")


def hospital_settings(mysql: MySQL = NOWHERE, **changes: Any) -> Hospital:
    """Return the settings of a hospital called Kigali; `changes` are fields of `Hospital`."""
    fields: dict[str, Any] = {
        "name": "Kigali",
        "partition": 0,
        "timezone": "Africa/Kigali",
        "national_id_type": "00000000-0000-0000-0000-000000000001",
        "mysql": mysql,
    }
    return Hospital(**{**fields, **changes})


def kafka_settings(bootstrap: str, topic: str) -> Kafka:
    """Return Kafka's settings with three topics whose names begin with `topic`."""
    return Kafka(
        bootstrap=bootstrap,
        topic=topic,
        positions_topic=f"{topic}.positions",
        dead_letters_topic=f"{topic}.dead",
    )


def build_settings(
    hospitals: Mapping[str, Hospital],
    kafka: Kafka,
    destinations: Mapping[str, Destination] | None = None,
    **sections: Any,
) -> Settings:
    """Return the settings; `sections` are other top-level keys of the file, such as `cdc`."""
    return Settings(
        hospitals=dict(hospitals), kafka=kafka, destinations=dict(destinations or {}), **sections
    )
