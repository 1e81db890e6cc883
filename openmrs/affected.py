"""Finds the facts that a changed row of a reference table concerns.

Each way from a fact to the changed row is a query of its own, by indexes that OpenMRS has. A fact
refers to few reference tables itself, and the registry says by which columns. All other tables are
reached by joins from one of those, so `_WAYS` is the same for every fact table.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from openmrs.tables import FACT_TABLES, REFERENCE_TABLES, FactTable


# A query is made once and then passed around, so two are equal only if they are the same object.
@dataclass(frozen=True, slots=True, eq=False)
class AffectedQuery:
    """A query for the keys of those rows of `table` that changed keys concern.

    `sql` takes a list of changed keys. It names the fact table ``o``, so that a condition may be
    added. What waits for enrichment is stored with the query's `name`, which outlives a release: a
    name stays when its query changes. Where the hospital's table lacks the column `needs` ("" for
    none), no row is concerned.
    """

    name: str
    table: FactTable
    sql: str
    needs: str = ""


class Way(NamedTuple):
    """A way from a fact to a changed row.

    The fact refers to the table `reference`, and `joins` lead from there to `column`. ``{fact}``
    stands for the column of the fact that refers there. Without a `reference` the changed row
    refers to the fact: it has the fact's own key.
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
# A merge copies the loser's obs to the winner. Whether it was one is seen by the loser, who is
# voided: so the winner's obs depend on the loser, too.
_COPIED = "JOIN obs w ON w.obs_id = {fact} AND w.person_id <> o.person_id"

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
    "obs_reference_range": {"obs_id": (Way(""),)},
    "orders": {"order_id": (Way("orders"),)},
    "patient": {"patient_id": (Way("obs", _COPIED, "w.person_id"),)},
    "person": {"person_id": (Way("obs", _COPIED, "w.person_id"),)},
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


def _make_queries(changed: str, column: str, ways: tuple[Way, ...]) -> Iterator[AffectedQuery]:
    """Yield the queries, of every fact table, for the column of a changed table's key change."""
    for table in FACT_TABLES.values():
        # Queries of obs were stored before there were other fact tables: no prefix.
        prefix = "" if table.name == "obs" else f"{table.name}:"
        number = 0
        for way in ways:
            columns = table.columns_to(way.reference)
            if not way.reference:
                columns = (table.key,) if table.key == column else ()
            for foreign_key in columns:
                fact = f"o.{foreign_key}"
                source = f"{table.name} o {way.joins.format(fact=fact)}".strip()
                condition = f"{way.column.format(fact=fact)} IN %s"
                sql = f"SELECT o.{table.key} FROM {source} WHERE {condition}"  # noqa: S608
                needs = foreign_key if foreign_key in table.optional else ""
                yield AffectedQuery(f"{prefix}{changed}.{column}.{number}", table, sql, needs)
                number += 1


def _make_all_queries() -> Mapping[str, tuple[tuple[str, tuple[AffectedQuery, ...]], ...]]:
    """Return the queries of every changed table.

    Several tables are reached by the same SQL: a concept and its names, for example. They share one
    query, so that its keys are searched once. It has the name of the last of them, which is the
    name that earlier releases stored.
    """
    by_sql: dict[str, AffectedQuery] = {}
    for changed, ways_by_column in _WAYS.items():
        for column, ways in ways_by_column.items():
            for query in _make_queries(changed, column, ways):
                by_sql[query.sql] = query

    all_queries = {}
    for changed, ways_by_column in _WAYS.items():
        of_table = []
        for column, ways in ways_by_column.items():
            queries = _make_queries(changed, column, ways)
            of_table.append((column, tuple(by_sql[query.sql] for query in queries)))
        all_queries[changed] = tuple(of_table)
    return all_queries


QUERIES = _make_all_queries()
"""By changed table: each column of its key change, and the queries that take its values."""

QUERY_BY_NAME: Mapping[str, AffectedQuery] = {
    query.name: query
    for of_table in QUERIES.values()
    for _, queries in of_table
    for query in queries
}
"""The queries by the name that they are stored with."""

PERSON_KEYS = {table.name: table.person for table in REFERENCE_TABLES.values() if table.person}
"""The column of the person, by table whose rows concern a person as a whole."""
