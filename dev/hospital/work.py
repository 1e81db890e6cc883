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


class NothingToDo(LookupError):  # noqa: N818  # no error: the next action may find something
    """The hospital holds no row on which this action could be done."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """What seldom changes; read once. Lists may be empty in somebody else's OpenMRS."""

    dictionary: Dictionary
    tables: frozenset[str]
    users: Sequence[int]
    providers: Sequence[int]
    locations: Sequence[int]
    encounter_types: dict[str, int]
    roles: Sequence[int]
    visit_types: Sequence[int]
    national_id: int | None

    @classmethod
    def read(cls, connection: Connection) -> "Metadata":
        def ids(sql: str, *values: Any) -> list[int]:
            return [int(row["id"]) for row in fetch(connection, sql, values)]

        tables = fetch(
            connection,
            "SELECT table_name AS name FROM information_schema.tables WHERE table_schema = DATABASE()",
        )
        types = fetch(
            connection, "SELECT uuid, encounter_type_id AS id FROM encounter_type WHERE retired = 0"
        )
        national = (
            "SELECT patient_identifier_type_id AS id FROM patient_identifier_type WHERE uuid = %s"
        )
        return cls(
            dictionary=Dictionary.read(connection),
            tables=frozenset(row["name"] for row in tables),
            users=ids(
                "SELECT user_id AS id FROM users WHERE retired = 0 AND username <> 'daemon' ORDER BY 1"
            ),
            providers=ids("SELECT provider_id AS id FROM provider WHERE retired = 0 ORDER BY 1"),
            locations=ids("SELECT location_id AS id FROM location WHERE retired = 0 ORDER BY 1"),
            encounter_types={row["uuid"]: int(row["id"]) for row in types},
            roles=ids(
                "SELECT encounter_role_id AS id FROM encounter_role WHERE retired = 0 ORDER BY 1"
            ),
            visit_types=ids(
                "SELECT visit_type_id AS id FROM visit_type WHERE retired = 0 ORDER BY 1"
            ),
            national_id=next(iter(ids(national, people.NATIONAL_ID_TYPE)), None),
        )


