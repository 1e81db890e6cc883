"""The concept dictionary.

It has CIEL concepts under their real uuids, and a few that only this hospital has.
"""

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dev.hospital.sql import Connection, fetch

# The namespace of the uuids of a hospital's own metadata.
LOCAL = uuid.UUID("5b1f3a52-3f0e-4d0a-9d61-0f6a3f2c7e10")

# By name: (hl7 abbreviation, uuid). They are the same in every OpenMRS.
DATATYPES: Mapping[str, tuple[str, str]] = {
    "Numeric": ("NM", "8d4a4488-c2cc-11de-8d13-0010c6dffd0f"),
    "Coded": ("CWE", "8d4a48b6-c2cc-11de-8d13-0010c6dffd0f"),
    "Text": ("ST", "8d4a4ab4-c2cc-11de-8d13-0010c6dffd0f"),
    "N/A": ("ZZ", "8d4a4c94-c2cc-11de-8d13-0010c6dffd0f"),
    "Date": ("DT", "8d4a505e-c2cc-11de-8d13-0010c6dffd0f"),
    "Time": ("TM", "8d4a591e-c2cc-11de-8d13-0010c6dffd0f"),
    "Datetime": ("TS", "8d4a5af4-c2cc-11de-8d13-0010c6dffd0f"),
    "Boolean": ("BIT", "8d4a5cca-c2cc-11de-8d13-0010c6dffd0f"),
    "Complex": ("ED", "8d4a6242-c2cc-11de-8d13-0010c6dffd0f"),
}
CLASSES: Mapping[str, str] = {
    "Test": "8d4907b2-c2cc-11de-8d13-0010c6dffd0f",
    "Procedure": "8d490bf4-c2cc-11de-8d13-0010c6dffd0f",
    "Drug": "8d490dfc-c2cc-11de-8d13-0010c6dffd0f",
    "Diagnosis": "8d4918b0-c2cc-11de-8d13-0010c6dffd0f",
    "Finding": "8d491a9a-c2cc-11de-8d13-0010c6dffd0f",
    "Question": "8d491e50-c2cc-11de-8d13-0010c6dffd0f",
    "LabSet": "8d492026-c2cc-11de-8d13-0010c6dffd0f",
    "MedSet": "8d4923b4-c2cc-11de-8d13-0010c6dffd0f",
    "ConvSet": "8d492594-c2cc-11de-8d13-0010c6dffd0f",
    "Misc": "8d492774-c2cc-11de-8d13-0010c6dffd0f",
    "Symptom": "8d492954-c2cc-11de-8d13-0010c6dffd0f",
    "Frequency": "8e071bfe-520c-44c0-a89b-538e9129b42a",
}
# By name: (hl7 code, uuid).
SOURCES: Mapping[str, tuple[str | None, str]] = {
    "CIEL": (None, "21ADDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDD"),
    "LOINC": ("LN", "6ADDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDD"),
    "SNOMED CT": ("SCT", "1ADDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDD"),
}
MAP_TYPES: Mapping[str, str] = {
    "SAME-AS": "35543629-7d8c-11e1-909d-c80aa9edcf4e",
    "NARROWER-THAN": "43ac5109-7d8c-11e1-909d-c80aa9edcf4e",
}


def local_uuid(name: str) -> str:
    """Return the uuid of a hospital's own metadata, the same for the same name."""
    return str(uuid.uuid5(LOCAL, name))


@dataclass(frozen=True, slots=True)
class Concept:
    """A concept of the dictionary.

    `key` is the CIEL code, or a word for what CIEL lacks. `units` and `normal` (low, high) are for
    Numeric.
    """

    key: str
    kind: str
    datatype: str
    en: str
    fr: str
    short: str = ""
    units: str = ""
    normal: tuple[float, float] | None = None
    codes: tuple[tuple[str, str], ...] = ()
    members: tuple[str, ...] = ()

    @property
    def uuid(self) -> str:
        return concept_uuid(self.key)

    @property
    def mappings(self) -> tuple[tuple[str, str], ...]:
        """The codes of other dictionaries, as (source, code)."""
        if self.key.isdigit():
            return (("CIEL", self.key), *self.codes)
        return self.codes


def concept_uuid(key: str) -> str:
    """Return the concept's uuid. CIEL pads its code with A to 36 characters."""
    if key.isdigit():
        return f"{key:A<36}"
    return OWN_UUIDS.get(key) or local_uuid(f"concept/{key}")


OWN_UUIDS = {
    "true": "d57ee217-fabe-4577-bf8f-285fb6120e21",
    "false": "9e43bcca-66e7-4ecb-b1b6-75d2d5cc271c",
    "attachment": "7cac8397-53cd-4f00-a6fe-028e8d743f8e",  # the Attachments module's image concept
}


