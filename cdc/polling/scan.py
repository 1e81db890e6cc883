"""The SELECTs of polling: digests of a table by ranges of its key, page by page in key order."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cdc.polling.ranges import Ranges
from openmrs import row_hash as hashes
from openmrs.read import ConsistentRead
from openmrs.row_hash import Digest
from openmrs.tables import NOTICE_KEYS
from openmrs.values import COLUMN_INFO_SQL, ColumnInfo, supported

PAGE_ROWS = 50_000  # keys of one query: a quarter of a second of the server's time
SCAN_ROWS = 1_000_000  # the same, looking at two dates a row
# Where a row may be removed, its owner's key is the one to walk by: the owner is in the range
# though the row is gone.
OWNERS = {
    "concept_name": "concept_id",
    "concept_reference_map": "concept_id",
    "encounter_provider": "encounter_id",
    "patient_identifier": "patient_id",
    "person_name": "person_id",
}
# Secrets stay unread, and properties that change all the time change nothing here.
USER_COLUMNS = frozenset({"user_id", "person_id", "uuid", "retired"})
PROPERTIES = "property IN ('concept.true', 'concept.false')"


@dataclass(frozen=True, slots=True)
class Table:
    """`key`: the column whose ranges are walked; `keys`: what a notice gives; `where`: an SQL
    condition.
    """

    name: str
    key: str
    keys: tuple[str, ...]
    hash: str
    where: str = "1 = 1"


@dataclass(frozen=True, slots=True)
class Page:
    """Digests by range number of the keys in (`after`, `to`]; `last`: the table holds nothing
    beyond.
    """

    digests: dict[int, Digest]
    after: int
    to: int
    top: int
    last: bool

    @property
    def rows(self) -> int:
        return sum(digest.rows for digest in self.digests.values())


def obs(columns: Sequence[ColumnInfo]) -> Table:
    return Table("obs", "obs_id", ("obs_id",), hashes.sql(columns))


def noticed(reading: ConsistentRead, database: str) -> list[Table]:
    """The tables around obs that this OpenMRS has and the user may read."""
    columns: dict[str, list[ColumnInfo]] = {}
    for row in reading.rows(COLUMN_INFO_SQL, (database, sorted(NOTICE_KEYS))):
        table, column = ColumnInfo.read(list(row.values()))
        columns.setdefault(table.lower(), []).append(column)
    return [_noticed(table, found) for table, found in sorted(columns.items())]


def _noticed(name: str, columns: list[ColumnInfo]) -> Table:
    there = {column.name for column in columns}
    keys = tuple(key for key in NOTICE_KEYS[name] if key in there)
    if name == "users":
        columns = [column for column in columns if column.name in USER_COLUMNS]
    if name == "global_property":
        return Table(
            name,
            "0",
            (),
            hashes.sql(c for c in columns if c.name.startswith("property")),
            PROPERTIES,
        )
    known = [column for column in columns if supported(column.data_type)]
    return Table(name, OWNERS.get(name, keys[0]), keys, hashes.sql(known))


def page(reading: ConsistentRead, table: Table, width: int, after: int, rows: int) -> Page:
    """The next page of whole ranges after key `after`, of about `rows` keys."""
    start = _next_key(reading, table, after)
    if start is None:
        return Page({}, after, after, -1, last=True)
    to = (start // width + max(1, rows // width)) * width - 1
    found = reading.rows(
        f"SELECT {table.key} DIV {width} AS number, COUNT(*) AS counted, {table.hash} AS digest,"  # noqa: S608
        f" MAX({table.key}) AS top"
        f" FROM {table.name} WHERE {table.key} > {start - 1} AND {table.key} <= {to} AND {table.where} GROUP BY 1",
    )
    digests = {int(row["number"]): Digest(int(row["counted"]), int(row["digest"])) for row in found}
    top = max((int(row["top"]) for row in found), default=-1)
    return Page(digests, after, to, top, last=_next_key(reading, table, to) is None)


def _next_key(reading: ConsistentRead, table: Table, after: int) -> int | None:
    if table.key == "0":  # one range for all
        return 0 if after < 0 else None
    (found,) = reading.rows(
        f"SELECT MIN({table.key}) AS least FROM {table.name} WHERE {table.key} > {after}"  # noqa: S608
    )
    return None if found["least"] is None else int(found["least"])


def digest(reading: ConsistentRead, table: Table, after: int, to: int) -> Digest:
    """Of the keys in (after, to]."""
    (found,) = reading.rows(
        f"SELECT COUNT(*) AS counted, {table.hash} AS digest FROM {table.name}"  # noqa: S608
        f" WHERE {table.key} > {after} AND {table.key} <= {to} AND {table.where}"
    )
    return Digest(int(found["counted"]), int(found["digest"]))


def recent(reading: ConsistentRead, ranges: Ranges, after: int, to: int, since: str) -> set[int]:
    """Ranges of obs, among the keys in (after, to], with a row created or voided at or after the
    wall time `since`.
    """
    found = reading.rows(
        f"SELECT DISTINCT obs_id DIV {ranges.width} AS number FROM obs WHERE obs_id > %s AND obs_id <= %s"  # noqa: S608
        " AND (date_created >= %s OR date_voided >= %s)",
        (after, to, since, since),
    )
    return {int(row["number"]) for row in found}


def present(reading: ConsistentRead, table: Table, after: int, to: int) -> list[dict[str, Any]]:
    """The notice keys of the rows in (after, to]."""
    if not table.keys:
        return [{}]
    return reading.rows(
        f"SELECT DISTINCT {', '.join(table.keys)} FROM {table.name} WHERE {table.key} > {after} AND {table.key} <= {to}"  # noqa: S608
    )
