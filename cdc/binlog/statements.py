"""Statements in the binlog: which of them matter to the watched tables.

The text of a statement may hold patients' values, so it never leaves this module.
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

# Comments and string literals are taken out. The server runs what is in /*! */, so that stays.
_NOISE = re.compile(
    rb"/\*(?:M?!\d*)|\*/(?=)|/\*(?!M?!).*?\*/|--[ \t][^\n]*|#[^\n]*|'(?:[^'\\]|''|\\.)*'", re.DOTALL
)
_WORD = re.compile(rb"[A-Za-z_]+")
_TRANSACTION: dict[bytes, Kind] = {b"BEGIN": "begin", b"COMMIT": "commit", b"ROLLBACK": "rollback"}
_DML = frozenset({b"INSERT", b"UPDATE", b"DELETE", b"REPLACE", b"LOAD", b"WITH"})
# These are logged only if a function that they call writes something.
_CALLS = frozenset({b"SELECT", b"DO", b"CALL"})
_DDL = frozenset({b"ALTER", b"RENAME", b"DROP", b"CREATE"})
_DDL_OF = re.compile(
    rb"(?:ALTER|RENAME|DROP|CREATE)\s+(?:OR\s+REPLACE\s+)?"
    rb"(?:ONLINE\s+|OFFLINE\s+|IGNORE\s+|UNIQUE\s+|FULLTEXT\s+|SPATIAL\s+)*"
    rb"(TABLES?|INDEX|DATABASE|SCHEMA)\b",
    re.IGNORECASE,
)


class Classified(NamedTuple):
    """The kind of a statement, and the watched tables that it names ("*" is all of them)."""

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

    def classify(self, database: bytes, text: bytes) -> Classified:
        """Return what a statement is. `database` is the session's default one."""
        head = _TRANSACTION.get(text.strip(b"; \t\r\n").upper())
        if head:
            return Classified(head)
        sql = _NOISE.sub(b" ", text).strip()
        first = _WORD.match(sql)
        verb = first[0].upper() if first else b""
        if verb == b"ROLLBACK":
            return Classified("rollback_to")
        if verb == b"XA":
            return Classified(
                "xa_done" if re.match(rb"XA\s+(COMMIT|ROLLBACK)\b", sql, re.IGNORECASE) else "xa"
            )
        return self._of_tables(verb, database.lower(), sql)

    def _of_tables(self, verb: bytes, database: bytes, sql: bytes) -> Classified:
        if verb == b"TRUNCATE":
            return Classified("truncate", tuple(self._named(database, sql)))
        if verb in _CALLS:
            return Classified("statement_dml", ("*",))
        if verb in _DML:
            return Classified("statement_dml", tuple(self._named(database, sql)))
        target = _DDL_OF.match(sql) if verb in _DDL else None
        if target is None:
            return Classified("other")
        if target[1].upper() in (b"DATABASE", b"SCHEMA"):
            dropped = verb == b"DROP" and re.search(
                rb"\b" + re.escape(self._database) + rb"\b", sql.lower()
            )
            return Classified("ddl", ("*",) if dropped else ())
        return Classified("ddl", tuple(self._named(database, _target(verb, sql))))

    def _named(self, database: bytes, sql: bytes) -> Iterator[str]:
        named = set()
        for mention in self._mention.finditer(sql):
            name = mention[2].lower().decode()
            if (mention[1] or database).lower() == self._database and name not in named:
                named.add(name)
                yield name


def _target(verb: bytes, sql: bytes) -> bytes:
    """Return the part of a DDL statement that names what it changes.

    What it copies or refers to is left out.
    """
    if verb == b"CREATE" and not re.match(rb"\S+\s+(\S+\s+)*?INDEX\b", sql, re.IGNORECASE):
        return re.split(rb"\(|\b(?:LIKE|SELECT|AS)\b", sql, maxsplit=1, flags=re.IGNORECASE)[0]
    return re.sub(rb"\bREFERENCES\s+[^\s(]+", b"", sql, flags=re.IGNORECASE)


def starts_transaction(text: bytes) -> bool:
    """Return whether rows follow a statement in its own transaction.

    MySQL logs CREATE TABLE ... SELECT so.
    """
    return re.search(rb"\bSTART\s+TRANSACTION\s*;?\s*$", text, re.IGNORECASE) is not None


class PreparedTransactions:
    """The XA transactions that are prepared and, as this stream has seen, change no watched table.

    The rows of an XA transaction are logged when it is prepared. Nobody can see them before it is
    committed, which may be much later, or never.
    """

    def __init__(self) -> None:
        self._harmless: set[bytes] = set()
        self._ended = b""

    def made_visible(self, text: bytes, *, has_rows: bool) -> bool:
        """Return whether this XA statement makes rows of watched tables visible.

        `has_rows` says whether its group had some before it. Rows may also become visible if this
        stream began after the transaction was prepared: then nobody knows which.
        """
        verb, xid, *_ = text.upper().split()[1:]
        if verb == b"END":  # MariaDB logs no START
            self._ended = xid
            if not has_rows:
                self._harmless.add(xid)
        if verb not in (b"COMMIT", b"ROLLBACK"):
            return False
        was_harmless = xid in self._harmless
        self._harmless.discard(xid)
        return verb == b"COMMIT" and not was_harmless

    def committed_in_one_phase(self) -> None:
        """Forget the transaction that ended last: it was committed without having been prepared."""
        self._harmless.discard(self._ended)
