"""Statements of real servers, told apart as the servers understand them."""

import functools
import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pymysql
import pytest

from cdc.binlog.alter_table import changed_names
from cdc.binlog.stream import RowChange, Statement
from passport.errors import Fatal
from passport.version import Position
from tests import servers
from tests.hospitals import Server
from tests.integration.taps import Tap, of

DATABASE = "openmrs-prod"
TABLES = (
    (
        "CREATE TABLE obs (obs_id INT PRIMARY KEY, void_reason INT, value_text TEXT,"
        " location VARCHAR(9))"
    ),
    "CREATE TABLE person (person_id INT PRIMARY KEY, birthdate DATE)",
    "CREATE TABLE unwatched (id INT PRIMARY KEY, location INT)",
)
FILLED = (
    "INSERT INTO obs VALUES (1, 1, 'one', 'a'), (2, 2, NULL, 'a')",
    "INSERT INTO person VALUES (1, '2000-01-01')",
    "INSERT INTO unwatched VALUES (1, 1)",
)


@pytest.fixture(scope="module")
def shared(module_own: Callable[..., Server]) -> Callable[[str], Server]:
    """The servers by version, each started when it is first asked for."""
    return functools.cache(lambda version: module_own(servers.KINDS[version]))


@pytest.fixture(params=["mariadb", "mysql"])
def tap(request: pytest.FixtureRequest, shared: Callable[[str], Server]) -> Tap:
    """A hospital whose database has a name that must be quoted."""
    return prepared(shared(request.param))


@pytest.fixture
def mariadb(shared: Callable[[str], Server]) -> Tap:
    return prepared(shared("mariadb"))


def prepared(server: Server) -> Tap:
    tap = Tap(server, database=f"`{DATABASE}`")
    tap.database = DATABASE
    tap.execute(*TABLES, *FILLED)
    return tap


def told(tap: Tap, *statements: str, **options: Any) -> list[tuple[str, str]]:
    """Return kind and table of what the binlog says of these statements, run in one session."""
    return [(item.kind, item.table) for item in of(Statement, tap.changes(*statements, **options))]


A5_FOR_BOTH = {
    "a bare -- line": ["--\n-- emptied\n--\nTRUNCATE TABLE obs"],
    "a bare -- line at the end": ["TRUNCATE obs\n--"],
    "a quoted name": [f"TRUNCATE TABLE `{DATABASE}`.`obs`"],
    "spaces around the dot": [f"TRUNCATE `{DATABASE}` . obs"],
    "a comment in a name": [f"TRUNCATE `{DATABASE}`/* person */./**/obs"],
    "an executable comment": ["/*!50003 TRUNCATE*/ /*!TABLE*/ obs"],
    "a comment that isn't executed": ["/*!99999 DROP */ TRUNCATE /*!999999 person */ obs"],
    "an executable comment about a comment": ["/*!50003 TRUNCATE /* person */ TABLE obs */"],
    "a quote in a comment": ["/* it's */ TRUNCATE -- it's\n obs"],
    "a hash": ["# it's person\nTRUNCATE#\nobs"],
    "ANSI quotes": ["SET SESSION sql_mode = 'ANSI_QUOTES'", f'TRUNCATE "{DATABASE}"."obs"'],
    "prepared": ["PREPARE s FROM 'TRUNCATE `obs`'", "EXECUTE s"],
    "a procedure": ["CREATE PROCEDURE p() TRUNCATE `obs`", "CALL p()"],
}
A5_FOR_MARIADB = {
    "a leading dot": ["TRUNCATE .obs"],
    "SET STATEMENT": ["SET STATEMENT lock_wait_timeout = 5 FOR TRUNCATE TABLE obs"],
    "SET STATEMENT with parentheses": [
        (
            "SET STATEMENT lock_wait_timeout = LENGTH(SUBSTRING('person' FROM 1 FOR 5)),"
            " default_week_format = 1 FOR/**/TRUNCATE TABLE obs"
        )
    ],
    "MariaDB's comment": ["/*M!100100 TRUNCATE */ obs"],
    "a block": ["BEGIN NOT ATOMIC TRUNCATE obs; END"],
    "at once": ["EXECUTE IMMEDIATE 'TRUNCATE obs'"],
    "Oracle's mode": ["SET SESSION sql_mode = 'ORACLE'", 'TRUNCATE "obs"'],
}


