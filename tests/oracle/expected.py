"""One hospital's share of what MongoDB must hold: people, mirror rows, records."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from bson import ObjectId

from tests.oracle.facts import Facts, Settings, read
from tests.oracle.projection import Chart, Record
from tests.oracle.rulebook import Rulebook

MAPPING = Path(__file__).resolve().parents[2] / "config" / "mapping.yaml"


@dataclass(frozen=True)
class Expected:
    """`people`: person_id -> (state, digits, hex of patients._id or None); `rows` and `records` by
    their `_id`.
    """

    facts: Facts
    people: dict[int, tuple[str, str | None, str | None]]
    rows: dict[str, dict[str, Any]]
    records: dict[ObjectId, Record]
    unmapped: int

    @property
    def matched(self) -> dict[int, str]:
        """person_id -> patients._id."""
        return {person: patient for person, (_, _, patient) in self.people.items() if patient}


def load_mapping(path: Path = MAPPING) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return loaded


def expected(
    connection: Any, settings: Settings, patients: Mapping[str, str], mapping: Mapping[str, Any]
) -> Expected:
    """`patients`: national id -> hex of patients._id, the Passport's own."""
    facts = read(connection, settings)
    people = {
        person: (state, digits, patients.get(digits) if digits else None)
        for person, (state, digits) in facts.people.items()
    }
    found = Expected(facts, people, {}, {}, 0)
    owned: dict[int, list[dict[str, Any]]] = {person: [] for person in found.matched}
    for row in facts.obs.values():
        if row["person_id"] in owned:
            owned[row["person_id"]].append(row)
    rules, unmapped = Rulebook(mapping, facts.concepts), 0
    for person, patient in found.matched.items():
        chart = Chart(facts, settings, rules, owned[person])
        found.rows.update({f"{settings['key']}/{row['obs_id']}": row for row in owned[person]})
        found.records.update({record.id: record for record in chart.records(patient)})
        unmapped += chart.unmapped
    return Expected(facts, people, found.rows, found.records, unmapped)