def _vitals() -> Iterator[Concept]:
    rows = [
        (
            "5085",
            "Systolic blood pressure",
            "Pression artérielle systolique",
            "SBP",
            "mmHg",
            (90, 130),
            "8480-6",
        ),
        (
            "5086",
            "Diastolic blood pressure",
            "Pression artérielle diastolique",
            "DBP",
            "mmHg",
            (60, 85),
            "8462-4",
        ),
        ("5087", "Pulse", "Pouls", "HR", "beats/min", (55, 100), "8867-4"),
        ("5088", "Temperature (C)", "Température (C)", "Temp", "DEG C", (36, 37.5), "8310-5"),
        ("5089", "Weight (kg)", "Poids (kg)", "Wt", "kg", None, "3141-9"),
        ("5090", "Height (cm)", "Taille (cm)", "Ht", "cm", None, "8302-2"),
    ]
    for key, en, fr, short, units, normal, loinc in rows:
        yield Concept(key, "Finding", "Numeric", en, fr, short, units, normal, (("LOINC", loinc),))
    en = "Arterial blood oxygen saturation (pulse oximeter)"
    fr = "Saturation en oxygène du sang artériel"
    codes = (("LOINC", "59408-5"),)
    yield Concept("5092", "Test", "Numeric", en, fr, "SpO2", "%", (94, 100), codes)


def _laboratory() -> Iterator[Concept]:
    cbc = ("21", "678", "729")
    yield Concept("1019", "LabSet", "N/A", "Complete blood count", "Hémogramme", "CBC", members=cbc)
    rows = [
        ("21", "Haemoglobin", "Hémoglobine", "Hb", "g/dL", (11.0, 16.5), "718-7"),
        ("678", "White blood cells", "Globules blancs", "WBC", "10^3/uL", (4.0, 11.0), "6690-2"),
        ("729", "Platelets", "Plaquettes", "PLT", "10^3/uL", (150.0, 450.0), "777-3"),
    ]
    for key, en, fr, short, units, normal, loinc in rows:
        yield Concept(key, "Test", "Numeric", en, fr, short, units, normal, (("LOINC", loinc),))
    codes = (("LOINC", "32700-7"),)
    yield Concept("32", "Test", "Coded", "Malarial smear", "Goutte épaisse", "GE", codes=codes)
    yield Concept("703", "Misc", "N/A", "Positive", "Positif", "POS")
    yield Concept("664", "Misc", "N/A", "Negative", "Négatif", "NEG")
    yield Concept(
        "collected", "Test", "Datetime", "Specimen collected at", "Prélèvement effectué à"
    )


def _diagnoses() -> Iterator[Concept]:
    group = ("1284", "161602", "159394", "159946")
    yield Concept(
        "159947", "ConvSet", "N/A", "Visit Diagnoses", "Diagnostics de la visite", members=group
    )
    yield Concept("1284", "Finding", "Coded", "PROBLEM LIST", "LISTE DE PROBLÈMES")
    en, fr = "Diagnosis or problem, non-coded", "Diagnostic ou problème, non codé"
    yield Concept("161602", "Diagnosis", "Text", en, fr)
    yield Concept("159394", "Finding", "Coded", "Diagnosis certainty", "Certitude du diagnostic")
    yield Concept("159946", "Finding", "Coded", "Diagnosis order", "Ordre du diagnostic")
    yield Concept(
        "159392", "Misc", "N/A", "Confirmed diagnosis", "Diagnostic confirmé", "Confirmed"
    )
    yield Concept("159393", "Misc", "N/A", "Presumed diagnosis", "Diagnostic présumé", "Presumed")
    yield Concept("159943", "Misc", "N/A", "Primary", "Principal")
    yield Concept("159944", "Misc", "N/A", "Secondary", "Secondaire")
    rows = [
        ("116128", "Malaria", "Paludisme", "61462000"),
        ("117399", "Hypertension", "Hypertension artérielle", "38341003"),
        ("119481", "Diabetes mellitus", "Diabète sucré", "73211009"),
        ("114100", "Pneumonia", "Pneumonie", "233604007"),
        ("117889", "Gastroenteritis", "Gastro-entérite", "25374005"),
        ("121375", "Asthma", "Asthme", "195967001"),
        ("111633", "Urinary tract infection", "Infection urinaire", "68566005"),
        ("121629", "Anaemia", "Anémie", "271737000"),
    ]
    for key, en, fr, snomed in rows:
        yield Concept(key, "Diagnosis", "N/A", en, fr, codes=(("SNOMED CT", snomed),))


