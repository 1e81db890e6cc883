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
    """Insert the rows of every table but those of patients.

    `seed` also decides how concepts are numbered.
    """
    _staff(connection, Random(f"staff {seed}"), now)
    _types(connection, now)
    _locations(connection, Random(f"places {seed}"), now)
    _concepts(connection, 100 + seed % FIRST_CONCEPT_SPREAD * 1000, now)


def _uuid(rng: Random) -> str:
    return local_uuid(f"staff {rng.getrandbits(128)}")


def _staff(connection: Connection, rng: Random, now: datetime) -> None:
    # A table at a time: the uuids follow the seed in this order.
    staff = list(enumerate(people.STAFF, 1))
    persons = [(number, rng.choice("MF"), now, _uuid(rng)) for number, _ in staff]
    insert_many(connection, "person", "person_id gender date_created uuid", persons)
    secret = hashlib.sha512(b"a password that nobody has").hexdigest()
    users = []
    names = []
    providers = []
    for number, member in staff:
        system_id = f"{number}-{number % 7}"
        head = (number, system_id, member.username, secret, secret, ADMIN, now, number)
        users.append((*head, member.retired, _uuid(rng)))
    for number, member in staff:
        name = (member.preferred_name, number, member.given, member.family)
        names.append((*name, ADMIN, now, _uuid(rng)))
    for number, member in staff:
        if member.provider:
            providers.append((number, member.provider, ADMIN, now, member.retired, _uuid(rng)))
    columns = "user_id system_id username password salt creator date_created person_id retired uuid"
    insert_many(connection, "users", columns, users)
    columns = "preferred person_id given_name family_name creator date_created uuid"
    insert_many(connection, "person_name", columns, names)
    columns = "person_id identifier creator date_created retired uuid"
    insert_many(connection, "provider", columns, providers)


def _types(connection: Connection, now: datetime) -> None:
    by_table = {
        "patient_identifier_type": {
            "National ID": people.NATIONAL_ID_TYPE,
            "OpenMRS ID": people.OPENMRS_ID_TYPE,
            "Old National ID card number": people.OLD_ID_TYPE,
        },
        "encounter_type": people.ENCOUNTER_TYPES,
        "encounter_role": people.ENCOUNTER_ROLES,
        "visit_type": {"Facility Visit": "7b0f5697-27e3-40c4-8bae-f4049abfb4ed"},
    }
    for table, uuids in by_table.items():
        rows = [(name, ADMIN, now, uuid) for name, uuid in uuids.items()]
        insert_many(connection, table, "name creator date_created uuid", rows)
    uuid = "52a447d3-a64a-11e3-9aeb-50e549534c5e"
    order_type = ("Test Order", ADMIN, now, uuid, "org.openmrs.TestOrder")
    columns = "name creator date_created uuid java_class_name"
    insert_many(connection, "order_type", columns, [order_type])
    uuid = "6f0c9a92-6f24-11e3-af88-005056821db0"
    care_setting = ("Outpatient", "OUTPATIENT", ADMIN, now, uuid)
    columns = "name care_setting_type creator date_created uuid"
    insert_many(connection, "care_setting", columns, [care_setting])


def _locations(connection: Connection, rng: Random, now: datetime) -> None:
    rows = [(name, "Rwanda", ADMIN, now, _uuid(rng)) for name in people.LOCATIONS]
    insert_many(connection, "location", "name country creator date_created uuid", rows)


def _concepts(connection: Connection, first: int, now: datetime) -> None:
    """Insert the dictionary, with concept_ids from `first` on."""
    _classes_and_datatypes(connection, now)
    ids = {concept.key: first + index for index, concept in enumerate(CONCEPTS)}
    class_ids = {name: number for number, name in enumerate(dictionary.CLASSES, 1)}
    datatype_ids = {name: number for number, name in enumerate(dictionary.DATATYPES, 1)}
    rows = []
    numeric = []
    for concept in CONCEPTS:
        kinds = (datatype_ids[concept.datatype], class_ids[concept.kind])
        is_set = bool(concept.members)
        rows.append((ids[concept.key], *kinds, is_set, ADMIN, now, concept.uuid))
        if concept.datatype == "Numeric":
            low, high = concept.normal or (None, None)
            numeric.append((ids[concept.key], low, high, concept.units, 1))
    columns = "concept_id datatype_id class_id is_set creator date_created uuid"
    insert_many(connection, "concept", columns, rows)
    columns = "concept_id low_normal hi_normal units allow_decimal"
    insert_many(connection, "concept_numeric", columns, numeric)
    _sets(connection, ids, now)
    _names(connection, ids, now)
    _mappings(connection, ids, now)
    _drugs(connection, ids, now)
    _properties(connection, ids)


