"""Lists the tables that are read of an OpenMRS database.

Everything that depends on a table's name is derived from this list: grants, checks, the watched
tables of the binlog, snapshot, polling, the lookups' ids and the queries for what a change
concerns.

There are two kinds. A fact table holds what the passport shows, and its rows are carried. A
reference table holds what facts refer to: its values stay at the hospital, and only the keys of a
changed row are carried, as a key change.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FactTable:
    """A table whose rows are carried.

    `key` is the primary key, and `person` the column that says whose row it is. `columns` are all
    that may leave the hospital, the key first. `optional` ones are absent in some versions of
    OpenMRS: they are then absent from the row too, not null. `refers` names the reference table of
    each foreign key. `replaces` is the column with the key of the row that this one is a newer
    version of ("" for none). `stamps` are the dates that OpenMRS sets when it adds or voids a row.
    `extends` names the table that has the other half of each row, under the same key ("" for none).
    """

    name: str
    key: str
    person: str
    columns: tuple[str, ...]
    optional: frozenset[str]
    refers: Mapping[str, str]
    stamps: tuple[str, ...]
    replaces: str = ""
    extends: str = ""

    def columns_to(self, reference: str) -> tuple[str, ...]:
        """Return the columns that refer to this reference table, or to the fact table itself."""
        if reference == self.name:
            return (self.replaces,) if self.replaces else ()
        return tuple(column for column, table in self.refers.items() if table == reference)


@dataclass(frozen=True, slots=True)
class ReferenceTable:
    """A table that facts refer to.

    A key change carries `keys`: the primary key first, then foreign keys. `owner` is the key to
    walk the table by in polling. Where rows may be removed it is the foreign key, because its range
    is known even when the row is gone. `person` is the key of the person that a row concerns as a
    whole ("" for none). `columns` are the only ones whose change matters (empty: all). If
    `has_secrets`, the account may read `columns` alone. An `optional` table is absent in some
    versions of OpenMRS, and is left out where it isn't there or the account may not read it.
    """

    name: str
    keys: tuple[str, ...]
    owner: str = ""
    person: str = ""
    columns: tuple[str, ...] = ()
    has_secrets: bool = False
    optional: bool = False

    @property
    def walked_by(self) -> str:
        """Return the key to walk the table by in polling."""
        return self.owner or self.keys[0]


OBS = FactTable(
    name="obs",
    key="obs_id",
    person="person_id",
    # Least data: void_reason, voided_by, accession_number and value_group_id stay at the hospital.
    columns=(
        "obs_id",
        "person_id",
        "concept_id",
        "encounter_id",
        "order_id",
        "obs_datetime",
        "location_id",
        "obs_group_id",
        "value_boolean",  # OpenMRS 1.x only
        "value_coded",
        "value_coded_name_id",
        "value_drug",
        "value_datetime",
        "value_numeric",
        "value_modifier",
        "value_text",
        "value_complex",
        "comments",
        "creator",
        "date_created",
        "voided",
        "date_voided",
        "uuid",
        "previous_version",
        "form_namespace_and_path",
        "status",
        "interpretation",
    ),
    optional=frozenset(
        {
            "value_boolean",
            "value_complex",
            "previous_version",
            "form_namespace_and_path",
            "status",
            "interpretation",
        }
    ),
    refers={
        "concept_id": "concept",
        "value_coded": "concept",
        "value_coded_name_id": "concept_name",
        "value_drug": "drug",
        "encounter_id": "encounter",
        "order_id": "orders",
        "location_id": "location",
        "creator": "users",
    },
    stamps=("date_created", "date_voided"),
    replaces="previous_version",
)

FACT_TABLES: Mapping[str, FactTable] = {table.name: table for table in (OBS,)}

_REFERENCE_TABLES = (
    ReferenceTable("concept", keys=("concept_id",)),
    ReferenceTable("concept_class", keys=("concept_class_id",)),
    ReferenceTable("concept_datatype", keys=("concept_datatype_id",)),
    ReferenceTable("concept_name", keys=("concept_name_id", "concept_id"), owner="concept_id"),
    ReferenceTable("concept_numeric", keys=("concept_id",)),
    ReferenceTable(
        "concept_reference_map", keys=("concept_map_id", "concept_id"), owner="concept_id"
    ),
    ReferenceTable("concept_reference_source", keys=("concept_source_id",)),
    ReferenceTable("concept_reference_term", keys=("concept_reference_term_id",)),
    ReferenceTable("drug", keys=("drug_id",)),
    ReferenceTable("encounter", keys=("encounter_id", "patient_id")),
    ReferenceTable(
        "encounter_provider",
        keys=("encounter_provider_id", "encounter_id"),
        owner="encounter_id",
    ),
    ReferenceTable("encounter_role", keys=("encounter_role_id",)),
    ReferenceTable("encounter_type", keys=("encounter_type_id",)),
    ReferenceTable("location", keys=("location_id",)),
    ReferenceTable(
        # OpenMRS 2.7 and newer: the range that it applied to an obs.
        "obs_reference_range",
        keys=("obs_reference_range_id", "obs_id"),
        owner="obs_id",
        optional=True,
    ),
    ReferenceTable("orders", keys=("order_id",)),
    ReferenceTable("patient", keys=("patient_id",), person="patient_id"),
    ReferenceTable(
        "patient_identifier",
        keys=("patient_identifier_id", "patient_id"),
        owner="patient_id",
        person="patient_id",
    ),
    ReferenceTable("patient_identifier_type", keys=("patient_identifier_type_id",)),
    ReferenceTable("person", keys=("person_id",), person="person_id"),
    ReferenceTable("person_name", keys=("person_name_id", "person_id"), owner="person_id"),
    ReferenceTable("provider", keys=("provider_id", "person_id")),
    ReferenceTable(
        "users",
        keys=("user_id", "person_id"),
        # Never password, salt, secret_question or secret_answer.
        columns=("user_id", "person_id", "uuid", "retired"),
        has_secrets=True,
    ),
    ReferenceTable("visit", keys=("visit_id",)),
    ReferenceTable("visit_type", keys=("visit_type_id",)),
)
REFERENCE_TABLES: Mapping[str, ReferenceTable] = {table.name: table for table in _REFERENCE_TABLES}

WATCHED: tuple[str, ...] = (*FACT_TABLES, *REFERENCE_TABLES)
OPTIONAL_TABLES = frozenset(table.name for table in _REFERENCE_TABLES if table.optional)
REQUIRED_TABLES: tuple[str, ...] = tuple(name for name in WATCHED if name not in OPTIONAL_TABLES)

ROW_COLUMNS: Mapping[str, tuple[str, ...]] = {
    table.name: table.columns for table in FACT_TABLES.values()
}
"""The columns of each fact table's rows, the key first."""

KEY_COLUMNS: Mapping[str, tuple[str, ...]] = {
    table.name: table.keys for table in REFERENCE_TABLES.values()
}
"""The columns of each reference table's key changes."""
