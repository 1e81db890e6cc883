"""The records of one person, exactly by docs/reference/records.md: recursion over that person's obs
rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from hashlib import sha256
from typing import Any
from zoneinfo import ZoneInfo

from bson import ObjectId

from tests.oracle.facts import Author, Concept, Facts, Settings
from tests.oracle.rulebook import Rulebook

Obs = dict[str, Any]
NOBODY = Author("OpenMRS", None, "none")


@dataclass(frozen=True)
class Record:
    """`content`: patientId, type, data (without medicationStatus) and openmrsData. `archived`: an
    older version of the anchor is named but gone from the hospital, so that `_id` and `synced` are
    a matter of history."""

    id: ObjectId
    content: dict[str, Any]
    author: Author
    synced: datetime | None
    archived: bool
    anchor: int


@dataclass(frozen=True)
class Reading:
    """The words for one value: `text` as a person reads it, `full` with its units."""

    kind: str
    text: str
    full: str


class Chart:
    """One person's rows, and what becomes of them."""

    def __init__(
        self, facts: Facts, settings: Settings, rules: Rulebook, rows: Sequence[Obs]
    ) -> None:
        self.facts, self.settings, self.rules = facts, settings, rules
        self.rows = {row["obs_id"]: row for row in rows}
        unvoided = [row for row in rows if not row["voided"]]
        replaced = {
            old for row in unvoided if (old := row.get("previous_version")) != row["obs_id"]
        }
        self.live = {row["obs_id"]: row for row in unvoided if row["obs_id"] not in replaced}
        self.children: dict[int | None, list[Obs]] = {}
        for row in self.live.values():
            self.children.setdefault(row["obs_group_id"], []).append(row)

    def concept(self, row: Obs) -> Concept:
        return self.facts.concepts[row["concept_id"]]

    def parent(self, row: Obs) -> Obs | None:
        return self.live.get(row["obs_group_id"])

    # -- what a row says

    def reading(self, row: Obs) -> Reading | None:
        concept, numeric = self.concept(row), row["value_numeric"]
        if row["value_drug"] is not None:
            return self._said("drug", self.facts.drugs[row["value_drug"]])
        if row["value_coded"] is not None:
            kind = "boolean" if concept.datatype == "Boolean" else "coded"
            answer = self.facts.concepts[row["value_coded"]].name
            return self._said(
                kind, self.facts.concept_names.get(row["value_coded_name_id"], answer)
            )
        if numeric is not None:
            text = (row["value_modifier"] or "") + repr(float(numeric)).removesuffix(".0")
            return Reading("numeric", text, f"{text} {concept.units}" if concept.units else text)
        if row["value_datetime"] is not None:
            day, _, clock = row["value_datetime"].partition("T")
            return self._said(
                "time", {"Date": day, "Time": clock}.get(concept.datatype, f"{day} {clock}")
            )
        if row.get("value_boolean") is not None:
            return self._said("boolean", "Yes" if row["value_boolean"] else "No")
        if row.get("value_complex") is not None:
            return self._said("text", row["value_complex"].split("|")[0])
        return self._said("text", row["value_text"]) if row["value_text"] is not None else None

    @staticmethod
    def _said(kind: str, text: str) -> Reading:
        return Reading(kind, text, text)

    def author(self, row: Obs) -> Author:
        team = self.facts.teams.get(row["encounter_id"], [])
        others = (self.facts.orderers.get(row["order_id"]), self.facts.creators.get(row["creator"]))
        return next((author for author in (*team, *others) if author), NOBODY)

    def place(self, row: Obs) -> str | None:
        encounter = self.facts.encounters.get(row["encounter_id"], {})
        candidates = (
            row["location_id"],
            encounter.get("location_id"),
            encounter.get("visit_location"),
        )
        chosen = next((location for location in candidates if location is not None), None)
        return self.facts.locations.get(chosen) if chosen is not None else None

    def instant(self, wall: str) -> datetime | None:
        try:
            local = datetime.fromisoformat(wall).replace(tzinfo=ZoneInfo(self.settings["timezone"]))
            return local.astimezone(UTC).replace(tzinfo=None)
        except ValueError:  # a zero or impossible date
            return None

    # -- which rows make a record

    def members(self, header: Obs, seen: frozenset[int] = frozenset()) -> Iterator[Obs]:
        """Live descendants, not into another header."""
        seen |= {header["obs_id"]}
        for child in self.children.get(header["obs_id"], ()):
            if child["obs_id"] not in seen and self.rules.group(child) is None:
                yield child
                yield from self.members(child, seen)

    @cached_property
    def folded(self) -> dict[int, tuple[list[Obs], dict[str, list[Obs]]]]:
        """header -> (stating members, part -> members), by obs_id."""
        found: dict[int, tuple[list[Obs], dict[str, list[Obs]]]] = {}
        for row in self.live.values():
            group = self.rules.group(row)
            if group is None:
                continue
            stating, parts = found.setdefault(row["obs_id"], ([], {}))
            for member in sorted(self.members(row), key=lambda member: member["obs_id"]):
                role = self.rules.role(group, member) if self.reading(member) else None
                if role == "value":
                    stating.append(member)
                elif role is not None:
                    parts.setdefault(role, []).append(member)
        return found

    def records(self, patient_id: str) -> Iterator[Record]:
        """One a `_id`: of two live anchors that share it the higher obs_id shows."""
        shown: dict[ObjectId, Record] = {}
        for record in self._all(patient_id):
            shown[record.id] = max(
                shown.get(record.id, record), record, key=lambda record: record.anchor
            )
        yield from shown.values()

    @property
    def unmapped(self) -> int:
        """Live rows with a value that are in no record."""
        idle = [
            len(rows)
            for stating, parts in self.folded.values()
            if not stating
            for rows in parts.values()
        ]
        return sum(self.rules.kind(row) is None for row in self._others()) + sum(idle)

    def _others(self) -> Iterator[Obs]:
        taken = set(self.folded)
        for stating, parts in self.folded.values():
            taken |= {
                member["obs_id"]
                for member in [*stating, *(one for many in parts.values() for one in many)]
            }
        yield from (
            row
            for row in self.live.values()
            if row["obs_id"] not in taken and self.reading(row) is not None
        )

    def _all(self, patient_id: str) -> Iterator[Record]:
        for header, (stating, parts) in self.folded.items():
            group = self.rules.group(self.live[header])
            if stating and group is not None:
                yield self._record(patient_id, group["type"], self.live[header], stating, parts)
        for row in self._others():
            kind = self.rules.kind(row)
            if kind is not None:
                yield self._record(patient_id, kind, row, [], {})

    # -- one record

    def _record(
        self,
        patient_id: str,
        kind: str,
        anchor: Obs,
        stating: list[Obs],
        parts: dict[str, list[Obs]],
    ) -> Record:
        first, archived = self._first_version(anchor)
        author, comments = self.author(anchor), anchor["comments"]
        if stating:
            author = author if author is not NOBODY else self.author(stating[0])
            comments = comments or stating[0]["comments"]
        data = self._data(kind, anchor, stating, parts, author, comments)
        content = {
            "patientId": patient_id,
            "type": kind,
            "data": {name: value for name, value in data.items() if value not in (None, "")},
            "openmrsData": self._openmrs(anchor, stating, parts, author),
        }
        digest = sha256(f"{self.settings['key']}/{first['uuid']}".encode()).digest()
        synced = self.instant(first["date_created"])
        return Record(ObjectId(digest[:12]), content, author, synced, archived, anchor["obs_id"])

    def _first_version(self, anchor: Obs) -> tuple[Obs, bool]:
        row, seen = anchor, {anchor["obs_id"]}
        while (older := self._older(row, anchor)) and older["obs_id"] not in seen:
            row = older
            seen.add(row["obs_id"])
        named = row.get("previous_version")
        return row, named is not None and named not in self.facts.obs

    def _older(self, row: Obs, anchor: Obs) -> Obs | None:
        """Return the previous version, if it is this person's or that of one merged into them."""
        older = self.facts.obs.get(row.get("previous_version"))
        if older is None or older["person_id"] == anchor["person_id"]:
            return older
        state, _ = self.facts.people.get(older["person_id"], ("", None))
        return older if state == "voided" else None

    def _openmrs(
        self, anchor: Obs, stating: list[Obs], parts: dict[str, list[Obs]], author: Author
    ) -> dict[str, Any]:
        said = self.reading(stating[0] if stating else anchor)
        kinds = {"numeric": "numeric", "coded": "coded", "drug": "coded", "boolean": "coded"}
        members = [*stating, *(one for many in parts.values() for one in many)]
        provider = author.key if author.key and not author.key.startswith("user/") else None
        fields = {
            "obsId": anchor["obs_id"],
            "conceptId": anchor["concept_id"],
            "personId": anchor["person_id"],
            "obsDatetime": self.instant(anchor["obs_datetime"]),
            "dateCreated": self.instant(anchor["date_created"]),
            "creatorName": author.name,
            "locationName": self.place(anchor),
            "encounterUuid": self.facts.encounters.get(anchor["encounter_id"], {}).get("uuid"),
            "providerUuid": provider,
            "valueType": kinds.get(said.kind, "text") if said else None,
            "hospitalId": self.settings["key"],
            "obsUuid": anchor["uuid"],
            "memberUuids": sorted(member["uuid"] for member in members) or None,
            "status": anchor.get("status"),
            "interpretation": anchor.get("interpretation"),
            "authorSource": author.source,
        }
        return {name: value for name, value in fields.items() if value is not None}

    def _data(
        self,
        kind: str,
        anchor: Obs,
        stating: list[Obs],
        parts: dict[str, list[Obs]],
        author: Author,
        comments: str | None,
    ) -> dict[str, Any]:
        readings = [reading for reading in map(self.reading, stating or [anchor]) if reading]
        when, text = anchor["obs_datetime"], "; ".join(reading.text for reading in readings)
        part = {
            name: "; ".join(self.reading(row).full for row in rows) for name, rows in parts.items()
        }  # type: ignore[union-attr]
        encounter = self.facts.encounters.get(anchor["encounter_id"])
        panel = None if stating else self._panel(anchor)
        common = {
            "name": self.concept(anchor).name,
            "details": text,
            "date": when,
            "doctor": author.name,
            "hospital": self.settings["name"],
            "notes": comments,
            "description": panel,
        }
        if kind == "condition":
            return common | {
                "procedure": f"Synced from OpenMRS - {author.name}",
                "diagnosis": text,
                "diagnosed": when,
                "diagnosedDate": when,
                "diagnosedBy": author.name,
                "status": part.get("certainty"),
                "description": part.get("rank") or panel,
            }
        if kind == "medication":
            return common | {
                "medicationName": text,
                "dosage": part.get("dosage"),
                "frequency": part.get("frequency"),
                "endDate": part.get("endDate"),
                "description": part.get("duration") or panel,
                "startDate": part.get("start") or when,
                "prescribedBy": author.name,
            }
        if kind == "test":
            return common | {
                "testName": common["name"],
                "testDate": when,
                "result": "; ".join(reading.full for reading in readings),
                "testStatus": self._test_status(anchor.get("interpretation")),
                "status": anchor.get("status"),
            }
        date = encounter["written"] if encounter else when
        return common | {"date": date, "visitDate": date, "reason": text}

    @staticmethod
    def _test_status(interpretation: str | None) -> str | None:
        if not interpretation:
            return None
        known = {"NORMAL": "Normal", "CRITICALLY_LOW": "Critical", "CRITICALLY_HIGH": "Critical"}
        return known.get(interpretation, "Abnormal")

    def _panel(self, anchor: Obs) -> str | None:
        parent = self.parent(anchor)
        if parent is None or self.rules.group(parent) is not None:
            return None
        concept = self.concept(parent)
        return concept.name if concept.concept_class in self.rules.panels else None
