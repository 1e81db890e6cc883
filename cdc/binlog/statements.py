"""Statements in the binlog: which of them matter to the watched tables. Their text may hold values:
it stays here.
"""

import re
from collections.abc import Collection, Iterator
from typing import Literal, NamedTuple

Kind = Literal[
    "begin",
    "commit",
    "rollback",
    "rollback_to",
    "xa",
    "xa_done",
    "ddl",
    "truncate",
    "statement_dml",
    "other",
]

# Comments and string literals go; what is in /*! */ is run by the server, so it stays.
_NOISE = re.compile(
    rb"/\*(?:M?!\d*)|\*/(?=)|/\*(?!M?!).*?\*/|--[ \t][^\n]*|#[^\n]*|'(?:[^'\\]|''|\\.)*'", re.DOTALL
)
_WORD = re.compile(rb"[A-Za-z_]+")
_TRANSACTION: dict[bytes, Kind] = {b"BEGIN": "begin", b"COMMIT": "commit", b"ROLLBACK": "rollback"}
_DML = frozenset({b"INSERT", b"UPDATE", b"DELETE", b"REPLACE", b"LOAD", b"WITH"})
_CALLS = frozenset(
    {b"SELECT", b"DO", b"CALL"}
)  # logged only when a function that it calls writes something
_DDL = frozenset({b"ALTER", b"RENAME", b"DROP", b"CREATE"})
_DDL_OF = re.compile(
    rb"(?:ALTER|RENAME|DROP|CREATE)\s+(?:OR\s+REPLACE\s+)?(?:ONLINE\s+|OFFLINE\s+|IGNORE\s+|UNIQUE\s+|FULLTEXT\s+|SPATIAL\s+)*"
    rb"(TABLES?|INDEX|DATABASE|SCHEMA)\b",
    re.IGNORECASE,
)


class Found(NamedTuple):
    """What a statement is, and which watched tables it names ("*": all of them)."""

    kind: Kind
    tables: tuple[str, ...] = ()


class Statements:
    """Classifies statements for one database and its watched tables."""

    def __init__(self, database: str, tables: Collection[str]) -> None:
        self._database = database.lower().encode()
        names = b"|".join(re.escape(name.lower().encode()) for name in sorted(tables))
        self._mention = re.compile(
            rb"(?:(?<![\w$])([\w$]+)[`\"]?\s*\.\s*)?[`\"]?(?<![\w$])(" + names + rb")(?![\w$])",
            re.IGNORECASE,
        )

    def classify(self, database: bytes, text: bytes) -> Found:
        """`database`: the session's default one."""
        head = _TRANSACTION.get(text.strip(b"; \t\r\n").upper())
        if head:
            return Found(head)
        sql = _NOISE.sub(b" ", text).strip()
        first = _WORD.match(sql)
        verb = first[0].upper() if first else b""
        if verb == b"ROLLBACK":
            return Found("rollback_to")
        if verb == b"XA":
            return Found(
                "xa_done" if re.match(rb"XA\s+(COMMIT|ROLLBACK)\b", sql, re.IGNORECASE) else "xa"
            )
        return self._of_tables(verb, database.lower(), sql)

    def _of_tables(self, verb: bytes, database: bytes, sql: bytes) -> Found:
        if verb == b"TRUNCATE":
            return Found("truncate", tuple(self._named(database, sql)))
        if verb in _CALLS:
            return Found("statement_dml", ("*",))
        if verb in _DML:
            return Found("statement_dml", tuple(self._named(database, sql)))
        target = _DDL_OF.match(sql) if verb in _DDL else None
        if target is None:
            return Found("other")
        if target[1].upper() in (b"DATABASE", b"SCHEMA"):
            dropped = verb == b"DROP" and re.search(
                rb"\b" + re.escape(self._database) + rb"\b", sql.lower()
            )
            return Found("ddl", ("*",) if dropped else ())
        return Found("ddl", tuple(self._named(database, _target(verb, sql))))

    def _named(self, database: bytes, sql: bytes) -> Iterator[str]:
        seen = set()
        for found in self._mention.finditer(sql):
            name = found[2].lower().decode()
            if (found[1] or database).lower() == self._database and name not in seen:
                seen.add(name)
                yield name


def _target(verb: bytes, sql: bytes) -> bytes:
    """The part of a DDL statement that names what it changes, not what it copies or refers to."""
    if verb == b"CREATE" and not re.match(rb"\S+\s+(\S+\s+)*?INDEX\b", sql, re.IGNORECASE):
        return re.split(rb"\(|\b(?:LIKE|SELECT|AS)\b", sql, maxsplit=1, flags=re.IGNORECASE)[0]
    return re.sub(rb"\bREFERENCES\s+[^\s(]+", b"", sql, flags=re.IGNORECASE)


def starts_transaction(text: bytes) -> bool:
    """CREATE TABLE ... SELECT on MySQL: a statement in front of its rows."""
    return re.search(rb"\bSTART\s+TRANSACTION\s*;?\s*$", text, re.IGNORECASE) is not None


class Prepared:
    """XA transactions that were prepared where it was read, so that all their rows were seen."""

    def __init__(self) -> None:
        self._xids: set[bytes] = set()

    def made_visible(self, text: bytes) -> bool:
        """Whether this XA statement commits rows that no event shows any more."""
        verb, xid, *_ = text.upper().split()[1:]
        if verb in (b"START", b"END"):  # MariaDB logs no START
            self._xids.add(xid)
        known = xid in self._xids
        if verb in (b"COMMIT", b"ROLLBACK"):
            self._xids.discard(xid)
        return verb == b"COMMIT" and not known
