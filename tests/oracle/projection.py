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
from tests.oracle.meaning import Saying, Sayings
from tests.oracle.rulebook import Rulebook, called

Obs = dict[str, Any]
NOBODY = Author("OpenMRS", None, "none")
TEST_STATUS = {
    "NORMAL": "Normal",
    "ABNORMAL": "Abnormal",
    "LOW": "Abnormal",
    "HIGH": "Abnormal",
    "CRITICALLY_ABNORMAL": "Critical",
    "CRITICALLY_LOW": "Critical",
    "CRITICALLY_HIGH": "Critical",
}


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

    @cached_property
    def sayings(self) -> list[Saying]:
        """What the live rows say, each row with a value at least once."""
        everything = Sayings(
            self.live, self.rules, self.facts.concepts, self.value_kind, self.words, self.rank
        )
        return list(everything.all())

    def value_kind(self, row: Obs) -> str | None:
        reading = self.reading(row)
        if reading is None:
            return None
        is_file = reading.kind == "text" and row.get("value_complex") is not None
        return "complex" if is_file else reading.kind

    def words(self, row: Obs) -> str | None:
        reading = self.reading(row)
        in_words = self.value_kind(row) in ("coded", "drug", "boolean", "text")
        return reading.text if reading and in_words else None

    def rank(self, row: Obs) -> int:
        """The obs_id of the first version that is not purged."""
        seen, first = {row["obs_id"]}, row
        while (older := self.rows.get(first.get("previous_version"))) is not None:
            if older["obs_id"] in seen:
                return int(row["obs_id"])
            seen.add(older["obs_id"])
            first = older
        return int(first["obs_id"])

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
        """Live rows with a value that no rule knows, or that are parts of nothing."""
        return sum(len(one.stating) for one in self.sayings if one.unmapped)

    def _all(self, patient_id: str) -> Iterator[Record]:
        for saying in self.sayings:
            hidden = saying.kind == "note" and not self.rules.notes
            if saying.type is not None and not hidden:
                yield self._record(patient_id, saying)

    # -- one record

    def _record(self, patient_id: str, saying: Saying) -> Record:
        anchor, stating = saying.anchor, saying.stating
        first, archived = self._first_version(anchor)
        author, comments = self.author(anchor), anchor["comments"]
        author = author if author is not NOBODY else self.author(stating[0])
        comments = comments or stating[0]["comments"]
        data = self._data(saying, author, comments)
        content = {
            "patientId": patient_id,
            "type": saying.type,
            "data": {name: value for name, value in data.items() if value not in (None, "")},
            "openmrsData": self._openmrs(saying, author),
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

    def _openmrs(self, saying: Saying, author: Author) -> dict[str, Any]:
        anchor = saying.anchor
        said = self.reading(saying.stating[0])
        kinds = {"numeric": "numeric", "coded": "coded", "drug": "coded", "boolean": "coded"}
        members = [*saying.stating, *(one for many in saying.parts.values() for one in many)]
        uuids = sorted(member["uuid"] for member in members)
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
            "memberUuids": None if members == [anchor] else uuids,
            "status": anchor.get("status"),
            "interpretation": anchor.get("interpretation"),
            "authorSource": author.source,
            "kind": saying.kind if saying.kind != saying.type else None,
            "state": saying.state if saying.state != "present" else None,
        }
        return {name: value for name, value in fields.items() if value is not None}

    def _data(self, saying: Saying, author: Author, comments: str | None) -> dict[str, Any]:
        anchor, kind = saying.anchor, saying.kind
        readings = [reading for reading in map(self.reading, saying.stating) if reading]
        question = self.concept(anchor).name
        when, text = anchor["obs_datetime"], "; ".join(reading.text for reading in readings)
        if saying.named:
            text = self.concept(saying.stating[0]).name
        part = {role: "; ".join(map(self.full, rows)) for role, rows in saying.parts.items()}
        state = {"past": "Past", "suspected": "Suspected"}.get(saying.state)
        since = part.get("start") or when
        common = {
            "name": question,
            "details": text,
            "date": when,
            "doctor": author.name,
            "hospital": self.settings["name"],
            "notes": comments,
        }
        illness = {
            "procedure": f"Synced from OpenMRS - {author.name}",
            "diagnosis": text,
            "diagnosed": since,
            "diagnosedDate": since,
            "diagnosedBy": author.name,
            "status": part.get("certainty"),
        }
        if kind == "condition":
            own = illness | self.described(saying, part.get("rank"), "certainty rank start")
            own["status"] = part.get("certainty") or self.more_than_yes(saying) or state
        elif kind == "allergy":
            none = saying.state == "none_known"
            title = "No known allergies" if none else f"Allergy: {text}"
            own = illness | {"name": "Allergy", "diagnosis": title}
            own |= self.described(saying, None, "start")
        elif kind == "medication":
            own = {
                "medicationName": text,
                "dosage": part.get("dosage"),
                "frequency": part.get("frequency"),
                "endDate": part.get("endDate"),
                "startDate": since,
                "prescribedBy": author.name,
                "status": state,
            }
            shown = "dosage duration endDate frequency start"
            own |= self.described(saying, part.get("duration"), shown)
        elif kind == "vaccination":
            more = self.more_than_yes(saying)
            vaccine = f"{text}: {more}" if more else text
            own = {"date": since, "visitDate": since, "reason": f"Vaccination: {vaccine}"}
            own |= self.described(saying, None, "start")
        elif kind in ("visit", "order"):
            encounter = self.facts.encounters.get(anchor["encounter_id"])
            day = encounter["written"] if encounter else when
            reason = f"{question}: {text}" if kind == "order" else text
            own = {"date": day, "visitDate": day, "reason": reason}
            own |= self.described(saying, None, "")
        else:
            own = self._result(saying, text, readings)
        return common | own

    def more_than_yes(self, saying: Saying) -> str | None:
        """The answer to a question that is stated itself, if it says more than yes."""
        row = saying.stating[0]
        answer, reading = self.facts.concepts.get(row["value_coded"]), self.reading(row)
        if not saying.named or reading is None or reading.text == "Yes":
            return None
        return None if answer and "CIEL:1065" in called(answer) else reading.text

    def _result(self, saying: Saying, text: str, readings: list[Reading]) -> dict[str, Any]:
        anchor = saying.anchor
        own: dict[str, Any] = {
            "testName": self.concept(anchor).name,
            "testDate": anchor["obs_datetime"],
            "result": text if saying.named else "; ".join(reading.full for reading in readings),
            "testStatus": TEST_STATUS.get(anchor.get("interpretation") or ""),
            "status": anchor.get("status"),
        }
        if saying.pressure:
            numbers, units = "/".join(reading.text for reading in readings), self.units(anchor)
            own |= {"name": "Blood pressure", "testName": "Blood pressure", "details": numbers}
            own["result"] = f"{numbers} {units}" if units else numbers
        heading = {"finding": "Finding", "family_history": "Family history", "note": "Other notes"}
        return own | self.described(saying, heading.get(saying.kind), "")

    def units(self, row: Obs) -> str | None:
        return self.concept(row).units

    def full(self, row: Obs) -> str:
        reading = self.reading(row)
        return reading.full if reading else ""

    def described(self, saying: Saying, first: str | None, shown: str) -> dict[str, str]:
        """`description`, with all parts but those that are shown elsewhere."""
        begins = first or (self.concept(saying.panel).name if saying.panel else "")
        told = [begins] if begins else []
        for role in sorted(saying.parts):
            if role not in ("present", "revised", *shown.split()):
                rows = saying.parts[role]
                told += [f"{self.concept(row).name}: {self.full(row)}" for row in rows]
        return {"description": "; ".join(told)}