def _classes_and_datatypes(connection: Connection, now: datetime) -> None:
    datatypes = []
    for number, (name, (hl7, uuid)) in enumerate(dictionary.DATATYPES.items(), 1):
        datatypes.append((number, name, hl7, ADMIN, now, uuid))
    columns = "concept_datatype_id name hl7_abbreviation creator date_created uuid"
    insert_many(connection, "concept_datatype", columns, datatypes)
    classes = []
    for number, (name, uuid) in enumerate(dictionary.CLASSES.items(), 1):
        classes.append((number, name, ADMIN, now, uuid))
    columns = "concept_class_id name creator date_created uuid"
    insert_many(connection, "concept_class", columns, classes)


def _sets(connection: Connection, ids: dict[str, int], now: datetime) -> None:
    rows = []
    for concept in CONCEPTS:
        for weight, member in enumerate(concept.members):
            uuid = local_uuid(f"set/{concept.key}/{member}")
            rows.append((ids[member], ids[concept.key], weight, ADMIN, now, uuid))
    columns = "concept_id concept_set sort_weight creator date_created uuid"
    insert_many(connection, "concept_set", columns, rows)


def _names(connection: Connection, ids: dict[str, int], now: datetime) -> None:
    rows = []
    for concept in CONCEPTS:
        for locale, name, kind, preferred in (
            ("fr", concept.fr, "FULLY_SPECIFIED", True),
            ("en", concept.en, "FULLY_SPECIFIED", True),
            ("en", concept.short, "SHORT", False),
        ):
            if name:
                uuid = local_uuid(f"concept_name/{concept.key}/{locale}/{kind}")
                rows.append((ids[concept.key], name, locale, preferred, kind, ADMIN, now, uuid))
    columns = "concept_id name locale locale_preferred concept_name_type creator date_created uuid"
    insert_many(connection, "concept_name", columns, rows)


def _mappings(connection: Connection, ids: dict[str, int], now: datetime) -> None:
    sources = []
    source_ids = {}
    for number, (name, (hl7, uuid)) in enumerate(dictionary.SOURCES.items(), 1):
        sources.append((number, name, name, hl7, ADMIN, now, uuid))
        source_ids[name] = number
    columns = "concept_source_id name description hl7_code creator date_created uuid"
    insert_many(connection, "concept_reference_source", columns, sources)
    map_types = []
    for number, (name, uuid) in enumerate(dictionary.MAP_TYPES.items(), 1):
        map_types.append((number, name, ADMIN, now, uuid))
    columns = "concept_map_type_id name creator date_created uuid"
    insert_many(connection, "concept_map_type", columns, map_types)
    same_as = 1
    terms: list[tuple[object, ...]] = []
    maps = []
    for concept in CONCEPTS:
        for source, code in concept.mappings:
            term = len(terms) + 1
            uuid = local_uuid(f"term/{source}/{code}")
            terms.append((term, source_ids[source], code, ADMIN, now, uuid))
            uuid = local_uuid(f"map/{concept.key}/{source}/{code}")
            maps.append((term, same_as, ADMIN, now, ids[concept.key], uuid))
    columns = "concept_reference_term_id concept_source_id code creator date_created uuid"
    insert_many(connection, "concept_reference_term", columns, terms)
    columns = "concept_reference_term_id concept_map_type_id creator date_created concept_id uuid"
    insert_many(connection, "concept_reference_map", columns, maps)


def _drugs(connection: Connection, ids: dict[str, int], now: datetime) -> None:
    rows = []
    for word, (concept, name, strength) in dictionary.DRUGS.items():
        rows.append((ids[concept], name, strength, ADMIN, now, dictionary.drug_uuid(word)))
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
