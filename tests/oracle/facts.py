"""One hospital's tables, read whole: plain SQL decides who somebody is, what a thing is called and
who stated it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pymysql.cursors import DictCursor

# key, name, timezone, locales, provider_roles, national_id_type; link_key and name_locales if known
Settings = Mapping[str, Any]
READERS = ("en", "fr", "rw")  # name_locales where the settings have none

ALLOWED = """
obs_id person_id concept_id encounter_id order_id obs_datetime location_id obs_group_id
value_boolean value_coded value_coded_name_id value_drug value_datetime value_numeric
value_modifier value_text value_complex comments creator
date_created voided date_voided uuid previous_version form_namespace_and_path status interpretation
"""
TIMES = {"obs_datetime", "value_datetime", "date_created", "date_voided"}


class Author(NamedTuple):
    name: str
    key: str | None
    source: str


class Bounds(NamedTuple):
    """In the order of a ruler, each NULL or a number; from `table`."""

    low_absolute: float | None
    low_critical: float | None
    low: float | None
    high: float | None
    high_critical: float | None
    high_absolute: float | None
    table: str


class Concept(NamedTuple):
    uuid: str
    name: str
    datatype: str
    concept_class: str
    units: str | None
    mappings: frozenset[str]
    names: Mapping[str, str] = {}  # by locale, for readers
    bounds: Bounds | None = None


@dataclass
class Facts:
    """Everything that a hospital knows, by the ids of its own database."""

    obs: dict[int, dict[str, Any]]
    people: dict[int, tuple[str, str | None]]  # (state, digits or None)
    births: dict[int, tuple[int | None, int, str]]  # (year, how far it may be off, F or M or "")
    concepts: dict[int, Concept]
    concept_names: dict[int, str]  # by concept_name_id, those not voided
    name_locales: dict[int, str]  # by concept_name_id
    bounds: dict[int, Bounds]  # by obs, what OpenMRS 2.7 compared it with
    drugs: dict[int, str]
    encounters: dict[int, dict[str, Any]]
    locations: dict[int, str]
    teams: dict[int, list[Author]] = field(default_factory=dict)  # by encounter, best first
    orderers: dict[int, Author] = field(default_factory=dict)  # by order
    creators: dict[int, Author] = field(default_factory=dict)  # by user


def read(connection: Any, settings: Settings) -> Facts:
    """The tables as they are now; the caller sees to it that nobody writes."""
    connection.rollback()
    ask = Query(connection)
    return Facts(
        obs=observations(ask),
        people=people(ask, settings["national_id_type"]),
        births=births(ask),
        concepts=concepts(ask, settings["locales"], readers(settings)),
        concept_names=dict(
            ask.pairs("SELECT concept_name_id, name FROM concept_name WHERE voided = 0")
        ),
        name_locales=dict(ask.pairs("SELECT concept_name_id, locale FROM concept_name")),
        bounds=applied_bounds(ask),
        drugs=dict(ask.pairs("SELECT drug_id, name FROM drug")),
        encounters=encounters(ask),
        locations=dict(ask.pairs("SELECT location_id, name FROM location")),
        teams=teams(ask, settings["provider_roles"]),
        orderers=orderers(ask),
        creators=creators(ask),
    )


class Query:
    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def __call__(self, sql: str, args: Sequence[Any] = ()) -> list[dict[str, Any]]:
        with self.connection.cursor(DictCursor) as cursor:
            cursor.execute(sql, args or None)
            return list(cursor.fetchall())

    def pairs(self, sql: str, args: Sequence[Any] = ()) -> list[tuple[Any, Any]]:
        return [tuple(row.values()) for row in self(sql, args)]


def observations(ask: Query) -> dict[int, dict[str, Any]]:
    sql = "SELECT column_name AS name FROM information_schema.columns"
    sql += " WHERE table_schema = DATABASE() AND table_name = 'obs'"
    present = {row["name"] for row in ask(sql)}
    chosen = [
        f"CAST({name} AS CHAR) AS {name}" if name in TIMES else name
        for name in ALLOWED.split()
        if name in present
    ]
    rows = ask(f"SELECT {', '.join(chosen)} FROM obs ORDER BY obs_id")
    for row in rows:
        row.update({name: row[name].replace(" ", "T") for name in TIMES if row[name] is not None})
    return {row["obs_id"]: row for row in rows}


# The server's own regular expressions say what an identifier's digits are, and whether it fits the
# format of its type. `digits` is '' where it can't be a national id. `used` are the preferred ones,
# or all where none is preferred.
LUHN = """(
  SELECT MOD(SUM(CASE WHEN MOD(n, 2) = 1 THEN SUBSTRING(REVERSE(digits), n, 1)
    ELSE 2 * SUBSTRING(REVERSE(digits), n, 1) DIV 10
      + MOD(2 * SUBSTRING(REVERSE(digits), n, 1), 10) END), 10) = 0
  FROM ({numbers}) k WHERE n <= CHAR_LENGTH(digits))""".format(
    numbers=" UNION ALL ".join(f"SELECT {n} AS n" for n in range(1, 17))
)
PEOPLE = f"""
WITH written AS (
  SELECT i.patient_id, i.preferred, t.format, t.validator, TRIM(i.identifier) AS typed,
  REGEXP_REPLACE(i.identifier, '[^0-9]', '') AS digits,
  i.identifier REGEXP '^[[:space:]]*[0-9]+([-. /]+[0-9]+)*[[:space:]]*$' AS plain
  FROM patient_identifier i JOIN patient_identifier_type t
  ON t.patient_identifier_type_id = i.identifier_type
  WHERE i.voided = 0 AND t.uuid = %s
), held AS (
  SELECT patient_id, preferred, CASE
    WHEN NOT plain OR CHAR_LENGTH(digits) NOT BETWEEN 10 AND 16 THEN ''
    WHEN validator IN ('org.openmrs.patient.impl.LuhnIdentifierValidator',
      'org.openmrs.module.idgen.validator.LuhnMod10IdentifierValidator') AND NOT {LUHN} THEN ''
    WHEN TRIM(COALESCE(format, '')) = '' THEN digits
    WHEN digits REGEXP CONCAT('^(', format, ')$') THEN digits
    WHEN typed REGEXP CONCAT('^(', format, ')$') THEN digits
    ELSE '' END AS digits
  FROM written
), used AS (
  SELECT h.patient_id, COUNT(DISTINCT h.digits) AS different, MIN(h.digits) AS digits FROM held h
  WHERE h.preferred = 1 OR NOT EXISTS (SELECT 1 FROM held o
  WHERE o.patient_id = h.patient_id AND o.preferred = 1)
  GROUP BY h.patient_id
), shared AS (
  SELECT h.digits, COUNT(DISTINCT h.patient_id) AS holders, MIN(h.patient_id) AS one
  FROM held h JOIN patient p ON p.patient_id = h.patient_id
  JOIN person s ON s.person_id = h.patient_id
  WHERE p.voided = 0 AND s.voided = 0 AND h.digits <> '' GROUP BY h.digits
)
SELECT n.person_id, u.digits, CASE
    WHEN p.patient_id IS NULL THEN 'not_patient'
    WHEN p.voided <> 0 OR n.voided <> 0 THEN 'voided'
    WHEN u.patient_id IS NULL THEN 'none'
    WHEN u.different > 1 THEN 'ambiguous'
    WHEN u.digits = '' THEN 'invalid'
    WHEN s.holders > 1 OR s.one <> n.person_id THEN 'ambiguous'
    ELSE 'ok' END AS state
