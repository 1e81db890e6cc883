"""ALTER TABLE: which columns it adds, changes, moves and drops. Pure.

Only what is listed here is understood, since whoever is told that a statement keeps all rows will
not look at them. Any other ALTER TABLE may have changed every value of its table.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from cdc.binlog.sql_tokens import Token, TokenReader

FIRST = ""
"""As `ColumnChange.after`: in front of all other columns."""

# What ADD and DROP may be followed by if they concern no column. None of it changes a value.
_KEYS = ("INDEX", "KEY", "UNIQUE", "PRIMARY", "FULLTEXT", "SPATIAL", "FOREIGN", "CONSTRAINT")

# Options of a table that keep its rows and columns. A character set is that of later columns only.
_OPTIONS = {
    "ALGORITHM", "AUTO_INCREMENT", "AVG_ROW_LENGTH", "CHARSET", "CHECKSUM", "COLLATE", "COMMENT",
    "DELAY_KEY_WRITE", "KEY_BLOCK_SIZE", "LOCK", "MAX_ROWS", "MIN_ROWS", "PACK_KEYS",
    "PAGE_CHECKSUM", "ROW_FORMAT", "STATS_AUTO_RECALC", "STATS_PERSISTENT", "STATS_SAMPLE_PAGES",
    "TRANSACTIONAL",
}  # fmt: skip
# Other engines may keep nothing, or not here.
_ENGINES = ("INNODB", "MYISAM", "ARIA")

_TYPES = {
    "BIGINT", "BINARY", "BIT", "BLOB", "BOOL", "BOOLEAN", "CHAR", "CHARACTER", "DATE", "DATETIME",
    "DEC", "DECIMAL", "DOUBLE", "ENUM", "FIXED", "FLOAT", "INT", "INTEGER", "JSON", "LONGBLOB",
    "LONGTEXT", "MEDIUMBLOB", "MEDIUMINT", "MEDIUMTEXT", "NUMERIC", "REAL", "SET", "SMALLINT",
    "TEXT", "TIME", "TIMESTAMP", "TINYBLOB", "TINYINT", "TINYTEXT", "VARBINARY", "VARCHAR", "YEAR",
}  # fmt: skip
_ATTRIBUTES = {
    "AUTO_INCREMENT", "B", "COMMENT", "CURRENT_TIMESTAMP", "DEFAULT", "FALSE", "KEY", "NOT",
    "NOW", "NULL", "ON", "PRECISION", "PRIMARY", "SIGNED", "TRUE", "UNIQUE", "UNSIGNED", "UPDATE",
    "VARYING", "X", "ZEROFILL",
}  # fmt: skip


class ColumnChange(NamedTuple):
    """The column `old` became the column `new`: "" where it was added, or dropped.

    `after` is the column behind which it stands now, or FIRST. It is None if the statement doesn't
    say: then it stays where it was, and an added column is the last one. If `is_conditional`,
    nothing happened to a column that was there already, or wasn't there.
    """

    old: str
    new: str
    after: str | None = None
    is_conditional: bool = False

    @property
    def names(self) -> set[str]:
        """The column's names before and after, in lower case."""
        return {name.lower() for name in (self.old, self.new) if name}


class NotUnderstoodError(ValueError):
    """A clause is none of those that are known to keep all rows."""


def clauses(reader: TokenReader) -> Iterator[list[Token]]:
    """Yield the clauses of an ALTER TABLE, whose table was read already."""
    clause: list[Token] = []
    depth = 0
    for token in reader.rest():
        if token.kind == "symbol":
            depth += (token.text == "(") - (token.text == ")")
            if token.text == ";" and depth == 0:
                break
            if token.text == "," and depth == 0:
                yield clause
                clause = []
                continue
        clause.append(token)
    if clause:
        yield clause


def column_changes(clause: Sequence[Token]) -> list[ColumnChange]:
    """Return what a clause does to columns.

    Raises NotUnderstoodError if it isn't known to keep all rows and all other values.
    """
    reader = TokenReader(iter(clause))
    verb = reader.accept("ADD", "DROP", "MODIFY", "CHANGE", "RENAME", "ALTER", "ENABLE", "DISABLE")
    match verb:
        case "ADD":
            return _added(reader)
        case "DROP":
            return _dropped(reader)
        case "MODIFY" | "CHANGE":
            return _redefined(reader, verb)
        case "RENAME":
            return _renamed(reader)
        case "ALTER":  # a default, or whether a column or an index is seen
            return []
        case "ENABLE" | "DISABLE":
            _expect(reader, "KEYS")
            return _end(reader, [])
        case _:
            return _options(reader)


def _added(reader: TokenReader) -> list[ColumnChange]:
    if reader.word() in _KEYS or reader.word() == "CHECK":
        return []
    reader.accept("COLUMN")
    is_conditional = _accept_condition(reader)
    name = _name(reader)
    after = _definition(reader)
    return [ColumnChange("", name, after, is_conditional)]