def test_a5_ddl_is_noticed_however_it_is_written(tap: Tap) -> None:
    ways = A5_FOR_BOTH | (A5_FOR_MARIADB if tap.flavour == "mariadb" else {})
    for name, statements in ways.items():
        assert told(tap, *statements) == [("truncate", "obs")], name
        assert tap.execute("SELECT COUNT(*) FROM obs") == ((0,),), "the server emptied the table"
        tap.execute(FILLED[0])


def test_a5_a_space_that_is_a_letter_elsewhere(tap: Tap) -> None:
    """latin1 has a space more. To utf8 it is a letter."""
    start = tap.end()
    connection = tap.server.connect(database=tap.database, charset="latin1")
    with connection, connection.cursor() as cursor:
        cursor.execute("TRUNCATE\u00a0obs")
    items = of(Statement, tap.read(start))
    assert [(item.kind, item.table) for item in items] == [("truncate", "obs")]
    with pytest.raises(pymysql.MySQLError):
        tap.execute("TRUNCATE\u00a0obs")


def test_a5_backslashes_mean_what_the_session_says(tap: Tap) -> None:
    for mode, text in (("", r"'\' person'"), ("NO_BACKSLASH_ESCAPES", r"'\'")):
        alter = f"ALTER TABLE unwatched COMMENT {text}, RENAME obs -- '"
        found = told(tap, "DROP TABLE obs", f"SET SESSION sql_mode = '{mode}'", alter)
        assert found == [("ddl", "obs"), ("ddl", "obs")]
        restore(tap)


@pytest.mark.parametrize("binlog_alter_two_phase", [0, 1])
def test_an_alter_counts_when_it_has_ended(mariadb: Tap, binlog_alter_two_phase: int) -> None:
    statements = [
        f"SET SESSION binlog_alter_two_phase = {binlog_alter_two_phase}",
        "ALTER TABLE obs ADD COLUMN x INT",
    ]
    start = mariadb.end()
    mariadb.execute(*statements)
    events = mariadb.server.execute(f"SHOW BINLOG EVENTS IN '{start.file}' FROM {start.pos}")
    texts = [event for event in events if "ADD COLUMN x" in event[5]]
    assert len(texts) == 1 + binlog_alter_two_phase
    [statement] = of(Statement, mariadb.read(start))
    assert statement.at == mariadb.end()
    # One that fails behind its start changed nothing.
    start = mariadb.end()
    with pytest.raises(pymysql.MySQLError, match="Duplicate"):
        mariadb.execute(statements[0], "ALTER TABLE obs ADD UNIQUE (location), ALGORITHM = COPY")
    assert of(Statement, mariadb.read(start)) == []
    if binlog_alter_two_phase:
        assert mariadb.end() != start, "its start and its end are logged"


KINDS = [
    ("ALTER TABLE unwatched ADD COLUMN person INT, DROP COLUMN location", []),
    ("ALTER TABLE unwatched ADD COLUMN obs INT, ADD INDEX person (obs)", []),
    ("CREATE TRIGGER t AFTER INSERT ON obs FOR EACH ROW INSERT INTO person VALUES (9, 1)", []),
    ("CREATE DEFINER = root@localhost VIEW v AS SELECT * FROM obs", []),
    ("CREATE TABLE new SELECT * FROM person", []),
    ("OPTIMIZE TABLE obs", []),
    ("ANALYZE TABLE obs", []),
    ("CREATE INDEX i ON obs (location)", [("alter", "obs")]),
    ("ALTER TABLE obs ADD COLUMN x INT FIRST, ADD INDEX (x)", [("alter", "obs")]),
    ("ALTER TABLE obs ENGINE = InnoDB, COMMENT = 'x', FORCE", [("alter", "obs")]),
    ("ALTER TABLE obs PARTITION BY HASH (obs_id)", [("ddl", "obs")]),
    ("ALTER TABLE obs CONVERT TO CHARACTER SET latin1", [("ddl", "obs")]),
    ("ALTER TABLE obs MODIFY location CHAR(3)", [("alter", "obs")]),
    ("RENAME TABLE obs TO before_it, person TO obs", [("ddl", "obs"), ("ddl", "person")]),
    ("ALTER TABLE unwatched RENAME COLUMN id TO person", []),
]


