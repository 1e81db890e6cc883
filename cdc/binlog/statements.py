"""Statements in the binlog: which of them matter to the watched tables.

The text of a statement may hold patients' values, so it never leaves this module.

A statement that is not known here, and names a watched table, counts as DDL of that table: a table
that is read in vain costs some time, and one that is not read loses rows.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from cdc.binlog.alter_table import ColumnChange, NotUnderstoodError, clauses, column_changes
from cdc.binlog.field_types import Flavour
from cdc.binlog.sql_tokens import AT, DOT, END, Session, Token, TokenReader

Kind = Literal[
    "begin",
    "commit",
    "rollback",
    "rollback_to",
    "xa",
    "xa_done",
    "alter",
    "ddl",
    "truncate",
    "statement_dml",
    "other",
]

_TRANSACTION: dict[bytes, Kind] = {b"BEGIN": "begin", b"COMMIT": "commit", b"ROLLBACK": "rollback"}
_DML = ("INSERT", "UPDATE", "DELETE", "REPLACE", "LOAD", "WITH")
# What may be created, altered and dropped although its text names a watched table.
_NO_TABLES = {
    "EVENT", "FUNCTION", "PACKAGE", "PROCEDURE", "ROLE", "SERVER", "TRIGGER", "USER", "VIEW",
}  # fmt: skip
# What stands in front of them.
_PREFIXES = ("AGGREGATE", "ALGORITHM", "DEFINER", "SQL")
_INDEX_KINDS = ("UNIQUE", "FULLTEXT", "SPATIAL", "VECTOR", "ONLINE", "OFFLINE")


class Classified(NamedTuple):
    """The kind of a statement, and the watched tables that it concerns ("*" is all of them).

    An `alter` changes no value but those of `columns`.
    """

    kind: Kind
    tables: tuple[str, ...] = ()
    columns: tuple[ColumnChange, ...] = ()


# A statement that names no watched table is told by so many bytes. Splitting all takes a second for
# each 10 MB.
_LONG = 10_000

_BY_VERB: Mapping[str, Classified] = {
    "COMMIT": Classified("commit"),
    "ROLLBACK": Classified("rollback_to"),
    "IMPORT": Classified("ddl", ("*",)),  # it names files
    # These are logged only if a function that they call writes something.
    **dict.fromkeys(("SELECT", "DO", "CALL", "VALUES"), Classified("statement_dml", ("*",))),
    # These may name a watched table, and change no row.
    **dict.fromkeys(
        ("GRANT", "REVOKE", "SAVEPOINT", "RELEASE", "FLUSH", "OPTIMIZE"), Classified("other")
    ),
}


class Statements:
    """Classifies statements for one database and its watched tables.

    `charsets` has the character sets by collation id.
    """

    def __init__(
        self,
        database: str,
        tables: Collection[str],
        flavour: Flavour,
        charsets: Mapping[int, str],
    ) -> None:
        self._database = database.lower()
        self._tables = {name.lower() for name in tables}
        self._flavour = flavour
        self._charsets = charsets

    def classify(self, database: bytes, text: bytes, status: bytes = b"") -> Classified:
        """Return what a statement is.

        `database` is the session's default one, `status` has the status variables of the event.
        """
        kind = _TRANSACTION.get(text.strip(b"; \t\r\n").upper())
        if kind:
            return Classified(kind)
        if len(text) > _LONG and not self._may_name_a_table(text):
            text = text[:_LONG]
        tokens = Session.read(status, self._charsets).tokens(text, self._flavour)
        return self._classify(TokenReader(tokens), database.decode("utf-8", "replace").lower())

    def _may_name_a_table(self, text: bytes) -> bool:
        lower_text = text.lower()
        return any(name.encode() in lower_text for name in self._tables)

    def _classify(self, reader: TokenReader, default: str) -> Classified:
        # `default` is the database of tables that are named without one.
        while reader.next == ("symbol", "("):
            reader.take()
        verb = reader.word()
        reader.take()
        if verb == "SET":
            return self._set(reader, default)
        if verb in _BY_VERB:
            return _BY_VERB[verb]
        if verb == "XA":
            return Classified("xa_done" if reader.word() in ("COMMIT", "ROLLBACK") else "xa")
        if verb in _DML:
            return Classified("statement_dml", self._watched(reader.rest(), default))
        if verb == "TRUNCATE":
            return Classified("truncate", self._watched(reader.rest(), default))
        if verb == "ANALYZE":  # MariaDB's ANALYZE also runs another statement
            reader.accept("NO_WRITE_TO_BINLOG", "LOCAL")
            if reader.accept("TABLE", "TABLES"):
                return Classified("other")
        if verb in ("CREATE", "ALTER", "DROP", "RENAME"):
            return self._ddl(verb, reader, default)
        return self._not_known(reader, default)

    def _set(self, reader: TokenReader, default: str) -> Classified:
        """Read SET STATEMENT variables FOR statement, which is MariaDB's."""
        if not reader.accept("STATEMENT"):
            return Classified("other")
        depth = 0
        while reader.next.kind != "end":
            if depth == 0 and reader.accept("FOR"):
                return self._classify(reader, default)
            token = reader.take()
            if token.kind == "symbol":
                depth += (token.text == "(") - (token.text == ")")
        return Classified("other")

    def _not_known(self, reader: TokenReader, default: str) -> Classified:
        tables = self._watched(reader.rest(), default)
        return Classified("ddl" if tables else "other", tables)

    # --- DDL

    def _ddl(self, verb: str, reader: TokenReader, default: str) -> Classified:
        is_drop = verb == "DROP"
        if reader.accept("OR"):
            reader.accept("REPLACE")
            is_drop = True
        if reader.word() in _NO_TABLES or reader.word() in _PREFIXES:
            return Classified("other")
        if reader.accept("DATABASE", "SCHEMA"):
            return self._of_database(reader, is_drop=is_drop)
        if verb == "ALTER":
            return self._alter(reader, default)
        while reader.accept(*_INDEX_KINDS):
            pass
        if reader.accept("INDEX"):
            return self._index(reader, default)
        if reader.accept("TEMPORARY") and reader.accept("TABLE", "TABLES"):
            return Classified("other")
        if verb == "CREATE" and reader.accept("TABLE"):
            _step_over_condition(reader)
            if self._is_table(reader):
                # What it is made of, or refers to, stands behind its name.
                table = self._table(reader, default)
                return Classified("ddl" if table else "other", table)
        return self._not_known(reader, default)

    def _of_database(self, reader: TokenReader, *, is_drop: bool) -> Classified:
        _step_over_condition(reader)
        name = reader.identifier().lower()
        # UPGRADE DATA DIRECTORY NAME gives a database another name.
        if (is_drop and name in ("", self._database)) or reader.word() == "UPGRADE":
            return Classified("ddl", ("*",))
        return Classified("other")

    def _index(self, reader: TokenReader, default: str) -> Classified:
        while reader.next.kind != "end" and not reader.accept("ON"):
            reader.take()
        if not self._is_table(reader):
            return self._not_known(reader, default)
        table = self._table(reader, default)
        return Classified("alter" if table else "other", table)

    def _alter(self, reader: TokenReader, default: str) -> Classified:
        reader.accept("ONLINE", "OFFLINE")
        keeps_rows = not reader.accept("IGNORE")  # it drops rows whose new key isn't unique
        if not reader.accept("TABLE"):
            return self._not_known(reader, default)
        _step_over_condition(reader)
        if not self._is_table(reader):
            return self._not_known(reader, default)
        table = self._table(reader, default)
        if reader.accept("WAIT"):
            reader.take()
        reader.accept("NOWAIT")

        other_tables: list[str] = []
        columns: list[ColumnChange] = []
        for clause in clauses(reader):
            if _names_a_table(clause):
                other_tables += self._watched(clause, default)
            try:
                columns += column_changes(clause)
            except NotUnderstoodError:
                keeps_rows = False
        if table and keeps_rows:
            return Classified("alter", table, tuple(columns))
        tables = tuple(dict.fromkeys((*table, *other_tables)))
        return Classified("ddl" if tables else "other", tables)

    # --- names of tables

    def _is_table(self, reader: TokenReader) -> bool:
        """Return whether the name of a table comes. It may begin with a dot, as in ``.obs``."""
        return reader.next.kind in ("word", "name") or reader.next == DOT

    def _table(self, reader: TokenReader, default: str) -> tuple[str, ...]:
        """Step behind the name of a table. Return the table if it is watched."""
        if reader.next == DOT:
            reader.take()
        name = reader.take()
        database = default
        if reader.next == DOT:
            reader.take()
            database = name.text.lower()
            name = reader.take()
        if database == self._database and name.text.lower() in self._tables:
            return (name.text.lower(),)
        return ()

    def _watched(self, tokens: Iterable[Token], default: str) -> tuple[str, ...]:
        """Return the watched tables that are named anywhere in `tokens`."""
        named: dict[str, None] = {}
        before = second_before = END
        for token in tokens:
            name = token.text.lower()
            if token.kind in ("word", "name") and name in self._tables and before != AT:
                database = default
                if before == DOT and second_before.kind in ("word", "name"):
                    database = second_before.text.lower()
                if database == self._database:
                    named[name] = None
            second_before = before
            before = token
        return tuple(named)


def _step_over_condition(reader: TokenReader) -> None:
    """Step behind IF EXISTS, or IF NOT EXISTS, if it comes."""
    if reader.accept("IF"):
        reader.accept("NOT")
        reader.accept("EXISTS")


def _names_a_table(clause: Sequence[Token]) -> bool:
    """Return whether a clause of ALTER TABLE may name another table that it changes.

    It does in RENAME TO, EXCHANGE PARTITION and CONVERT. A column may have the name of a table.
    """
    for token, following in pairwise([*clause, END]):
        if token.kind != "word":
            continue
        word = token.text.upper()
        is_table_renamed = word == "RENAME" and following.text.upper() not in (
            "COLUMN",
            "INDEX",
            "KEY",
        )
        if word == "TABLE" or is_table_renamed:
            return True
    return False


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
