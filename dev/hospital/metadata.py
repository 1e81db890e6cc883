"""Everything that patients' data refer to: staff, places, types and the dictionary."""

import hashlib
from datetime import datetime
from random import Random

from dev.hospital import dictionary, people
from dev.hospital.dictionary import CONCEPTS, local_uuid
from dev.hospital.sql import Connection, insert_many

ADMIN = 1
FIRST_CONCEPT_SPREAD = 7  # hospitals number their concepts in their own way


def fill(connection: Connection, *, seed: int, now: datetime) -> None:
    """The rows of every table but those of patients; `seed` also decides how concepts are numbered."""
    _staff(connection, Random(f"staff {seed}"), now)
    _types(connection, now)
    _places(connection, Random(f"places {seed}"), now)
    _concepts(connection, 100 + seed % FIRST_CONCEPT_SPREAD * 1000, now)


def _uuid(rng: Random) -> str:
    return local_uuid(f"staff {rng.getrandbits(128)}")


def _staff(connection: Connection, rng: Random, now: datetime) -> None:
    numbered = list(enumerate(people.STAFF, 1))
    persons = [(i, rng.choice("MF"), now, _uuid(rng)) for i, _ in numbered]
    insert_many(connection, "person", "person_id gender date_created uuid", persons)
    secret = hashlib.sha512(b"a password that nobody has").hexdigest()
    users = [
        (i, f"{i}-{i % 7}", one.username, secret, secret, ADMIN, now, i, one.retired, _uuid(rng))
        for i, one in numbered
    ]
    columns = "user_id system_id username password salt creator date_created person_id retired uuid"
    insert_many(connection, "users", columns, users)
    names = [
        (one.preferred_name, i, one.given, one.family, ADMIN, now, _uuid(rng))
        for i, one in numbered
    ]
    columns = "preferred person_id given_name family_name creator date_created uuid"
    insert_many(connection, "person_name", columns, names)
    providers = [
        (i, one.provider, ADMIN, now, one.retired, _uuid(rng))
        for i, one in numbered
        if one.provider
    ]
    insert_many(
        connection, "provider", "person_id identifier creator date_created retired uuid", providers
    )


def _types(connection: Connection, now: datetime) -> None:
    identifier_types = [
        ("National ID", ADMIN, now, people.NATIONAL_ID_TYPE),
        ("OpenMRS ID", ADMIN, now, people.OPENMRS_ID_TYPE),
        ("Old National ID card number", ADMIN, now, people.OLD_ID_TYPE),
    ]
    insert_many(
        connection, "patient_identifier_type", "name creator date_created uuid", identifier_types
    )
    for table, entries in (
        ("encounter_type", people.ENCOUNTER_TYPES),
        ("encounter_role", people.ENCOUNTER_ROLES),
        ("visit_type", {"Facility Visit": "7b0f5697-27e3-40c4-8bae-f4049abfb4ed"}),
    ):
        rows = [(name, ADMIN, now, key) for name, key in entries.items()]
        insert_many(connection, table, "name creator date_created uuid", rows)
    order_type = (
        "Test Order",
        ADMIN,
        now,
        "52a447d3-a64a-11e3-9aeb-50e549534c5e",
        "org.openmrs.TestOrder",
    )
    insert_many(
        connection, "order_type", "name creator date_created uuid java_class_name", [order_type]
    )
    setting = ("Outpatient", "OUTPATIENT", ADMIN, now, "6f0c9a92-6f24-11e3-af88-005056821db0")
    insert_many(
        connection, "care_setting", "name care_setting_type creator date_created uuid", [setting]
    )


def _places(connection: Connection, rng: Random, now: datetime) -> None:
    rows = [(name, "Rwanda", ADMIN, now, _uuid(rng)) for name in people.LOCATIONS]
    insert_many(connection, "location", "name country creator date_created uuid", rows)


def _concepts(connection: Connection, first: int, now: datetime) -> None:
    _kinds(connection, now)
    ids = {concept.key: first + index for index, concept in enumerate(CONCEPTS)}
    kinds = {name: i for i, name in enumerate(dictionary.CLASSES, 1)}
    datatypes = {name: i for i, name in enumerate(dictionary.DATATYPES, 1)}
    rows = [
        (
            ids[one.key],
            datatypes[one.datatype],
            kinds[one.kind],
            bool(one.members),
            ADMIN,
            now,
            one.uuid,
        )
        for one in CONCEPTS
    ]
    insert_many(
        connection,
        "concept",
        "concept_id datatype_id class_id is_set creator date_created uuid",
        rows,
    )
    numeric = [
        (ids[one.key], *(one.normal or (None, None)), one.units, 1)
        for one in CONCEPTS
        if one.datatype == "Numeric"
    ]
    insert_many(
        connection,
        "concept_numeric",
        "concept_id low_normal hi_normal units allow_decimal",
        numeric,
    )
    _sets(connection, ids, now)
    _names(connection, ids, now)
    _mappings(connection, ids, now)
    _drugs(connection, ids, now)
    _properties(connection, ids)