def test_what_each_kind_of_ddl_says(tap: Tap) -> None:
    for statement, expected in KINDS:
        assert sorted(told(tap, statement)) == expected, statement
        restore(tap)


def restore(tap: Tap) -> None:
    tap.execute(
        "DROP VIEW IF EXISTS v",
        "DROP TABLE IF EXISTS obs, person, unwatched, before_it, spare, new",
        *TABLES,
        *FILLED,
    )


# --- at random: what really changed was told, and nothing that changed was not


class Table(NamedTuple):
    """What a table is, and holds: the values of each column, by its name."""

    types: dict[str, str]
    values: dict[str, list[Any]]


def state(tap: Tap) -> dict[str, Table]:
    found = {}
    with tap.server.connect(database=tap.database) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW FULL TABLES WHERE table_type = 'BASE TABLE'")
        for name, _ in cursor.fetchall():
            if name not in ("obs", "person"):
                continue
            cursor.execute(f"SHOW FULL COLUMNS FROM `{name}`")
            types = {row[0]: f"{row[1]} {row[2]}" for row in cursor.fetchall()}
            cursor.execute(f"SELECT * FROM `{name}`")
            rows = cursor.fetchall()
            values = {
                column: sorted(str(row[number]) for row in rows)
                for number, column in enumerate(types)
            }
            found[name] = Table(types, values)
    return found


