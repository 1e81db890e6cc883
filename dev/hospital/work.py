"""One transaction of the clinic: what it reads, picks and changes, through ordinary SQL."""

import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import Any

from dev.hospital import people
from dev.hospital.dictionary import Dictionary
from dev.hospital.sql import Connection, Row, execute, fetch, insert, insert_many

TRIES = 8  # picks that another session may have taken meanwhile

VOID = "voided = 1, voided_by = %s, date_voided = %s, void_reason = %s"
UNVOID = "voided = 0, voided_by = NULL, date_voided = NULL, void_reason = NULL"
# OpenMRS notes nowhere what was voided together. It takes what the same user voided in the same
# second. The values: date_voided, voided_by.
VOIDED_TOGETHER = "voided = 1 AND date_voided = %s AND voided_by = %s"


class NothingToDo(LookupError):  # noqa: N818  # no error: the next action may find something
    """The hospital holds no row on which this action could be done."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """The ids of what seldom changes, read once. Lists may be empty in somebody else's OpenMRS."""

    dictionary: Dictionary
    tables: frozenset[str]
    users: Sequence[int]
    providers: Sequence[int]
    locations: Sequence[int]
    encounter_types: dict[str, int]  # by uuid
    roles: Sequence[int]
    visit_types: Sequence[int]
    national_id: int | None  # the patient_identifier_type

    @classmethod
    def read(cls, connection: Connection) -> "Metadata":
        """Read the metadata of the connection's current database."""

        def unretired(table: str, condition: str = "TRUE") -> list[int]:
            key = "user_id" if table == "users" else f"{table}_id"
            sql = f"SELECT {key} AS id FROM {table} WHERE retired = 0 AND {condition} ORDER BY 1"
            return [int(row["id"]) for row in fetch(connection, sql)]

        sql = "SELECT table_name AS name FROM information_schema.tables"
        tables = fetch(connection, f"{sql} WHERE table_schema = DATABASE()")
        sql = "SELECT uuid, encounter_type_id AS id FROM encounter_type WHERE retired = 0"
        encounter_types = fetch(connection, sql)
        sql = "SELECT patient_identifier_type_id AS id FROM patient_identifier_type WHERE uuid = %s"
        national_ids = fetch(connection, sql, [people.NATIONAL_ID_TYPE])
        return cls(
            dictionary=Dictionary.read(connection),
            tables=frozenset(row["name"] for row in tables),
            users=unretired("users", "username <> 'daemon'"),
            providers=unretired("provider"),
            locations=unretired("location"),
            encounter_types={row["uuid"]: int(row["id"]) for row in encounter_types},
            roles=unretired("encounter_role"),
            visit_types=unretired("visit_type"),
            national_id=int(national_ids[0]["id"]) if national_ids else None,
        )


