"""A hospital's partition as a destination reads it.

The newest version of a row wins, and chunks take away what is gone.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from openmrs.read import END_OF_BINLOG, Source
from openmrs.tables import OBS
from passport.event import Event, Row, parse_event
from passport.settings import LoadBudget, MySQL, Settings
from tests.servers import Address
from tests.settings import QUICK_CDC, build_settings, hospital_settings, kafka_settings
from tests.topic_reader import read_topic


def settings(mysql: MySQL, bootstrap: str, name: str, **changes: Any) -> Settings:
    """Return the settings of one hospital called `kigali`, with topics named after `name`.

    `partition`, `load_budget` and `hospital` change the hospital, `cdc` the reader; everything
    else is a top-level key.
    """
    budget = {"chunk_rows": 200, "queries_per_s": 10_000, **changes.pop("load_budget", {})}
    hospital = hospital_settings(
        mysql,
        partition=changes.pop("partition", 0),
        load_budget=LoadBudget(**budget),
        **changes.pop("hospital", {}),
    )
    cdc = {**QUICK_CDC, **changes.pop("cdc", {})}
    return build_settings({"kigali": hospital}, kafka_settings(bootstrap, name), cdc=cdc, **changes)


def records(settings_: Settings, partition: int = 0) -> list[Event]:
    """Return all events of the partition, in order."""
    events: list[Event] = []
    for record in raw(settings_, partition):
        event = parse_event(record.value)
        assert record.key == event.source.hospital.encode()
        assert record.headers == [("ce_type", event.kind.encode())]
        events.append(event)
    return events


def raw(settings_: Settings, partition: int = 0) -> list[Any]:
    """Return the same records as Kafka has them."""
    kafka = settings_.kafka
    return list(read_topic(kafka.bootstrap, kafka.topic, partition))


@dataclass
class Table:
    """The table obs as the records tell it."""

    rows: dict[int, Row] = field(default_factory=dict)
    versions: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, events: Iterable[Event]) -> "Table":
        table = cls()
        for event in events:
            table.apply(event)
        return table

    def apply(self, event: Event) -> None:
        version = event.source.version
        if event.kind == "row":
            for image, row in ((event.before, None), (event.after, event.after)):
                if image is not None:
                    self._set(image["obs_id"], row, version)
        elif event.kind == "chunk":
            present = set(event.keys)
            for key in [key for key in self.rows if _within(key, event) and key not in present]:
                self._set(key, None, version)

    def _set(self, key: int, row: Row | None, version: str) -> None:
        if version < self.versions.get(key, ""):
            return
        self.versions[key] = version
        if row is None:
            self.rows.pop(key, None)
        else:
            self.rows[key] = row


def _within(key: int, event: Event) -> bool:
    return (event.first is None or key > event.first) and (event.to is None or key <= event.to)


def obs(database: Address) -> dict[int, Row]:
    """Return the table itself, by key."""
    reader = Source("kigali", database.settings())
    with reader.read_at(END_OF_BINLOG) as reading:
        rows = {row["obs_id"]: row for row in reading.facts(OBS, "1 = 1")}
    reader.close()
    return rows


def changes(events: Iterable[Event]) -> Iterator[Event]:
    """Yield the rows that the binlog gave."""
    return (event for event in events if event.kind == "row" and event.source.origin == "binlog")