class Writer:
    """Writes statements as nobody would who wants to be understood."""

    def __init__(self, rng: random.Random, flavour: str) -> None:
        self.rng = rng
        self.is_mariadb = flavour == "mariadb"
        self.sql_mode = ""

    def statements(self) -> list[str]:
        modes = ["", "", "ANSI_QUOTES", "NO_BACKSLASH_ESCAPES"]
        self.sql_mode = self.rng.choice(modes + ["ORACLE"] * self.is_mariadb)
        sql = self._joined(self._words())
        wrapped = self.rng.random()
        if self.is_mariadb and wrapped < 0.2:
            sql = f"SET STATEMENT lock_wait_timeout = 9, sql_mode = '{self.sql_mode}' FOR {sql}"
        elif self.is_mariadb and wrapped < 0.3:
            sql = f"BEGIN NOT ATOMIC {sql}\n; END"
        elif wrapped < 0.4:
            literal = sql.replace("'", "''")
            if self.sql_mode != "NO_BACKSLASH_ESCAPES":
                literal = literal.replace("\\", "\\\\")
            return [self._mode(), f"PREPARE s FROM '{literal}'", "EXECUTE s"]
        return [self._mode(), sql]

    def _mode(self) -> str:
        return f"SET SESSION sql_mode = '{self.sql_mode}'"

    def _words(self) -> list[str]:
        obs = self._table("obs")
        other = self._table(self.rng.choice(["person", "unwatched", "obs"]))
        return self.rng.choice(
            [
                lambda: ["TRUNCATE", *self.rng.choice([["TABLE"], []]), obs],
                lambda: ["RENAME", "TABLE", obs, "TO", "spare", ",", other, "TO", obs],
                lambda: ["DROP", "TABLE", *self._condition(), "unwatched", ",", obs],
                lambda: ["CREATE", "TABLE", "new", "LIKE", obs],
                lambda: ["CREATE", "TABLE", "IF", "NOT", "EXISTS", obs, "(", "i", "INT", ")"],
                lambda: ["CREATE", *self._unique(), "INDEX", "location", "ON", obs, "(", "obs_id)"],
                lambda: ["ALTER", "TABLE", other, "RENAME", *self._to(), "spare"],
                lambda: ["ALTER", "TABLE", "unwatched", "COMMENT", "'it''s'", ",", "RENAME", obs],
                lambda: ["INSERT", "INTO", "unwatched", "VALUES", "(", "7", ",", "7", ")"],
                *[self._alter] * 8,
            ]
        )()

    def _alter(self) -> list[str]:
        words = ["ALTER", *self._ignore(), "TABLE", self._table(self.rng.choice(["obs", "person"]))]
        for number in range(self.rng.randint(1, 4)):
            if number:
                words.append(",")
            words += self._clause()
        return words

    def _clause(self) -> list[str]:
        old, new = self._column(), self._column()
        column = self.rng.choice([["COLUMN"], []])
        define = [*self._type(), *self._place()]
        return self.rng.choice(
            [
                lambda: ["ADD", *column, *self._condition("NOT"), new, *define],
                lambda: ["ADD", *column, *self._condition("NOT"), new, *define],
                lambda: ["DROP", *column, *self._condition(), old],
                lambda: ["MODIFY", *column, *self._condition(), old, *define],
                lambda: ["CHANGE", *column, *self._condition(), old, new, *define],
                lambda: ["RENAME", "COLUMN", old, "TO", new],
                lambda: ["ADD", "INDEX", "person", "(", old, "(", "2", ")", ")"],
                lambda: ["ADD", *self._unique(), "KEY", "(", old, ")"],
                lambda: ["ALTER", *column, old, "SET", "DEFAULT", "NULL"],
                lambda: ["ENGINE", "=", self.rng.choice(["InnoDB", "MyISAM", "BLACKHOLE"])],
                lambda: ["COMMENT", "=", r"'person \\'", "AUTO_INCREMENT", "=", "7"],
                lambda: ["CONVERT", "TO", "CHARACTER", "SET", "latin1"],
                lambda: ["DEFAULT", "CHARSET", "=", "latin1"],
                lambda: ["FORCE"],
                lambda: ["ORDER", "BY", old],
                lambda: ["RENAME", *self._to(), self._table("spare")],
            ]
        )()

    def _table(self, name: str) -> str:
        quotes = ["`"] + ['"'] * (self.sql_mode in ("ANSI_QUOTES", "ORACLE"))
        quote = self.rng.choice(quotes)
        written = self.rng.choice([name, f"{quote}{name}{quote}"])
        database = f"{self.rng.choice(quotes)}"
        database = f"{database}{DATABASE}{database}"
        return self.rng.choice(
            [written, f"{database}.{written}", f"{database} . {written}", f"{database}.{name}"]
        )

    def _column(self) -> str:
        names = ["location", "void_reason", "value_text", "VALUE_TEXT", "birthdate", "x", "`a``b`"]
        return self.rng.choice([*names, "é", "`first`", "`after`", "`rename`", "obs", "`x y`"])

    def _type(self) -> list[str]:
        types = [
            "INT", "VARCHAR(9)", "DATE", "TEXT", "DECIMAL(6, 2) UNSIGNED", "ENUM('a', 'first')",
            "BIT(1) DEFAULT b'0'", "INT NOT NULL DEFAULT -1", "VARCHAR(9) COMMENT 'it''s, AFTER'",
            "VARCHAR(9) CHARACTER SET latin1 COLLATE latin1_bin", "INT GENERATED ALWAYS AS (1)",
            "DATETIME(3) DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3)",
        ]  # fmt: skip
        return [self.rng.choice(types)]

    def _place(self) -> list[str]:
        return self.rng.choice([[], [], ["FIRST"], ["AFTER", self._column()]])

    def _condition(self, *words: str) -> list[str]:
        is_there = self.is_mariadb and self.rng.random() < 0.3
        return ["IF", *words, "EXISTS"] if is_there else []

    def _ignore(self) -> list[str]:
        return ["IGNORE"] if self.is_mariadb and self.rng.random() < 0.1 else []

    def _unique(self) -> list[str]:
        return self.rng.choice([[], ["UNIQUE"]])

    def _to(self) -> list[str]:
        return self.rng.choice([[], ["TO"], ["AS"]])

    def _joined(self, words: Sequence[str]) -> str:
        gaps = [
            " ", " ", "\n", "\t", "/* person */", " -- it's\n", " --\n", "#\n", "/*!50003 */",
            "/*!99999 RENAME TABLE */", "/**/", " /*M!100000 */ ", "/*M!999999 x */",
        ]  # fmt: skip
        text = ""
        for word in words:
            written = self.rng.choice([word, word, word, word.lower(), f"/*!50003 {word} */"])
            is_quoted = any(quote in word for quote in "'\"`")
            text += (word if is_quoted else written) + self.rng.choice(gaps)
        return self.rng.choice(["", "", "--\n", "/* obs */", "#\n"]) + text