class Work:
    """Changes of one transaction. `touched` has the obs_id of every change of an obs row, in order;
    with `counter` (a number) each is also written to the table journal, counting on from it."""

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
        # Not from the seed: a clinic may be started again on what it wrote before.
        return str(uuid.uuid4())

    def fetch(self, sql: str, *values: Any) -> list[Row]:
        return fetch(self.connection, sql, values)

    def execute(self, sql: str, *values: Any) -> int:
        return execute(self.connection, sql, values)

    def insert(self, table: str, row: Row) -> int:
        return insert(self.connection, table, row)

    def created(self) -> Row:
        """The columns of a new row of any table."""
        return {"creator": self.user, "date_created": self.now, "uuid": self.uuid()}

    def pick(self, table: str, key: str, condition: str) -> Row:
        """Some row `t` of the table for which the condition holds, locked; costs no scan of the
        whole table.

        Conditions ask with `(SELECT 1 ... LIMIT 1) IS NULL`: of EXISTS both optimisers make joins
        that scan."""
        ends = self.fetch(f"SELECT MIN(`{key}`) AS low, MAX(`{key}`) AS high FROM `{table}`")[0]
        if ends["low"] is None:
            raise NothingToDo(f"{table} is empty")
        for _ in range(TRIES):
            start = self.rng.randint(ends["low"], ends["high"])
            for side in (">=", "<"):
                sql = (
                    f"SELECT {key} AS id FROM `{table}` t"
                    f" WHERE {key} {side} %s AND {condition} ORDER BY {key} LIMIT 1"
                )
                found = self.fetch(sql, start)
                if found:
                    break
            else:
                raise NothingToDo(f"no row of {table} where {condition}")
            locked = self.fetch(
                f"SELECT * FROM `{table}` t WHERE {key} = %s AND {condition} FOR UPDATE",
                found[0]["id"],
            )
            if locked:
                return locked[0]
        raise NothingToDo(f"others are at every row of {table} where {condition}")

    def pick_group(self, condition: str) -> Row:
        """The live parent `t` of some live member, locked; found through the members' index, for
        groups may be rare.
        """
        ends = self.fetch("SELECT MIN(obs_group_id) AS low, MAX(obs_group_id) AS high FROM obs")[0]
        for _ in range(4 * TRIES if ends["low"] else 0):
            start = self.rng.randint(ends["low"], ends["high"])
            sql = "SELECT obs_group_id AS id FROM obs WHERE obs_group_id >= %s AND voided = 0 ORDER BY 1 LIMIT 1"
            for found in self.fetch(sql, start):
                sql = f"SELECT * FROM obs t WHERE obs_id = %s AND voided = 0 AND {condition} FOR UPDATE"
                for row in self.fetch(sql, found["id"]):
                    return row
        raise NothingToDo(f"no group where {condition}")

    def insert_obs(self, row: Row) -> int:
        obs = self.insert("obs", row)
        self._note([obs], "c")
        return obs

    def update_obs(self, ids: Sequence[int], assignments: str, *values: Any) -> None:
        if ids:
            self.execute(f"UPDATE obs SET {assignments} WHERE obs_id IN %s", *values, list(ids))
            self._note(ids, "u")

    def void_obs(self, ids: Sequence[int], reason: str) -> None:
        void = "voided = 1, voided_by = %s, date_voided = %s, void_reason = %s"
        self.update_obs(ids, void, self.user, self.now, reason)

    def unvoid_obs(self, ids: Sequence[int]) -> None:
        self.update_obs(ids, "voided = 0, voided_by = NULL, date_voided = NULL, void_reason = NULL")

    def delete_obs(self, ids: Sequence[int]) -> None:
        """In the order given: foreign keys want members before parents, newer versions before older
        ones.
        """
        if "obs_reference_range" in self.metadata.tables:
            self.execute("DELETE FROM obs_reference_range WHERE obs_id IN %s", list(ids))
        for obs in ids:
            self.execute("DELETE FROM obs WHERE obs_id = %s", obs)
        self._note(ids, "d")

    def _note(self, ids: Iterable[int], op: str) -> None:
        ids = list(ids)
        self.touched += ids
        if self.counter is not None:
            rows = [(obs, op, self.counter + number) for number, obs in enumerate(ids, 1)]
            insert_many(self.connection, "journal", "obs_id op counter", rows)
            self.counter += len(ids)

    def tree(self, root: Row, condition: str = "voided = 0") -> list[Row]:
        """The row and its members, theirs too, parents first; locked."""
        rows, level = [root], [root["obs_id"]]
        while level:
            sql = f"SELECT * FROM obs WHERE obs_group_id IN %s AND {condition} ORDER BY obs_id FOR UPDATE"
            members = self.fetch(sql, level)
            rows += members
            level = [row["obs_id"] for row in members]
        return rows

    def roots(self, condition: str, *values: Any) -> list[Row]:
        """Live obs that are in no live group, locked."""
        sql = (
            f"SELECT * FROM obs t WHERE {condition} AND voided = 0 AND (SELECT 1 FROM obs p"
            " WHERE p.obs_id = t.obs_group_id AND p.voided = 0 LIMIT 1) IS NULL ORDER BY obs_id FOR UPDATE"
        )
        return self.fetch(sql, *values)

    def copy(
        self, rows: Sequence[Row], change: Callable[[Row], Row], *, edit: bool
    ) -> dict[int, int]:
        """New rows for these (parents first), as OpenMRS copies an obs: the name of a coded value
        is lost. An `edit` follows its old row and is AMENDED. Returns old -> new obs_id."""
        made: dict[int, int] = {}
        for row in rows:
            old, group = row["obs_id"], row["obs_group_id"]
            new = {name: value for name, value in row.items() if name != "obs_id"}
            new |= {"voided": 0, "voided_by": None, "date_voided": None, "void_reason": None}
            new |= {
                "value_coded_name_id": None,
                "obs_group_id": made.get(group, group),
                **self.created(),
            }
            new["previous_version"] = old if edit else None
            if edit and row["status"] == "FINAL":
                new["status"] = "AMENDED"
            made[old] = self.insert_obs({**new, **change(row)})
        return made

    def amend(
        self, rows: Sequence[Row], change: Callable[[Row], Row], reason: str
    ) -> dict[int, int]:
        """OpenMRS never updates an obs: new rows first, then the old ones voided."""
        made = self.copy(rows, change, edit=True)
        self.void_obs([row["obs_id"] for row in rows], reason)
        return made