FROM person n
LEFT JOIN patient p ON p.patient_id = n.person_id
LEFT JOIN used u ON u.patient_id = n.person_id
LEFT JOIN shared s ON s.digits = u.digits"""


def people(ask: Query, national_id_type: str) -> dict[int, tuple[str, str | None]]:
    return {
        row["person_id"]: (row["state"], row["digits"] if row["state"] == "ok" else None)
        for row in ask(PEOPLE, [national_id_type])
    }


def births(ask: Query) -> dict[int, tuple[int | None, int, str]]:
    rows = ask(
        "SELECT person_id, NULLIF(YEAR(birthdate), 0) AS year,"
        " IF(birthdate_estimated, 5, 0) AS off,"
        " CASE WHEN TRIM(gender) IN ('F', 'f', 'Female', 'female', 'FEMALE') THEN 'F'"
        " WHEN TRIM(gender) IN ('M', 'm', 'Male', 'male', 'MALE') THEN 'M' ELSE '' END AS sex"
        " FROM person"
    )
    return {row["person_id"]: (row["year"], row["off"], row["sex"]) for row in rows}


def readers(settings: Settings) -> list[str]:
    """The locales for readers, the hospital's own among them."""
    return sorted({*settings["locales"], *settings.get("name_locales", READERS)})