@pytest.mark.parametrize(
    ("seed", "count"), [(1, 60), pytest.param(2, 3_000, marks=pytest.mark.long)]
)
def test_a5_what_really_changed_was_told(tap: Tap, seed: int, count: int) -> None:
    """Statements at random: the table's columns and rows before and after say what each one did."""
    writer = Writer(random.Random(seed), tap.flavour)
    start = tap.end()
    columns = tap.columns()
    done: list[tuple[Position, Position, list[str], dict[str, Table], dict[str, Table]]] = []
    tried = 0
    while len(done) < count:
        tried += 1
        assert tried < 20 * count
        begin, before = tap.end(), state(tap)
        statements = writer.statements()
        try:
            tap.execute(*statements)
        except pymysql.MySQLError:
            # MariaDB drops one table, and says that the other one isn't there.
            after = state(tap)
            if after == before:
                continue
        else:
            after = state(tap)
        done.append((begin, tap.end(), statements, before, after))
        if before != after:
            tap.execute("DROP TABLE IF EXISTS obs, person, unwatched, spare, new", *TABLES, *FILLED)
    items = of(Statement, tap.read(start, columns=columns))
    changed = 0
    for begin, end, statements, before, after in done:
        said = {item.table: item for item in items if begin.order < item.at.order <= end.order}
        for name in ("obs", "person"):
            old, new = before.get(name), after.get(name)
            if old != new:
                changed += 1
                assert name in said, (seed, statements)
            if name in said and said[name].kind == "alter":
                assert_told(said[name], old, new, (seed, statements))
    assert changed > count / 4


def assert_told(statement: Statement, old: Table | None, new: Table | None, hint: Any) -> None:
    """Assert that an ALTER did what the stream says of it, and nothing else."""
    assert old is not None
    assert new is not None, hint
    assert changed_names([*old.types], statement.columns) == [*new.types], hint
    named = {name for change in statement.columns for name in change.names}
    for name in {*old.types, *new.types}:
        if name.lower() not in named:
            assert old.types[name] == new.types[name], hint
            assert old.values[name] == new.values[name], hint


def test_columns_that_no_list_has_stop_a_binlog_without_names(mariadb: Tap) -> None:
    """MariaDB keeps the hash of a text that must be unique in a column of its own."""
    for metadata in ("NO_LOG", "FULL"):
        restore(mariadb)
        start = mariadb.end()
        mariadb.execute(
            f"SET GLOBAL binlog_row_metadata = {metadata}",
            "ALTER TABLE obs ADD UNIQUE (value_text)",
            "INSERT INTO obs VALUES (3, 3, 'three', 'a')",
        )
        if metadata == "NO_LOG":
            with pytest.raises(Fatal, match="5 columns, the column list has 4"):
                mariadb.read(start)
        else:
            [row] = of(RowChange, mariadb.read(start))
            assert row.after == '{"obs_id":3,"value_text":"three"}'