class Work:
    """The changes of one transaction.

    `touched` has the obs_id of every change of an obs row, in order. With `counter` (a number)
    each change is also written to the table journal, counting on from it. An action that sets
    `rollback` wants its transaction taken back.
    """

    def __init__(
        self,
        connection: Connection,
        metadata: Metadata,
        rng: Random,
        now: datetime,
        counter: int | None,
    ) -> None:
        self.connection = connection
        self.metadata = metadata
        self.rng = rng
        self.now = now
        self.counter = counter
        self.user = rng.choice(metadata.users)
        self.touched: list[int] = []
        self.rollback = False

    def uuid(self) -> str:
        """Return a new uuid. It does not follow the seed: a clinic may be started again."""
        return str(uuid.uuid4())

    def fetch(self, sql: str, *values: Any) -> list[Row]:
        return fetch(self.connection, sql, values)

    def execute(self, sql: str, *values: Any) -> int:
        return execute(self.connection, sql, values)

    def insert(self, table: str, row: Row) -> int:
        return insert(self.connection, table, row)

    def created(self) -> Row:
        """Return the columns that a new row of any table has."""
        return {"creator": self.user, "date_created": self.now, "uuid": self.uuid()}

    def change(self, table: str, values: Row, condition: str, *arguments: Any) -> None:
        """Update the rows for which the condition holds, and note who did it and when."""
        noted = {**values, "changed_by": self.user, "date_changed": self.now}
        assignments = ", ".join(f"{name} = %s" for name in noted)
        sql = f"UPDATE {table} SET {assignments} WHERE {condition}"
        self.execute(sql, *noted.values(), *arguments)

    def void(self, table: str, reason: str, condition: str, *arguments: Any) -> None:
        """Void the rows of a table other than obs for which the condition holds."""
        sql = f"UPDATE {table} SET {VOID} WHERE {condition}"
        self.execute(sql, self.user, self.now, reason, *arguments)

    def unvoid(self, table: str, condition: str, *arguments: Any) -> None:
        """Restore the rows of a table other than obs for which the condition holds."""
        self.execute(f"UPDATE {table} SET {UNVOID} WHERE {condition}", *arguments)

    def pick(self, table: str, key: str, condition: str) -> Row:
        """Return some row `t` of the table for which the condition holds, locked.

        It costs no scan of the whole table. Conditions ask with `(SELECT 1 ... LIMIT 1) IS NULL`,
        because both optimisers turn EXISTS into joins that scan. Raises NothingToDo.
        """
        ends = self.fetch(f"SELECT MIN(`{key}`) AS low, MAX(`{key}`) AS high FROM `{table}`")[0]
        if ends["low"] is None:
            raise NothingToDo(f"{table} is empty")
        for _ in range(TRIES):
            start = self.rng.randint(ends["low"], ends["high"])
            for side in (">=", "<"):
                rows = self.fetch(
                    f"SELECT {key} AS id FROM `{table}` t"
                    f" WHERE {key} {side} %s AND {condition} ORDER BY {key} LIMIT 1",
                    start,
                )
                if rows:
                    break
            else:
                raise NothingToDo(f"no row of {table} where {condition}")
            # Another session may have changed it since: only the locked row counts.
            locked = self.fetch(
                f"SELECT * FROM `{table}` t WHERE {key} = %s AND {condition} FOR UPDATE",
                rows[0]["id"],
            )
            if locked:
                return locked[0]
        raise NothingToDo(f"others are at every row of {table} where {condition}")

    def pick_group(self, condition: str) -> Row:
        """Return the live parent `t` of some live member, locked.

        Groups may be rare, so that it is found through the index of their members. Raises
        NothingToDo.
        """
        ends = self.fetch("SELECT MIN(obs_group_id) AS low, MAX(obs_group_id) AS high FROM obs")[0]
        tries = 4 * TRIES if ends["low"] else 0
        for _ in range(tries):
            start = self.rng.randint(ends["low"], ends["high"])
            parents = self.fetch(
                "SELECT obs_group_id AS id FROM obs"
                " WHERE obs_group_id >= %s AND voided = 0 ORDER BY 1 LIMIT 1",
                start,
            )
            if not parents:
                continue
            locked = self.fetch(
                f"SELECT * FROM obs t WHERE obs_id = %s AND voided = 0 AND {condition} FOR UPDATE",
                parents[0]["id"],
            )
            if locked:
                return locked[0]
        raise NothingToDo(f"no group where {condition}")

    def obs_ids(self, condition: str, *arguments: Any) -> list[int]:
        """Return the ids of the obs for which the condition holds, locked."""
        rows = self.fetch(f"SELECT obs_id FROM obs WHERE {condition} FOR UPDATE", *arguments)
        return [row["obs_id"] for row in rows]

    def insert_obs(self, row: Row) -> int:
        """Insert an obs and return its id."""
        obs_id = self.insert("obs", row)
        self._note([obs_id], "c")
        return obs_id

    def update_obs(self, ids: Sequence[int], assignments: str, *values: Any) -> None:
        """Update these obs with the assignments of an SQL SET."""
        if ids:
            self.execute(f"UPDATE obs SET {assignments} WHERE obs_id IN %s", *values, list(ids))
            self._note(ids, "u")

    def void_obs(self, ids: Sequence[int], reason: str) -> None:
        self.update_obs(ids, VOID, self.user, self.now, reason)

    def unvoid_obs(self, ids: Sequence[int]) -> None:
        self.update_obs(ids, UNVOID)

    def delete_obs(self, ids: Sequence[int]) -> None:
        """Delete these obs in the order given.

        Foreign keys want members before their parents and newer versions before older ones.
        """
        if "obs_reference_range" in self.metadata.tables:
            self.execute("DELETE FROM obs_reference_range WHERE obs_id IN %s", list(ids))
        for obs_id in ids:
            self.execute("DELETE FROM obs WHERE obs_id = %s", obs_id)
        self._note(ids, "d")

    def _note(self, ids: Iterable[int], op: str) -> None:
        ids = list(ids)
        self.touched += ids
        if self.counter is not None:
            rows = [(obs_id, op, self.counter + number) for number, obs_id in enumerate(ids, 1)]
            insert_many(self.connection, "journal", "obs_id op counter", rows)
            self.counter += len(ids)

    def tree(self, root: Row, condition: str = "voided = 0") -> list[Row]:
        """Return the row, its members and theirs, parents first; members are locked."""
        rows = [root]
        level = [root["obs_id"]]
        while level:
            members = self.fetch(
                f"SELECT * FROM obs WHERE obs_group_id IN %s AND {condition}"
                " ORDER BY obs_id FOR UPDATE",
                level,
            )
            rows += members
            level = [row["obs_id"] for row in members]
        return rows

    def roots(self, condition: str, *values: Any) -> list[Row]:
        """Return the live obs `t` that meet the condition and are in no live group, locked."""
        return self.fetch(
            f"SELECT * FROM obs t WHERE {condition} AND voided = 0"
            " AND (SELECT 1 FROM obs p"
            " WHERE p.obs_id = t.obs_group_id AND p.voided = 0 LIMIT 1) IS NULL"
            " ORDER BY obs_id FOR UPDATE",
            *values,
        )

    def copy(
        self, rows: Sequence[Row], change: Callable[[Row], Row], *, edit: bool
    ) -> dict[int, int]:
        """Insert a new row for each of these (parents first), as OpenMRS copies an obs.

        `change` returns the columns that the new row has otherwise. The name of a coded value is
        lost. An `edit` follows its old row as `previous_version` and is AMENDED. Return the new
        obs_id by the old one.
        """
        new_ids: dict[int, int] = {}
        for row in rows:
            new = {
                **row,
                "voided": 0,
                "voided_by": None,
                "date_voided": None,
                "void_reason": None,
                "value_coded_name_id": None,
                "obs_group_id": new_ids.get(row["obs_group_id"], row["obs_group_id"]),
                "previous_version": row["obs_id"] if edit else None,
                **self.created(),
            }
            del new["obs_id"]
            if edit and row["status"] == "FINAL":
                new["status"] = "AMENDED"
            new_ids[row["obs_id"]] = self.insert_obs({**new, **change(row)})
        return new_ids

    def amend(
        self, rows: Sequence[Row], change: Callable[[Row], Row], reason: str
    ) -> dict[int, int]:
        """Edit obs as OpenMRS does: new rows are inserted first, then the old ones voided."""
        new_ids = self.copy(rows, change, edit=True)
        self.void_obs([row["obs_id"] for row in rows], reason)
        return new_ids