BOUNDS = "low_absolute, low_critical, low_normal, hi_normal, hi_critical, hi_absolute"


def applied_bounds(ask: Query) -> dict[int, Bounds]:
    """Nothing where OpenMRS is too old to have the table."""
    if not ask(
        "SELECT 1 FROM information_schema.tables"
        " WHERE table_schema = DATABASE() AND table_name = 'obs_reference_range'"
    ):
        return {}
    rows = ask.pairs(
        f"SELECT obs_id, {BOUNDS} FROM obs_reference_range WHERE COALESCE({BOUNDS}) IS NOT NULL"
    )
    return {row[0]: Bounds(*row[1:], "obs") for row in rows}


def concepts(ask: Query, locales: Sequence[str], readers: Sequence[str]) -> dict[int, Concept]:
    mappings: dict[int, set[str]] = {}
    for concept, code in ask.pairs(
        "SELECT m.concept_id, CONCAT(s.name, ':', t.code) AS code FROM concept_reference_map m"
        " JOIN concept_reference_term t"
        " ON t.concept_reference_term_id = m.concept_reference_term_id"
        " JOIN concept_reference_source s ON s.concept_source_id = t.concept_source_id"
        " JOIN concept_map_type k ON k.concept_map_type_id = m.concept_map_type_id"
        " WHERE k.name = 'SAME-AS'"
    ):
        mappings.setdefault(concept, set()).add(code)
    names = dict(ask.pairs(*best_names(locales)))
    translated: dict[int, dict[str, str]] = {}
    for locale in readers:
        for concept, name in ask.pairs(*reading_names(locale)):
            translated.setdefault(concept, {})[locale] = name
    bounds = ask.pairs(
        f"SELECT concept_id, {BOUNDS} FROM concept_numeric WHERE COALESCE({BOUNDS}) IS NOT NULL"
    )
    ranges = {row[0]: Bounds(*row[1:], "concept") for row in bounds}
    return {
        row["concept_id"]: Concept(
            row["uuid"],
            names.get(row["concept_id"]) or f"Concept {row['uuid']}",
            row["datatype"] or "",
            row["class"] or "",
            row["units"] or None,
            frozenset(mappings.get(row["concept_id"], ())),
            translated.get(row["concept_id"], {}),
            ranges.get(row["concept_id"]),
        )
        for row in ask(
            "SELECT c.concept_id, c.uuid, d.name AS datatype, k.name AS class, n.units"
            " FROM concept c"
            " LEFT JOIN concept_datatype d ON d.concept_datatype_id = c.datatype_id"
            " LEFT JOIN concept_class k ON k.concept_class_id = c.class_id"
            " LEFT JOIN concept_numeric n ON n.concept_id = c.concept_id"
        )
    }


def best_names(locales: Sequence[str]) -> tuple[str, list[str]]:
    """SQL for (concept_id, name), the server choosing by locale, preference, type and id; and its
    arguments.
    """
    language = "BINARY SUBSTRING_INDEX(REPLACE(locale, '-', '_'), '_', 1)"
    tiers: list[str] = []
    args: list[str] = []
    for locale in locales:
        tiers.append(f"WHEN BINARY locale = %s THEN {len(tiers)} ")
        tiers.append(f"WHEN {language} = %s THEN {len(tiers)} ")
        args += [locale, locale.replace("-", "_").split("_")[0]]
    place = f"CASE {''.join(tiers)} ELSE 999 END" if tiers else "0"
    kind = (
        "CASE WHEN concept_name_type = 'FULLY_SPECIFIED' THEN 0"
        " WHEN concept_name_type IS NULL THEN 1"
    )
    kind += (
        " WHEN concept_name_type = 'SHORT' THEN 2 WHEN concept_name_type = 'INDEX_TERM'"
        " THEN 3 ELSE 4 END"
    )
    order = f"{place}, locale_preferred DESC, {kind}, concept_name_id"
    ranked = (
        "SELECT concept_id, name, ROW_NUMBER() OVER (PARTITION BY concept_id"
        f" ORDER BY {order}) AS place"
    )
    return (
        (
            f"SELECT concept_id, name FROM ({ranked} FROM concept_name WHERE voided = 0) n"
            " WHERE place = 1"
        ),
        args,
    )


