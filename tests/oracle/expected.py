"""One hospital's share of what MongoDB must hold: people, mirror rows, records."""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from bson import ObjectId

from tests.oracle.facts import Facts, Settings, read
from tests.oracle.links import Document, link
from tests.oracle.projection import Chart, Record
from tests.oracle.rulebook import Rulebook

MAPPING = Path(__file__).resolve().parents[2] / "config" / "mapping.yaml"


@dataclass(frozen=True)
class Expected:
    """`people`: person_id -> (state, digits, hex of patients._id or None); `rows` and `records` by
    their `_id`. `contradicts`: what hospital and Passport say differently, by person_id.
    """

    facts: Facts
    people: dict[int, tuple[str, str | None, str | None]]
    rows: dict[str, dict[str, Any]]
    records: dict[ObjectId, Record]
    unmapped: int
    contradicts: dict[int, list[str]] = field(default_factory=dict)

    @property
    def matched(self) -> dict[int, str]:
        """person_id -> patients._id."""
        return {person: patient for person, (_, _, patient) in self.people.items() if patient}


def load_mapping(path: Path = MAPPING) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return loaded


def expected(
    connection: Any,
    settings: Settings,
    patients: Mapping[str, str | Document],
    mapping: Mapping[str, Any],
    decisions: Mapping[int, Document] | None = None,
) -> Expected:
    """`patients`: national id -> document of patients, or the hex of its _id where nothing else of
    it matters. `decisions`: what operators decided, by person_id.
    """
    facts = read(connection, settings)
    mode = settings.get("contradictions", "count")
    people: dict[int, tuple[str, str | None, str | None]] = {}
    contradicts: dict[int, list[str]] = {}
    for person, (state, digits) in facts.people.items():
        patient = patients.get(digits) if digits else None
        document = {"_id": patient} if isinstance(patient, str) else patient
        decision = (decisions or {}).get(person)
        if decision and decision["idHash"] != _hash(settings, digits):
            decision = None
        said = link(state, document, facts.births[person], decision, mode)
        people[person] = (said.state, digits, said.patient)
        contradicts[person] = said.contradicts
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
    return Expected(facts, people, found.rows, found.records, unmapped, contradicts)


def _hash(settings: Settings, digits: str | None) -> str:
    """The HMAC-SHA256 of a national id."""
    key = str(settings.get("link_key", "")).encode()
    return hmac.new(key, (digits or "").encode(), hashlib.sha256).hexdigest()
