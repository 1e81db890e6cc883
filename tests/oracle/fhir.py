"""A FHIR destination compared with a hospital, by docs/how-to/fhir.md."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from tests.oracle.expected import load_mapping
from tests.oracle.facts import Bounds, Concept, Facts, Query, Settings, read
from tests.oracle.meaning import Sayings
from tests.oracle.projection import Chart
from tests.oracle.rulebook import Rulebook, ciel
from tests.oracle.words import compared_with, computed

Resource = dict[str, Any]
Key = tuple[str, str]  # resourceType, id
Row = dict[str, Any]

NATIONAL_ID = "urn:openmrs-passport:national-id"
SYSTEMS = {
    "ciel": "https://cielterminology.org",
    "loinc": "http://loinc.org",
    "snomed ct": "http://snomed.info/sct",
    "snomed-ct": "http://snomed.info/sct",
    "icd-10-who": "http://hl7.org/fhir/sid/icd-10",
    "rxnorm": "http://www.nlm.nih.gov/research/umls/rxnorm",
}
MEANINGS = {
    "NORMAL": "N",
    "ABNORMAL": "A",
    "CRITICALLY_LOW": "LL",
    "LOW": "L",
    "HIGH": "H",
    "CRITICALLY_HIGH": "HH",
}
TERMS = "http://terminology.hl7.org/CodeSystem/"
ABSENT = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
NOTHING = {"extension": [{"url": ABSENT, "valueCode": "masked"}]}
FRAME = {"resourceType", "id", "meta", "text", "identifier", "extension"}


@dataclass(frozen=True)
class Differences:
    """Named by type and id; `live` and `withdrawn` count what is there."""

    live: int
    withdrawn: int
    found: list[str] = field(default_factory=list)


def compare(
    connection: Any, settings: Settings, everybody: bool, prefix: str, there: Iterable[Resource]
) -> Differences:
    """`everybody`: those too whose national id isn't sure. Nobody may write at the hospital."""
    wanted = expected(connection, settings, everybody, prefix)
    held = {(one["resourceType"], one["id"]): one for one in there}
    gone = {key: one for key, one in held.items() if in_error(one)}
    live = {key: plain(one) for key, one in held.items() if key not in gone}
    found = [f"{kind}/{id_} is missing" for kind, id_ in wanted.keys() - live.keys()]
    found += [f"{kind}/{id_} is one too many" for kind, id_ in live.keys() - wanted.keys()]
    for key in wanted.keys() & live.keys():
        names = sorted(n for n in wanted[key] | live[key] if wanted[key].get(n) != live[key].get(n))
        found += [f"{'/'.join(key)} differs in {', '.join(names)}"] if names else []
    found += [
        f"{kind}/{id_} still says {said}"
        for (kind, id_), one in gone.items()
        if (said := still_says(one))
    ]
    return Differences(len(live), len(gone), sorted(found))


def in_error(one: Resource) -> bool:
    codes = [code["code"] for code in one.get("verificationStatus", {}).get("coding", ())]
    return "entered-in-error" in (one.get("status"), *codes)


def still_says(withdrawn: Resource) -> list[str]:
    """Return what a withdrawn resource holds although it must hold nothing."""
    empty = {
        name
        for name in ("code", "subject", "medicationCodeableConcept")
        if withdrawn.get(name) == NOTHING
    }
    return sorted(withdrawn.keys() - FRAME - empty - {"status", "verificationStatus"})


def plain(one: Resource) -> Resource:
    """Without what a server adds, the row's version, and the order of codings."""
    kept = {name: value for name, value in one.items() if name not in ("meta", "text")}
    (row,) = kept["extension"]
    kept["extension"] = [part for part in row["extension"] if part["url"] != "version"]
    return {name: ordered(value) for name, value in kept.items()}


def ordered(value: Any) -> Any:
    if isinstance(value, dict) and "coding" in value:
        return {
            **value,
            "coding": sorted(value["coding"], key=lambda one: (one["system"], one["code"])),
        }
    return value


def expected(
    connection: Any, settings: Settings, everybody: bool, prefix: str
) -> dict[Key, Resource]:
    facts = read(connection, settings)
    ward = Ward(connection, facts, settings, everybody, prefix + settings["key"])
    made = filter(None, map(ward.resource, facts.obs.values()))
    return {
        (one["resourceType"], one["id"]): {name: ordered(value) for name, value in one.items()}
        for one in made
    }