def reading_names(locale: str) -> tuple[str, list[str]]:
    """SQL for (concept_id, name) of the concepts that have a name in this language to read, which
    an index term is not; and its arguments.
    """
    ranked = (
        "SELECT concept_id, name, ROW_NUMBER() OVER (PARTITION BY concept_id ORDER BY"
        " BINARY locale <> %s, locale_preferred DESC,"
        " FIELD(COALESCE(concept_name_type, ''), 'FULLY_SPECIFIED', '', 'SHORT'), concept_name_id"
        ") AS place FROM concept_name WHERE voided = 0"
        " AND BINARY SUBSTRING_INDEX(locale, '_', 1) = %s"
        " AND COALESCE(concept_name_type, '') <> 'INDEX_TERM'"
    )
    sql = f"SELECT concept_id, name FROM ({ranked}) n WHERE place = 1"
    return sql, [locale, locale.split("_")[0]]


def encounters(ask: Query) -> dict[int, dict[str, Any]]:
    """uuid, written (wall time), location and the visit's location."""
    rows = ask(
        "SELECT e.encounter_id, e.uuid, CAST(e.encounter_datetime AS CHAR) AS written,"
        " e.location_id, v.location_id AS visit_location FROM encounter e"
        " LEFT JOIN visit v ON v.visit_id = e.visit_id"
    )
    return {
        row["encounter_id"]: {**row, "written": row["written"].replace(" ", "T")} for row in rows
    }


PERSON_NAMES = """
SELECT person_id, TRIM(CONCAT(COALESCE(given_name, ''), ' ', COALESCE(family_name, ''))) AS name
FROM (
  SELECT person_id, given_name, family_name,
    ROW_NUMBER() OVER (PARTITION BY person_id ORDER BY preferred DESC, person_name_id) AS place
  FROM person_name WHERE voided = 0) n
WHERE place = 1"""

PROVIDERS = f"""
SELECT p.provider_id, p.uuid, p.person_id, p.retired,
COALESCE(NULLIF(n.name, ''), NULLIF(p.name, '')) AS name
FROM provider p LEFT JOIN ({PERSON_NAMES}) n ON n.person_id = p.person_id"""


def teams(ask: Query, roles: Sequence[str]) -> dict[int, list[Author]]:
    rows = ask(
        "SELECT ep.encounter_id, ep.encounter_provider_id, r.uuid AS role_uuid,"
        " r.name AS role, p.uuid, p.name"
        " FROM encounter_provider ep"
        f" JOIN ({PROVIDERS}) p ON p.provider_id = ep.provider_id"
        " LEFT JOIN encounter_role r ON r.encounter_role_id = ep.encounter_role_id"
        " WHERE ep.voided = 0 AND p.name IS NOT NULL"
    )

    def rank(row: dict[str, Any]) -> tuple[int, int]:
        places = [
            place for place, role in enumerate(roles) if role in (row["role_uuid"], row["role"])
        ]
        return min(places, default=len(roles)), row["encounter_provider_id"]

    found: dict[int, list[Author]] = {}
    for row in sorted(rows, key=rank):
        found.setdefault(row["encounter_id"], []).append(
            Author(row["name"], row["uuid"], "encounter_provider")
        )
    return found


def orderers(ask: Query) -> dict[int, Author]:
    rows = ask(
        "SELECT o.order_id, p.uuid, p.name FROM orders o"
        f" JOIN ({PROVIDERS}) p ON p.provider_id = o.orderer"
        " WHERE p.name IS NOT NULL"
    )
    return {row["order_id"]: Author(row["name"], row["uuid"], "orderer") for row in rows}


def creators(ask: Query) -> dict[int, Author]:
    rows = ask(
        "SELECT u.user_id, n.name, COALESCE((SELECT p.uuid FROM provider p"
        " WHERE p.person_id = u.person_id"
        " AND p.retired = 0 ORDER BY p.provider_id LIMIT 1), CONCAT('user/', u.uuid)) AS reference"
        f" FROM users u JOIN ({PERSON_NAMES}) n ON n.person_id = u.person_id WHERE n.name <> ''"
    )
    return {row["user_id"]: Author(row["name"], row["reference"], "creator") for row in rows}