def _dropped(reader: TokenReader) -> list[ColumnChange]:
    if reader.word() in _KEYS or reader.word() == "CHECK":
        return []
    reader.accept("COLUMN")
    is_conditional = _accept_condition(reader)
    name = _name(reader)
    reader.accept("RESTRICT", "CASCADE")
    return _end(reader, [ColumnChange(name, "", None, is_conditional)])


def _redefined(reader: TokenReader, verb: str) -> list[ColumnChange]:
    reader.accept("COLUMN")
    is_conditional = _accept_condition(reader)
    old = _name(reader)
    new = _name(reader) if verb == "CHANGE" else old
    after = _definition(reader)
    return [ColumnChange(old, new, after, is_conditional)]


def _renamed(reader: TokenReader) -> list[ColumnChange]:
    if reader.accept("INDEX", "KEY"):
        return []
    _expect(reader, "COLUMN")
    is_conditional = _accept_condition(reader)
    old = _name(reader)
    _expect(reader, "TO")
    new = _name(reader)
    return _end(reader, [ColumnChange(old, new, None, is_conditional)])


def _options(reader: TokenReader) -> list[ColumnChange]:
    """Read options of the table. There may be several without a comma."""
    while reader.next.kind != "end":
        if reader.accept("FORCE"):
            continue
        reader.accept("DEFAULT")
        if reader.accept("CHARACTER"):
            _expect(reader, "SET")
            option = "CHARSET"
        else:
            option = reader.accept("ENGINE", *_OPTIONS)
        if not option:
            raise NotUnderstoodError
        reader.accept_symbol("=")
        value = reader.take()
        if value.kind not in ("word", "text", "name"):
            raise NotUnderstoodError
        if option == "ENGINE" and value.text.upper() not in _ENGINES:
            raise NotUnderstoodError
    return []


def _definition(reader: TokenReader) -> str | None:
    """Read a column's type, its attributes and its place. Return the place."""
    _expect(reader, *_TYPES)
    while reader.next.kind != "end":
        if reader.accept("FIRST"):
            _end(reader, [])
            return FIRST
        if reader.accept("AFTER"):
            after = _name(reader)
            _end(reader, [])
            return after
        if reader.accept("COLLATE", "CHARSET"):
            reader.take()
        elif reader.accept("CHARACTER"):
            _expect(reader, "SET")
            reader.take()
        elif reader.next == ("symbol", "("):
            _step_over_parentheses(reader)
        elif reader.word() in _ATTRIBUTES or _is_value(reader.next):
            reader.take()
        else:
            raise NotUnderstoodError
    return None


def _is_value(token: Token) -> bool:
    """Return whether it can be a part of a default or a comment: a text, or part of a number."""
    if token.kind == "word":
        return token.text[0].isdigit()
    return token.kind == "text" or token in (("symbol", "."), ("symbol", "-"), ("symbol", "+"))


def _step_over_parentheses(reader: TokenReader) -> None:
    depth = 0
    while reader.next.kind != "end":
        token = reader.take()
        if token.kind == "symbol":
            depth += (token.text == "(") - (token.text == ")")
            if depth == 0:
                return
    raise NotUnderstoodError


def _accept_condition(reader: TokenReader) -> bool:
    """Step behind IF EXISTS or IF NOT EXISTS. Return whether it was there."""
    if not reader.accept("IF"):
        return False
    reader.accept("NOT")
    _expect(reader, "EXISTS")
    return True


def _name(reader: TokenReader) -> str:
    name = reader.identifier()
    if not name or reader.next == ("symbol", "."):  # table.column
        raise NotUnderstoodError
    return name


def _expect(reader: TokenReader, *words: str) -> None:
    if not reader.accept(*words):
        raise NotUnderstoodError


def _end(reader: TokenReader, changes: list[ColumnChange]) -> list[ColumnChange]:
    if reader.next.kind != "end":
        raise NotUnderstoodError
    return changes


def changed_names(names: Sequence[str], changes: Sequence[ColumnChange]) -> list[str] | None:
    """Return the columns of a table, in order, after an ALTER TABLE that made these changes.

    None if the changes don't fit the columns: then these weren't the table's.
    """
    before = {name.lower(): name for name in names}
    changes = [change for change in changes if _happened(change, before)]
    by_old = {change.old.lower(): change for change in changes if change.old}
    if not by_old.keys() <= before.keys():
        return None

    # The servers first go through the old columns, then through those that were added or moved.
    after: list[str] = []
    for name in names:
        change = by_old.get(name.lower())
        if change is None:
            after.append(name)
        elif change.new and change.after is None:
            after.append(change.new)
    for change in changes:
        if not change.new or (change.old and change.after is None):
            continue
        if change.after is None:
            after.append(change.new)
        elif change.after == FIRST:
            after.insert(0, change.new)
        else:
            lower = [name.lower() for name in after]
            if change.after.lower() not in lower:
                return None
            after.insert(lower.index(change.after.lower()) + 1, change.new)

    is_unique = len({name.lower() for name in after}) == len(after)
    return after if is_unique else None


def _happened(change: ColumnChange, before: "dict[str, str]") -> bool:
    """Return False for a conditional change whose condition wasn't true."""
    if not change.is_conditional:
        return True
    if change.old:
        return change.old.lower() in before
    return change.new.lower() not in before