class Ward:
    """One hospital's rows as resources."""

    def __init__(
        self, connection: Any, facts: Facts, settings: Settings, everybody: bool, name: str
    ) -> None:
        ask = Query(connection)
        self.facts, self.everybody, self.name = facts, everybody, name
        self.uuids = dict(ask.pairs("SELECT person_id, uuid FROM person"))
        self.kinds = dict(
            ask.pairs(
                "SELECT e.encounter_id, t.name FROM encounter e"
                " JOIN encounter_type t ON t.encounter_type_id = e.encounter_type"
            )
        )
        rules = Rulebook(load_mapping(), facts.concepts)
        self.chart = Chart(facts, settings, rules, [])

    def resource(self, row: Row) -> Resource | None:
        """None for a row that is voided, or of somebody who isn't kept."""
        state, digits = self.facts.people.get(row["person_id"], ("none", None))
        if row["voided"] or not (self.everybody or state == "ok"):
            return None
        kind = self.type_of(row)
        own = self.own("person", self.uuids.get(row["person_id"], str(row["person_id"])))
        frame = {
            "resourceType": kind,
            "id": f"{self.name}-{row['obs_id']}",
            "identifier": [self.own("obs", row["uuid"])],
            "extension": [{"url": "person", "valueInteger": row["person_id"]}],
            "subject": {
                "type": "Patient",
                "identifier": {"system": NATIONAL_ID, "value": digits} if digits else own,
            },
            "note": [{"text": words}] if (words := (row["comments"] or "").strip()) else None,
        }
        make = {
            "Observation": self.observation,
            "Condition": self.condition,
            "MedicationStatement": self.medication,
        }
        return {
            name: value for name, value in (frame | make[kind](row)).items() if value is not None
        }

    def type_of(self, row: Row) -> str:
        """What the row says by its question alone; what the question names stays a question."""
        chart = self.chart
        lone = {row["obs_id"]: {**row, "obs_group_id": None}}
        sayings = Sayings(
            lone,
            chart.rules,
            self.facts.concepts,
            chart.value_kind,
            chart.words,
            lambda one: int(one["obs_id"]),
        )
        for saying in sayings.all():
            if saying.state == "present" and not saying.named:
                types = {"condition": "Condition", "medication": "MedicationStatement"}
                return types.get(saying.kind, "Observation")
        return "Observation"

    def observation(self, row: Row) -> Resource:
        question = self.facts.concepts[row["concept_id"]]
        bounds = compared_with(row, question, self.facts)
        meaning = self.interpretation(row, bounds)
        author = self.author(row)
        return {
            "status": {"PRELIMINARY": "preliminary", "AMENDED": "amended"}.get(
                row.get("status"), "final"
            ),
            "code": self.concept(self.facts.concepts[row["concept_id"]]),
            "encounter": self.encounter(row),
            "effectiveDateTime": self.when(row["obs_datetime"]),
            "issued": self.at(row["date_created"]),
            "performer": author and [author],
            "interpretation": meaning and [meaning],
            "referenceRange": self.usual(bounds, question.units),
            **self.value(row),
        }

    @staticmethod
    def interpretation(row: Row, bounds: Bounds | None) -> Resource | None:
        """The hospital's own. What is computed says so."""
        stated, found = MEANINGS.get(row.get("interpretation")), computed(row, bounds)
        if found:
            said = code("v3-ObservationInterpretation", MEANINGS[found])
            return {**said, "text": "computed from the reference range"}
        return code("v3-ObservationInterpretation", stated) if stated else None

    @staticmethod
    def usual(bounds: Bounds | None, units: str | None) -> list[Resource] | None:
        if bounds is None or bounds.low is bounds.high is None:
            return None
        unit = {"unit": units} if units else {}
        ends = {"low": bounds.low, "high": bounds.high}
        said = {end: {"value": value, **unit} for end, value in ends.items() if value is not None}
        return [{**said, "type": code("referencerange-meaning", "normal")}]

    def condition(self, row: Row) -> Resource:
        met = self.encounter(row)
        return {
            "category": [code("condition-category", "encounter-diagnosis")] if met else None,
            "code": self.answer(row),
            "encounter": met,
            "recordedDate": self.when(row["obs_datetime"]),
            "asserter": self.author(row),
        }

    def medication(self, row: Row) -> Resource:
        return {
            "status": "unknown",
            "medicationCodeableConcept": self.answer(row),
            "context": self.encounter(row),
            "dateAsserted": self.when(row["obs_datetime"]),
            "informationSource": self.author(row),
        }

    def value(self, row: Row) -> Resource:
        said = self.chart.reading(row)
        if said is None or not said.text.strip():
            return {}
        answer = self.facts.concepts.get(row["value_coded"])
        if said.kind == "boolean" and (truth := self.truth(said.text, answer)) is not None:
            return {"valueBoolean": truth}
        if said.kind in ("coded", "drug", "boolean"):
            return {"valueCodeableConcept": self.answer(row)}
        if said.kind == "numeric":
            return self.quantity(row, said.full)
        if said.kind == "time":
            return self.moment(row, said.text)
        if row["value_text"] is None or row.get("value_complex") is not None:
            return {"dataAbsentReason": code("data-absent-reason", "unsupported")}
        return {"valueString": said.text}

    def quantity(self, row: Row, text: str) -> Resource:
        number, modifier = float(row["value_numeric"]), row["value_modifier"] or None
        if modifier not in (None, "<", "<=", ">=", ">"):
            return {"valueString": text}
        units = self.facts.concepts[row["concept_id"]].units
        named = {"value": number, "comparator": modifier, "unit": units}
        return {
            "valueQuantity": {name: value for name, value in named.items() if value is not None}
        }

    def moment(self, row: Row, text: str) -> Resource:
        datatype = self.facts.concepts[row["concept_id"]].datatype
        if datatype == "Time":
            return {"valueTime": text}
        found = day(text) if datatype == "Date" else self.at(row["value_datetime"])
        return {"valueDateTime": found} if found else {"valueString": text}

    @staticmethod
    def truth(text: str, answer: Concept | None) -> bool | None:
        if answer is None:
            return {"Yes": True, "No": False}.get(text)
        codes = codes_of(answer)
        return True if "CIEL:1065" in codes else False if "CIEL:1066" in codes else None

    def answer(self, row: Row) -> Resource:
        said = self.chart.reading(row)
        assert said is not None
        found = self.facts.concepts.get(row["value_coded"])
        return {**(self.concept(found) if found else {}), "text": said.text}

    def concept(self, one: Concept) -> Resource:
        own = {"system": f"urn:openmrs:{self.name}:concept", "code": one.uuid, "display": one.name}
        return {"coding": [own, *codings(one)], "text": one.name}

    def encounter(self, row: Row) -> Resource | None:
        found = self.facts.encounters.get(row["encounter_id"])
        if found is None:
            return None
        named = {"type": "Encounter", "identifier": self.own("encounter", found["uuid"])}
        return named | {"display": self.kinds[row["encounter_id"]]}

    def author(self, row: Row) -> Resource | None:
        found = self.chart.author(row)
        return None if found.source == "none" else {"display": found.name}

    def own(self, what: str, value: str) -> Resource:
        return {"system": f"urn:openmrs:{self.name}:{what}", "value": value}

    def at(self, written: str) -> str | None:
        found = self.chart.instant(written)
        return f"{found.isoformat()}Z" if found else None

    def when(self, written: str) -> str | None:
        return self.at(written) or day(written)


def day(written: str) -> str | None:
    try:
        return date.fromisoformat(written[:10]).isoformat()
    except ValueError:
        return None


def code(terms: str, value: str) -> Resource:
    return {"coding": [{"system": TERMS + terms, "code": value}]}


def codes_of(one: Concept) -> frozenset[str]:
    """Its mappings, and the code in a uuid of the CIEL dictionary."""
    return one.mappings | ({ciel(one)} - {""})


def codings(one: Concept) -> Iterator[Resource]:
    known = {
        (SYSTEMS[source], rest)
        for mapping in codes_of(one)
        for source, rest in [apart(mapping)]
        if source in SYSTEMS
    }
    yield from ({"system": system, "code": rest} for system, rest in sorted(known))


def apart(mapping: str) -> tuple[str, str]:
    source, _, rest = mapping.partition(":")
    return source.casefold(), rest