def _medication() -> Iterator[Concept]:
    # OpenMRS distributions record a prescription as this set: drug, dose, frequency, duration and,
    # now and then, the start.
    group = ("1282", "160856", "160855", "159368", "1190")
    en, fr = "Current medication order", "Prescription médicale en cours"
    yield Concept("1442", "MedSet", "N/A", en, fr, members=group)
    yield Concept("1282", "Question", "Coded", "MEDICATION ORDERS", "MÉDICAMENTS PRESCRITS")
    en = "Quantity of medication prescribed per dose"
    fr = "Quantité de médicament prescrite par dose"
    yield Concept("160856", "Question", "Text", en, fr, "Dosage")
    yield Concept(
        "160855", "Question", "Coded", "Drug frequency, coded", "Fréquence du médicament, codée"
    )
    yield Concept(
        "159368", "Question", "Numeric", "Medication duration", "Durée du traitement", units="days"
    )
    yield Concept(
        "1190", "Question", "Date", "Historical drug start date", "Date de début du médicament"
    )
    yield Concept("160862", "Frequency", "N/A", "Once daily", "Une fois par jour", "OD")
    yield Concept("160858", "Frequency", "N/A", "Twice daily", "Deux fois par jour", "BD")
    yield Concept("160866", "Frequency", "N/A", "Thrice daily", "Trois fois par jour", "TDS")
    yield Concept("70116", "Drug", "N/A", "Acetaminophen", "Paracétamol")
    yield Concept("71160", "Drug", "N/A", "Amoxicillin", "Amoxicilline")
    yield Concept("71137", "Drug", "N/A", "Amlodipine", "Amlodipine")
    yield Concept("79651", "Drug", "N/A", "Metformin", "Metformine")
    # No mapping: only its class tells that it is a drug.
    yield Concept(
        "coartem", "Drug", "N/A", "Artemether / lumefantrine", "Artéméther / luméfantrine"
    )


def _consultation() -> Iterator[Concept]:
    yield Concept(
        "160531",
        "Question",
        "Text",
        "Chief complaint (text)",
        "Motif principal de consultation (texte)",
    )
    yield Concept("160288", "Question", "Coded", "Reason for visit", "Motif de la visite")
    yield Concept("1246", "Misc", "N/A", "Scheduled visit", "Visite programmée")
    yield Concept("unscheduled", "Misc", "N/A", "Unscheduled visit", "Visite non programmée")
    yield Concept(
        "162169", "Question", "Text", "Text of encounter note", "Texte de la note de consultation"
    )
    yield Concept("832", "Finding", "Boolean", "Weight loss", "Perte de poids")
    yield Concept("5096", "Question", "Date", "Return visit date", "Date de la prochaine visite")
    yield Concept("attachment", "Question", "Complex", "ATT IMAGE ATTACHMENT", "IMAGE JOINTE")
    # No mapping, class Misc, Text: no rule of any mapping can know what it is.
    yield Concept("ward-remark", "Misc", "Text", "Ward remark", "Remarque du service")
    yield Concept("true", "Misc", "N/A", "True", "Vrai")
    yield Concept("false", "Misc", "N/A", "False", "Faux")


CONCEPTS: tuple[Concept, ...] = (
    *_vitals(),
    *_laboratory(),
    *_diagnoses(),
    *_medication(),
    *_consultation(),
)

# The formulations in stock by a word for each: (concept, name, strength).
DRUGS: Mapping[str, tuple[str, str, str]] = {
    "paracetamol": ("70116", "Paracetamol 500mg tablet", "500mg"),
    "amoxicillin": ("71160", "Amoxicillin 250mg capsule", "250mg"),
    "amlodipine": ("71137", "Amlodipine 5mg tablet", "5mg"),
    "metformin": ("79651", "Metformin 500mg tablet", "500mg"),
    "coartem": ("coartem", "Artemether 20mg / lumefantrine 120mg tablet", "20mg/120mg"),
}


def drug_uuid(word: str) -> str:
    return local_uuid(f"drug/{word}")


@dataclass(frozen=True, slots=True)
class Dictionary:
    """The ids that one database gives to the concepts, names and drugs that its forms use."""

    concepts: Mapping[str, int]
    names: Mapping[int, tuple[int, ...]]
    drugs: Mapping[str, int]
    true: int | None
    false: int | None

    @classmethod
    def read(cls, connection: Connection) -> "Dictionary":
        """Find them by uuid. What this database lacks is absent."""
        keys = {concept.uuid: concept.key for concept in CONCEPTS}
        sql = "SELECT uuid, concept_id FROM concept WHERE uuid IN %s"
        rows = fetch(connection, sql, [list(keys)])
        concepts = {keys[row["uuid"]]: int(row["concept_id"]) for row in rows}
        words = {drug_uuid(word): word for word in DRUGS}
        drugs = fetch(connection, "SELECT uuid, drug_id FROM drug WHERE uuid IN %s", [list(words)])
        return cls(
            concepts=concepts,
            names=_names(connection, list(concepts.values())),
            drugs={words[row["uuid"]]: int(row["drug_id"]) for row in drugs},
            true=_property(connection, "concept.true"),
            false=_property(connection, "concept.false"),
        )


def _names(connection: Connection, concepts: list[int]) -> dict[int, tuple[int, ...]]:
    """Return the concept_name_ids of these concepts in their order, by concept_id."""
    sql = (
        "SELECT concept_id, concept_name_id FROM concept_name"
        " WHERE voided = 0 AND concept_id IN %s ORDER BY 2"
    )
    names: dict[int, tuple[int, ...]] = {}
    # An empty list is no SQL; no concept has the id 0.
    for row in fetch(connection, sql, [concepts or [0]]):
        names[row["concept_id"]] = (*names.get(row["concept_id"], ()), row["concept_name_id"])
    return names


def _property(connection: Connection, name: str) -> int | None:
    sql = "SELECT property_value FROM global_property WHERE property = %s"
    rows: list[dict[str, Any]] = fetch(connection, sql, [name])
    return int(rows[0]["property_value"]) if rows else None
