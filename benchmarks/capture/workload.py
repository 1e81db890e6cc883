"""A MariaDB whose binlog holds three workloads on OpenMRS' obs table.

One row behind each of them ends it.
"""

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from benchmarks.capture.counted import END
from dev.hospital.seed import statements
from dev.stack import MariaDB

STAGED = 5_000  # different rows; each is written many times, with a uuid of its own
BULK = 500  # rows of one INSERT
FLAGS = ("--innodb-buffer-pool-size=512M", "--max-binlog-size=1G")

WRITTEN = (
    "person_id, concept_id, encounter_id, order_id, obs_datetime, location_id, obs_group_id,"
    " value_coded, value_coded_name_id, value_datetime, value_numeric, value_text, comments,"
    " creator, date_created, form_namespace_and_path, status, interpretation"
)
_INSERT = f"INSERT INTO obs ({WRITTEN}, uuid) SELECT {WRITTEN}, uuid() FROM stage WHERE"
_ONE_BY_ONE = f"""
CREATE PROCEDURE one_by_one(wanted INT) BEGIN
  DECLARE i INT DEFAULT 0;
  WHILE i < wanted DO {_INSERT} obs_id = 1 + i MOD {STAGED}; SET i = i + 1; END WHILE;
END"""
_IN_BULK = f"""
CREATE PROCEDURE in_bulk(wanted INT) BEGIN
  DECLARE i INT DEFAULT 0;
  WHILE i < wanted DO
    {_INSERT} obs_id > i MOD {STAGED} AND obs_id <= i MOD {STAGED} + {BULK}; SET i = i + {BULK};
  END WHILE;
END"""
_UPDATES = """
CREATE PROCEDURE updates(wanted INT) BEGIN
  DECLARE i INT DEFAULT 1;
  WHILE i <= wanted DO
    UPDATE obs SET voided = 1, date_voided = '2024-06-01 08:00:00', comments = 'entered twice'
      WHERE obs_id = i;
    SET i = i + 1;
  END WHILE;
END"""

_LEANER = """
SELECT CONCAT('DROP FOREIGN KEY ', constraint_name) FROM information_schema.table_constraints
WHERE table_schema = 'openmrs' AND table_name = 'obs' AND constraint_type = 'FOREIGN KEY'
UNION SELECT CONCAT('DROP KEY ', index_name) FROM information_schema.statistics
WHERE table_schema = 'openmrs' AND table_name = 'obs' AND index_name <> 'PRIMARY'"""


class Workload(NamedTuple):
    """A stretch of the binlog: `rows` changes from `file`:`pos`, which is also `gtid`.

    The row behind them has `END` as its comment.
    """

    name: str
    rows: int
    file: str
    pos: int
    gtid: str


def prepare(server: MariaDB) -> None:
    """Make the tables and the procedures that write workloads.

    obs has no foreign keys and second indexes: the binlog is the same, and sooner written.
    """
    server.execute("CREATE DATABASE openmrs")
    with server.connect(database="openmrs") as connection, connection.cursor() as cursor:
        cursor.execute("SET foreign_key_checks = 0")
        for statement in statements():
            cursor.execute(statement)
        cursor.execute(_LEANER)
        cursor.execute(f"ALTER TABLE obs {', '.join(row[0] for row in cursor.fetchall())}")
        cursor.execute("CREATE TABLE stage LIKE obs")
        random.seed(7)
        marks = ", ".join(["%s"] * 18)
        insert = f"INSERT INTO stage ({WRITTEN}, uuid) VALUES ({marks}, '')"
        cursor.executemany(insert, list(_rows(STAGED)))
        for procedure in (_ONE_BY_ONE, _IN_BULK, _UPDATES):
            cursor.execute(procedure)


def written(server: MariaDB, name: str, rows: int, procedure: str) -> Workload:
    """Write a workload with this procedure, and return where it is."""
    with server.connect(database="openmrs") as connection, connection.cursor() as cursor:
        cursor.execute("FLUSH BINARY LOGS")
        cursor.execute("SHOW MASTER STATUS")
        file, pos, *_ = cursor.fetchone() or ("", 0)
        cursor.execute("SELECT BINLOG_GTID_POS(%s, %s)", (file, pos))
        (gtid,) = cursor.fetchone() or ("",)
        cursor.execute(f"CALL {procedure}(%s)", (rows,))
        end_of_workload(cursor)
    return Workload(name, rows, file, pos, gtid)


def end_of_workload(cursor: Any) -> None:
    """Insert the row that ends a workload."""
    cursor.execute(
        "INSERT INTO obs (person_id, obs_datetime, date_created, uuid, comments)"
        " VALUES (1, '2024-01-01', '2024-01-01', uuid(), %s)",
        (END,),
    )


def _rows(count: int) -> Iterator[tuple[Any, ...]]:
    """Yield rows as clinics record them, with the columns of WRITTEN.

    Two values of five are numbers, two are coded answers, the rest dates and texts.
    """
    first_day = datetime(2024, 1, 1)  # noqa: DTZ001  # a wall time
    for _ in range(count):
        at = first_day + timedelta(seconds=random.randrange(40_000_000))
        yield (
            random.randrange(1, 200_000),
            random.randrange(1, 170_000),
            random.randrange(1, 3_000_000),
            _sometimes(0.1, random.randrange(1, 90_000)),
            at,
            random.randrange(1, 400),
            _sometimes(0.35, random.randrange(1, 9_000_000)),
            *_value(at),
            _sometimes(0.03, "à vérifier"),
            random.randrange(1, 300),
            at,
            _sometimes(0.5, f"HtmlFormEntry^vitals.1.0/{random.randrange(1, 40)}-0"),
            "FINAL",
            _sometimes(0.1, "NORMAL"),
        )


def _value(at: datetime) -> tuple[Any, ...]:
    """Return value_coded, value_coded_name_id, value_datetime, value_numeric and value_text."""
    kind = random.random()
    if kind < 0.4:
        return None, None, None, round(random.uniform(0, 300), 2), None
    if kind < 0.8:
        answer = random.randrange(1, 170_000)
        return answer, _sometimes(0.3, random.randrange(1, 200_000)), None, None, None
    if kind < 0.92:
        return None, None, at + timedelta(days=30), None, None
    return None, None, None, None, "Patient reviewed; " + "x" * random.randrange(10, 90)


def _sometimes(probability: float, value: Any) -> Any:
    return value if random.random() < probability else None