def _kinds(connection: Connection, now: datetime) -> None:
    datatypes = [
        (i, name, hl7, ADMIN, now, key)
        for i, (name, (hl7, key)) in enumerate(dictionary.DATATYPES.items(), 1)
    ]
    columns = "concept_datatype_id name hl7_abbreviation creator date_created uuid"
    insert_many(connection, "concept_datatype", columns, datatypes)
    classes = [
        (i, name, ADMIN, now, key) for i, (name, key) in enumerate(dictionary.CLASSES.items(), 1)
    ]
    insert_many(
        connection, "concept_class", "concept_class_id name creator date_created uuid", classes
    )


def _sets(connection: Connection, ids: dict[str, int], now: datetime) -> None:
    rows = [
        (ids[member], ids[one.key], weight, ADMIN, now, local_uuid(f"set/{one.key}/{member}"))
        for one in CONCEPTS
        for weight, member in enumerate(one.members)
    ]
    insert_many(
        connection,
        "concept_set",
        "concept_id concept_set sort_weight creator date_created uuid",
        rows,
    )


def _names(connection: Connection, ids: dict[str, int], now: datetime) -> None:
    rows = []
    for one in CONCEPTS:
        for locale, name, kind, preferred in (
            ("fr", one.fr, "FULLY_SPECIFIED", True),
            ("en", one.en, "FULLY_SPECIFIED", True),
            ("en", one.short, "SHORT", False),
        ):
            key = local_uuid(f"concept_name/{one.key}/{locale}/{kind}")
            if name:
                rows.append((ids[one.key], name, locale, preferred, kind, ADMIN, now, key))
    columns = "concept_id name locale locale_preferred concept_name_type creator date_created uuid"
    insert_many(connection, "concept_name", columns, rows)


def _mappings(connection: Connection, ids: dict[str, int], now: datetime) -> None:
    sources = [
        (i, name, name, hl7, ADMIN, now, key)
        for i, (name, (hl7, key)) in enumerate(dictionary.SOURCES.items(), 1)
    ]
    columns = "concept_source_id name description hl7_code creator date_created uuid"
    insert_many(connection, "concept_reference_source", columns, sources)
    types = [
        (i, name, ADMIN, now, key) for i, (name, key) in enumerate(dictionary.MAP_TYPES.items(), 1)
    ]
    insert_many(
        connection, "concept_map_type", "concept_map_type_id name creator date_created uuid", types
    )
    source_ids = {name: i for i, name, *_ in sources}
    flat = [(one.key, source, code) for one in CONCEPTS for source, code in one.mappings]
    terms = [
        (i, source_ids[source], code, ADMIN, now, local_uuid(f"term/{source}/{code}"))
        for i, (_, source, code) in enumerate(flat, 1)
    ]
    columns = "concept_reference_term_id concept_source_id code creator date_created uuid"
    insert_many(connection, "concept_reference_term", columns, terms)
    same_as = 1
    maps = [
        (i, same_as, ADMIN, now, ids[key], local_uuid(f"map/{key}/{source}/{code}"))
        for i, (key, source, code) in enumerate(flat, 1)
    ]
    columns = "concept_reference_term_id concept_map_type_id creator date_created concept_id uuid"
    insert_many(connection, "concept_reference_map", columns, maps)


def _drugs(connection: Connection, ids: dict[str, int], now: datetime) -> None:
    rows = [
        (ids[key], name, strength, ADMIN, now, dictionary.drug_uuid(word))
        for word, (key, name, strength) in dictionary.DRUGS.items()
    ]
    insert_many(connection, "drug", "concept_id name strength creator date_created uuid", rows)


def _properties(connection: Connection, ids: dict[str, int]) -> None:
    values = {
        "concept.true": str(ids["true"]),
        "concept.false": str(ids["false"]),
        "default_locale": "en",
        "locale.allowed.list": "en, fr",
    }
    rows = [(name, value, local_uuid(f"property/{name}")) for name, value in values.items()]
    insert_many(connection, "global_property", "property property_value uuid", rows)
