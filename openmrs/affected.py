"""The facts that a changed row of a reference table concerns, as one query a way, by indexes that
OpenMRS has.

A fact refers to few reference tables itself, and the registry says by which columns. All other
tables are reached by joins from one of those, so `_WAYS` is the same for every fact table.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from openmrs.tables import FACT_TABLES, REFERENCE_TABLES, FactTable


class Way(NamedTuple):
    """From a fact to a changed row: the fact refers to `reference`, and `joins` lead to `column`.

    ``{fact}`` stands for the column of the fact that refers there.
    """

    reference: str
    joins: str = ""
    column: str = "{fact}"


_CONCEPT = "JOIN concept c ON c.concept_id = {fact}"
_MAPPED = f"{_CONCEPT} JOIN concept_reference_map m ON m.concept_id = c.concept_id"
_TERM = (
    f"{_MAPPED} JOIN concept_reference_term t"
    " ON t.concept_reference_term_id = m.concept_reference_term_id"
)
_ENCOUNTER = "JOIN encounter e ON e.encounter_id = {fact}"
_VISIT = f"{_ENCOUNTER} JOIN visit v ON v.visit_id = e.visit_id"
_PROVIDED = "JOIN encounter_provider p ON p.encounter_id = {fact}"
_PROVIDER = f"{_PROVIDED} JOIN provider d ON d.provider_id = p.provider_id"
_ORDER = "JOIN orders r ON r.order_id = {fact}"
_ORDERER = f"{_ORDER} JOIN provider d ON d.provider_id = r.orderer"
_USER = "JOIN users u ON u.user_id = {fact}"

# By changed table and by the column of its key change. The order is that of the stored names below.
_WAYS: Mapping[str, Mapping[str, tuple[Way, ...]]] = {
    "concept": {"concept_id": (Way("concept"),)},
    "concept_class": {"concept_class_id": (Way("concept", _CONCEPT, "c.class_id"),)},
    "concept_datatype": {"concept_datatype_id": (Way("concept", _CONCEPT, "c.datatype_id"),)},
    "concept_name": {
        "concept_id": (Way("concept"),),
        "concept_name_id": (Way("concept_name"),),
    },
    "concept_numeric": {"concept_id": (Way("concept"),)},
    "concept_reference_map": {"concept_id": (Way("concept"),)},
    "concept_reference_source": {
        "concept_source_id": (Way("concept", _TERM, "t.concept_source_id"),)
    },
    "concept_reference_term": {
        "concept_reference_term_id": (Way("concept", _MAPPED, "m.concept_reference_term_id"),)
    },
    "drug": {"drug_id": (Way("drug"),)},
    "encounter": {"encounter_id": (Way("encounter"),)},
    "encounter_provider": {"encounter_id": (Way("encounter"),)},
    "encounter_role": {"encounter_role_id": (Way("encounter", _PROVIDED, "p.encounter_role_id"),)},
    "encounter_type": {"encounter_type_id": (Way("encounter", _ENCOUNTER, "e.encounter_type"),)},
    "location": {
        "location_id": (
            Way("location"),
            Way("encounter", _ENCOUNTER, "e.location_id"),
            Way("encounter", _VISIT, "v.location_id"),
        )
    },
    "orders": {"order_id": (Way("orders"),)},
    "person_name": {
        "person_id": (
            Way("encounter", _PROVIDER, "d.person_id"),
            Way("orders", _ORDERER, "d.person_id"),
            Way("users", _USER, "u.person_id"),
        )
    },
    "provider": {
        "provider_id": (
            Way("encounter", _PROVIDED, "p.provider_id"),
            Way("orders", _ORDER, "r.orderer"),
        ),
        "person_id": (Way("users", _USER, "u.person_id"),),
    },
    "users": {"user_id": (Way("users"),)},
    "visit": {"visit_id": (Way("encounter", _ENCOUNTER, "e.visit_id"),)},
    "visit_type": {"visit_type_id": (Way("encounter", _VISIT, "v.visit_type_id"),)},
}


def _queries(ways: tuple[Way, ...]) -> Iterator[tuple[FactTable, str]]:
    """Yield each fact table with a query for its rows; the query takes a list of changed keys."""
    for table in FACT_TABLES.values():
        for way in ways:
            for foreign_key in table.columns_to(way.reference):
                joins = way.joins.format(fact=f"o.{foreign_key}")
                column = way.column.format(fact=f"o.{foreign_key}")
                source = f"{table.name} o {joins}".strip()
                yield table, f"SELECT o.{table.key} FROM {source} WHERE {column} IN %s"  # noqa: S608


def _named_queries() -> Iterator[tuple[str, str, str, str]]:
    """Yield the changed table, the column of its key, a query, and the name it is stored by."""
    for changed, ways_by_column in _WAYS.items():
        for column, ways in ways_by_column.items():
            numbers: dict[str, int] = {}
            for table, query in _queries(ways):
                number = numbers.setdefault(table.name, 0)
                numbers[table.name] += 1
                # Queries of obs were stored before there were other fact tables: no prefix.
                prefix = "" if table.name == "obs" else f"{table.name}:"
                yield changed, column, query, f"{prefix}{changed}.{column}.{number}"


# By changed table: each column of its key change, and the queries that take a list of its values.
QUERIES: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    changed: tuple(
        (column, tuple(query for _, query in _queries(ways)))
        for column, ways in ways_by_column.items()
    )
    for changed, ways_by_column in _WAYS.items()
}

# The name by which a query is stored. What is stored outlives a release, so a name stays when its
# query changes.
NAMES = {query: name for changed, column, query, name in _named_queries()}
QUERY = {name: query for query, name in NAMES.items()}

# The column of the person, by table whose rows concern a person as a whole.
PERSON_KEYS = {table.name: table.person for table in REFERENCE_TABLES.values() if table.person}
