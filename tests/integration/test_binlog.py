"""The binlog stream on real servers: order, positions, transactions, statements, and everything
that must stop it.
"""

import functools
import json
import re
import time
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from cdc.binlog import packets
from cdc.binlog.changes import DamagedEvent
from cdc.binlog.stream import (
    BinlogItem,
    BinlogStream,
    Commit,
    Idle,
    IncompleteRow,
    KeyChange,
    NextFile,
    RowChange,
    SkippedTransaction,
    Statement,
)
from dev.stack import MariaDB, MySQL
from passport.errors import Fatal, Gap, Retry
from passport.version import Position
from tests.hospitals import Server
from tests.integration.taps import Tap, of, read_until
from tests.servers import ALL_VERSIONS, KINDS, in_test_long

TABLES = (
    "CREATE TABLE obs (obs_id INT PRIMARY KEY, void_reason INT, value_text TEXT)",
    "CREATE TABLE person (person_id INT PRIMARY KEY, birthdate DATE)",
    "CREATE TABLE unwatched (id INT PRIMARY KEY)",
)


@pytest.fixture(scope="module")
def shared(module_own: Callable[..., Server]) -> Callable[[str], Server]:
    """By version, each started when it is first asked for."""
    return functools.cache(lambda version: module_own(KINDS[version], flags=["--local-infile=1"]))


@pytest.fixture(params=ALL_VERSIONS)
def tap(request: pytest.FixtureRequest, shared: Callable[[str], Server]) -> Tap:
    return prepared(shared(request.param))


@pytest.fixture(params=["mariadb", *in_test_long("mariadb-11.8")])
def mariadb(request: pytest.FixtureRequest, shared: Callable[[str], Server]) -> Tap:
    return prepared(shared(request.param))


@pytest.fixture
def mysql(shared: Callable[[str], Server]) -> Tap:
    return prepared(shared("mysql"))


@pytest.fixture(params=ALL_VERSIONS)
def own_tap(request: pytest.FixtureRequest, own: Callable[..., Server]) -> Callable[..., Tap]:
    """A tap on a server that the test may break."""
    return lambda **options: prepared(own(KINDS[request.param], **options))


def prepared(server: MariaDB | MySQL) -> Tap:
    tap = Tap(server)
    tap.execute(*TABLES)
    return tap


def insert(*numbers: int) -> str:
    rows = ", ".join(f"({number}, 1, 'text {number}')" for number in numbers)
    return f"INSERT INTO obs VALUES {rows}"


def numbers(items: list[BinlogItem]) -> list[int]:
    return [json.loads(row.after or row.before)["obs_id"] for row in of(RowChange, items)]


def kinds(items: list[BinlogItem]) -> list[tuple[str, ...]]:
    """What came, short."""
    names = {Statement: lambda s: (s.kind, s.table), KeyChange: lambda n: ("notice", n.table, n.op)}
    short = {
        RowChange: lambda r: ("row", r.op),
        IncompleteRow: lambda p: ("partial", p.op),
        Commit: lambda _: ("commit",),
    }
    return [
        (names | short)[type(item)](item) for item in items if type(item) not in (Idle, NextFile)
    ]  # type: ignore[operator]


# --- rows, positions, transactions


def test_a_transaction_in_commit_order_with_its_positions_and_gtid(tap: Tap) -> None:
    before = tap.gtid_set()
    start = tap.end()
    tap.execute(
        "BEGIN",
        "INSERT INTO obs VALUES (1, 9, 'é\"')",
        "INSERT INTO person VALUES (5, '2000-01-01')",
        "INSERT INTO unwatched VALUES (1)",
        "UPDATE obs SET value_text = NULL",
        "DELETE FROM obs",
        "COMMIT",
    )
    items = tap.read(start, gtid_set=before)
    text = '{"obs_id":1,"value_text":"é\\""}'
    nothing = '{"obs_id":1,"value_text":null}'
    assert [row[:3] for row in of(RowChange, items)] == [
        ("c", None, text),
        ("u", text, nothing),
        ("d", nothing, None),
    ]
    assert [item[:3] for item in of(KeyChange, items)] == [("person", "c", ({"person_id": 5},))]
    [commit] = of(Commit, items)
    assert items[-1] == commit
    assert commit.at == tap.end()
    assert commit.gtid_set == tap.gtid_set()
    assert {item.gtid for item in items} == {commit.gtid}  # type: ignore[union-attr]
    ends = [item.at.order for item in items]  # type: ignore[union-attr]
    assert ends == sorted(set(ends))
    assert all(abs(item.ts - time.time()) < 60 for item in items)  # type: ignore[union-attr]


@pytest.mark.parametrize("size", [10, 2_000_000])
@pytest.mark.parametrize(
    ("version", "session"),
    [
        ("mariadb", "DO 1"),
        ("mysql", "DO 1"),
        ("mysql", "SET SESSION binlog_transaction_compression = ON"),
    ],
)
def test_a_skipped_transaction_gives_its_commit_and_no_row(
    shared: Callable[[str], Server], version: str, session: str, size: int
) -> None:
    """A small one, and one of which an event comes in parts."""
    tap = prepared(shared(version))
    tap.execute("ALTER TABLE obs MODIFY value_text LONGTEXT")
    text = b64encode(Random(1).randbytes(size)).decode()
    start = tap.end()
    tap.execute(
        session,
        insert(1),
        "BEGIN",
        f"INSERT INTO obs VALUES (2, 1, '{text}')",
        "INSERT INTO person VALUES (5, NULL)",
        "COMMIT",
        insert(3),
    )
    items = tap.read(start)
    assert numbers(items) == [1, 2, 3]
    commits = of(Commit, items)

    stream = tap.stream(start)
    stream.skip(frozenset({commits[1].gtid}))
    items = read_until(stream, tap.end())
    stream.close()
    assert numbers(items) == [1, 3]
    assert of(KeyChange, items) == []
    assert of(Commit, items) == commits
    [skipped] = of(SkippedTransaction, items)
    assert skipped.gtid == commits[1].gtid
    assert commits[0].at.order < skipped.at.order < commits[1].at.order


def test_a_notice_has_both_keys_when_they_differ(tap: Tap) -> None:
    items = tap.changes("INSERT INTO person VALUES (1, NULL)", "UPDATE person SET person_id = 2")
    assert [item.keys for item in of(KeyChange, items)] == [
        ({"person_id": 1},),
        ({"person_id": 1}, {"person_id": 2}),
    ]


def test_from_every_commit_on_the_rest_is_read_the_same(tap: Tap) -> None:
    start = tap.end()
    tap.execute(
        insert(1),
        insert(2, 3),
        "UPDATE obs SET void_reason = 2",
        "BEGIN",
        insert(4),
        "DELETE FROM obs",
        "COMMIT",
    )
    whole = [item for item in tap.read(start) if type(item) in (RowChange, KeyChange)]
    stream = tap.stream(start)
    commits = of(Commit, [item for _ in range(20) for item in stream.poll(0.05)])
    stream.close()
    assert commits
    for commit in commits:
        tail = [item for item in whole if item.at.order > commit.at.order]  # type: ignore[union-attr]
        assert [
            item for item in tap.read(commit.at) if type(item) in (RowChange, KeyChange)
        ] == tail


def test_rows_are_numbered_in_their_event(tap: Tap) -> None:
    items = tap.changes(insert(1, 2, 3))
    assert [row.ordinal for row in of(RowChange, items)] == [1, 2, 3]
    assert len({row.at for row in of(RowChange, items)}) == 1


def test_other_databases_and_helper_tables_say_nothing(tap: Tap) -> None:
    items = tap.changes(
        "DROP DATABASE IF EXISTS elsewhere",
        "CREATE DATABASE elsewhere",
        "CREATE TABLE elsewhere.obs (obs_id INT PRIMARY KEY)",
        "INSERT INTO elsewhere.obs VALUES (1)",
        "CREATE TABLE _obs_gho LIKE obs",
        "INSERT INTO _obs_gho VALUES (1, 1, 'x')",
        "DROP TABLE _obs_gho",
        "DROP DATABASE elsewhere",
    )
    assert kinds(items) == [("commit",)]


def has_row_metadata(tap: Tap) -> bool:
    """MySQL 5.7 has no names of columns in its binlog."""
    return bool(tap.execute("SHOW GLOBAL VARIABLES LIKE 'binlog_row_metadata'"))


def test_a_table_swapped_in_by_rename_is_read_with_its_own_columns(tap: Tap) -> None:
    if not has_row_metadata(tap):
        pytest.skip("without names this needs the new column list, as the next test shows")
    start = tap.end()
    tap.execute(
        "CREATE TABLE _new (value_text VARCHAR(50), comments TEXT, obs_id BIGINT PRIMARY KEY)",
        insert(1),
        "RENAME TABLE obs TO _old, _new TO obs",
        "INSERT INTO obs VALUES ('swapped', 'c', 2)",
    )
    items = tap.read(start)
    assert kinds(items) == [
        ("commit",),
        ("row", "c"),
        ("commit",),
        ("ddl", "obs"),
        ("commit",),
        ("row", "c"),
        ("commit",),
    ]
    assert of(RowChange, items)[1].after == '{"obs_id":2,"value_text":"swapped","comments":"c"}'


def test_without_names_in_the_binlog_a_changed_table_needs_the_new_column_list(tap: Tap) -> None:
    if has_row_metadata(tap):
        tap.execute("SET GLOBAL binlog_row_metadata = MINIMAL")
    try:
        start, old = tap.end(), tap.columns()
        tap.execute(
            insert(1),
            "ALTER TABLE obs ADD COLUMN comments VARCHAR(9) FIRST",
            "INSERT INTO obs VALUES ('c', 2, 1, 't')",
        )
        stream = tap.stream(start, columns=old)
        items: list[BinlogItem] = []
        while not of(Statement, items):
            items += stream.poll(1)
        assert type(items[-1]) is Statement
        stream.set_columns(tap.columns(), {})
        items += read_until(stream, tap.end())
        stream.close()
        assert [row.after for row in of(RowChange, items)] == [
            '{"obs_id":1,"value_text":"text 1"}',
            '{"obs_id":2,"value_text":"t","comments":"c"}',
        ]
        with pytest.raises(Fatal, match="the column list of obs"):
            tap.read(start, columns=old)
    finally:
        if has_row_metadata(tap):
            tap.execute("SET GLOBAL binlog_row_metadata = FULL")


def test_a_large_transaction_is_streamed(tap: Tap) -> None:
    tap.execute(insert(*range(1, 1001)))
    start = tap.end()
    tap.execute(
        "INSERT INTO obs SELECT a.obs_id * 1000 + b.obs_id, 1, 'x' FROM obs a"
        " JOIN obs b ON b.obs_id <= 200"
    )
    stream, end = tap.stream(start), tap.end()
    lengths: list[int] = []
    rows = 0
    while stream.position.order < end.order or lengths[-1]:
        items = stream.poll(1 if stream.position.order < end.order else 0.01)
        lengths.append(len(items))
        rows += len(of(RowChange, items))
    stream.close()
    assert rows == 200_000
    assert max(lengths) < 2_000  # the rows of an event, 8 kB of them, come whole


def test_a_compressed_transaction_is_one_event_whose_rows_are_numbered_through(mysql: Tap) -> None:
    mysql.execute(insert(*range(1, 1001)))
    items = mysql.changes(
        "SET SESSION binlog_transaction_compression = ON",
        "BEGIN",
        # past what is decompressed at once
        "INSERT INTO obs SELECT obs_id + 2000, 1, REPEAT('x', 2000) FROM obs",
        "DELETE FROM obs",
        "COMMIT",
    )
    rows = of(RowChange, items)
    assert [row.ordinal for row in rows] == list(range(1, 3001))
    assert {row.at for row in rows} == {mysql.end()}


# --- by GTID


def test_resumed_by_gtid_it_gives_what_the_set_lacks(tap: Tap) -> None:
    tap.execute(insert(1))
    known, start = tap.gtid_set(), tap.end()
    tap.execute(insert(2), "FLUSH BINARY LOGS", insert(3))
    by_gtid = tap.read(None, gtid_set=known)
    assert numbers(by_gtid) == [2, 3]
    assert of(RowChange, by_gtid) == of(RowChange, tap.read(start))
    assert of(Commit, by_gtid)[-1].gtid_set == tap.gtid_set()


def test_the_set_goes_on_from_the_one_it_was_given(tap: Tap) -> None:
    tap.execute("FLUSH BINARY LOGS", insert(1), insert(2))
    known = tap.gtid_set()
    tap.execute(insert(3))
    assert of(Commit, tap.read(None, gtid_set=known))[-1].gtid_set == tap.gtid_set()


def test_tagged_gtids(mysql: Tap) -> None:
    known, start = mysql.gtid_set(), mysql.end()
    mysql.execute("SET gtid_next = 'AUTOMATIC:shift_2'", insert(1), insert(2))
    mysql.execute(insert(3))
    items = mysql.read(start, gtid_set=known)
    assert [row.gtid.split(":")[1:-1] for row in of(RowChange, items)] == [
        ["shift_2"],
        ["shift_2"],
        [],
    ]
    assert of(Commit, items)[-1].gtid_set == mysql.gtid_set()
    [first, *_] = of(RowChange, items)
    _, tag, number = first.gtid.split(":")
    assert numbers(mysql.read(None, gtid_set=f"{known}:{tag}:{number}")) == [2, 3]
    mysql.execute("FLUSH BINARY LOGS", insert(4))
    assert (
        of(Commit, mysql.read(start))[-1].gtid_set == mysql.gtid_set()
    )  # from the file's own list


def test_gtid_domains(mariadb: Tap) -> None:
    known = mariadb.gtid_set()
    start = mariadb.end()
    mariadb.execute("SET SESSION gtid_domain_id = 7", insert(1))
    mariadb.execute(insert(2))
    items = mariadb.read(start, gtid_set=known)
    assert [row.gtid[0] for row in of(RowChange, items)] == ["7", "0"]
    assert sorted(of(Commit, items)[-1].gtid_set.split(",")) == sorted(
        mariadb.gtid_set().split(",")
    )
    assert numbers(mariadb.read(None, gtid_set=of(RowChange, items)[0].gtid + "," + known)) == [2]


# --- statements


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        (["ALTER TABLE obs ADD COLUMN comments TEXT"], [("alter", "obs"), ("commit",)]),
        (["CREATE INDEX i ON obs (void_reason)"], [("alter", "obs"), ("commit",)]),
        (["DROP TABLE person, obs"], [("ddl", "person"), ("ddl", "obs"), ("commit",)]),
        (["TRUNCATE TABLE person"], [("truncate", "person"), ("commit",)]),
        (["TRUNCATE unwatched"], [("commit",)]),
        (
            ["CREATE TABLE visit SELECT 1 AS visit_id"],
            [("ddl", "visit"), ("notice", "visit", "c"), ("commit",)],
        ),
        (
            ["CREATE TABLE copied SELECT * FROM obs", "CREATE VIEW v AS SELECT * FROM obs"],
            [("commit",)],
        ),
        (["ANALYZE TABLE obs", "CREATE TEMPORARY TABLE person_name (i INT)"], [("commit",)]),
        (["DROP DATABASE openmrs", "CREATE DATABASE openmrs"], [("ddl", "*"), ("commit",)]),
        (
            [
                "SET SESSION binlog_format = STATEMENT",
                insert(1),
                "UPDATE obs SET void_reason = RAND()",
            ],
            [("statement_dml", "obs"), ("commit",), ("statement_dml", "obs"), ("commit",)],
        ),
        (
            ["SET SESSION binlog_format = STATEMENT", "INSERT INTO unwatched VALUES (5)"],
            [("commit",)],
        ),
        (
            [
                "BEGIN",
                insert(1),
                "SAVEPOINT a",
                insert(2),
                "ROLLBACK TO a",
                "DELETE FROM obs",
                "COMMIT",
            ],
            [("row", "c"), ("row", "d"), ("commit",)],
        ),
        (["BEGIN", insert(1), "ROLLBACK"], []),
    ],
    ids=lambda value: value[0][:40] if value and isinstance(value[0], str) else "",
)
def test_statements(tap: Tap, statements: list[str], expected: list[tuple[str, ...]]) -> None:
    selects_into_a_table = any(re.match("CREATE TABLE .* SELECT", sql) for sql in statements)
    if selects_into_a_table and tap.flavour == "mysql" and not tap.version.is_mysql(8, 0, 21):
        pytest.skip("the server refuses this statement where it has GTIDs")
    found = kinds(tap.changes(*statements))
    # Polls may split a run of commits.
    assert [
        kind for n, kind in enumerate(found) if kind != ("commit",) or kind != found[n - 1] or not n
    ] == expected


def test_load_data_in_statement_format(tap: Tap, tmp_path: Path) -> None:
    file = tmp_path / "rows"
    file.write_text("1\t1\ta\n")
    start = tap.end()
    with (
        tap.server.connect(database=tap.database, local_infile=True) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SET SESSION binlog_format = STATEMENT")
        cursor.execute(f"LOAD DATA LOCAL INFILE '{file}' INTO TABLE obs")
    assert ("statement_dml", "obs") in kinds(tap.read(start))


def test_rows_of_a_logged_rollback_are_void(mariadb: Tap) -> None:
    """A temporary table, which no rollback undoes, makes MariaDB log the whole transaction and its
    end.
    """
    found = kinds(
        mariadb.changes("BEGIN", insert(1), "CREATE TEMPORARY TABLE t (i INT)", "ROLLBACK")
    )
    assert found[:3] == [("row", "c"), ("rollback", "*"), ("commit",)]


def test_rows_of_a_logged_rollback_to_a_savepoint_are_void(mariadb: Tap) -> None:
    """Silent otherwise: the rows between are in the binlog, as if they had been committed."""
    items = mariadb.changes(
        "BEGIN",
        insert(1),
        "SAVEPOINT a",
        insert(2),
        "CREATE TEMPORARY TABLE t (i INT)",
        "ROLLBACK TO a",
        insert(3),
        "COMMIT",
    )
    assert kinds(items) == [
        ("row", "c"),
        ("row", "c"),
        ("rollback", "*"),
        ("row", "c"),
        ("commit",),
    ]
    assert [row[0] for row in mariadb.execute("SELECT obs_id FROM obs")] == [1, 3]


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_a_table_that_is_not_transactional_keeps_what_is_rolled_back(
    mariadb: Tap, end: str
) -> None:
    """MySQL with GTIDs refuses such a transaction."""
    mariadb.execute("ALTER TABLE person ENGINE = MyISAM", "INSERT INTO obs VALUES (1, 1, 'before')")
    items = mariadb.changes(
        "BEGIN",
        "UPDATE obs SET value_text = 'after'",
        "INSERT INTO person VALUES (5, NULL)",
        insert(2),
        end,
    )
    assert [(change.table, change.keys) for change in of(KeyChange, items)] == [
        ("person", ({"person_id": 5},))
    ]
    assert mariadb.execute("SELECT COUNT(*) FROM person") == ((1,),), "whatever the end was"
    rows, voided = (
        of(RowChange, items),
        [item for item in of(Statement, items) if item.kind == "rollback"],
    )
    there = dict(mariadb.execute("SELECT obs_id, value_text FROM obs"))
    assert (len(rows) == 2 and not voided) if end == "COMMIT" else (not rows or bool(voided))
    assert there == ({1: "after", 2: "text 2"} if end == "COMMIT" else {1: "before"})


def test_a_function_that_writes_is_noticed(tap: Tap) -> None:
    tap.execute(
        "SET GLOBAL log_bin_trust_function_creators = 1",
        "CREATE FUNCTION bump() RETURNS INT DETERMINISTIC MODIFIES SQL DATA BEGIN DELETE"
        " FROM obs; RETURN 1; END",
        insert(1),
    )
    found = kinds(tap.changes("SET SESSION binlog_format = STATEMENT", "SELECT bump()"))
    assert found == [("statement_dml", "*"), ("commit",)]
    assert kinds(tap.changes(insert(2), "DO bump()")) == [
        ("row", "c"),
        ("commit",),
        ("row", "d"),
        ("commit",),
    ]


def test_compressed_statements(mariadb: Tap) -> None:
    mariadb.execute("SET GLOBAL log_bin_compress = 1", "SET GLOBAL log_bin_compress_min_len = 10")
    try:
        found = kinds(
            mariadb.changes(f"ALTER TABLE obs ADD COLUMN comments TEXT /* {'x' * 500} */")
        )
    finally:
        mariadb.execute("SET GLOBAL log_bin_compress = 0")
    assert found == [("alter", "obs"), ("commit",)]


@pytest.mark.parametrize("table", ["obs", "person"])
def test_rows_of_an_xa_transaction_become_visible_with_its_commit(tap: Tap, table: str) -> None:
    values = "1, 1, 'x'" if table == "obs" else "1, NULL"
    prepare = ["XA START 'a'", f"INSERT INTO {table} VALUES ({values})", "XA END 'a'"]
    start = tap.end()
    tap.execute(*prepare, "XA PREPARE 'a'")
    assert {*kinds(tap.read(start))} == {("commit",)}
    tap.execute("XA COMMIT 'a'")
    assert kinds(tap.read(start))[-2:] == [("xa", "*"), ("commit",)]
    tap.execute("DELETE FROM obs", "DELETE FROM person")
    start = tap.end()
    tap.execute(*prepare, "XA COMMIT 'a' ONE PHASE")
    assert kinds(tap.read(start))[-1] == ("commit",)
    assert len(kinds(tap.read(start))) == 2, "its rows, or that they must be read"


def test_xa_on_other_tables_is_nothing(tap: Tap) -> None:
    prepare = ["XA START 'b'", "INSERT INTO unwatched VALUES (1)", "XA END 'b'", "XA PREPARE 'b'"]
    start = tap.end()
    tap.execute(*prepare)
    prepared = tap.end()
    tap.execute("XA COMMIT 'b'")
    assert set(kinds(tap.read(start))) == {("commit",)}
    # Begun in between, it cannot know whose rows become visible now.
    assert kinds(tap.read(prepared)) == [("xa", "*"), ("commit",)]


def test_partial_row_images_give_keys_to_read_again(tap: Tap) -> None:
    tap.execute(insert(1, 2))
    items = tap.changes(
        "SET SESSION binlog_row_image = MINIMAL",
        "UPDATE obs SET void_reason = 9 WHERE obs_id = 1",
        "UPDATE obs SET obs_id = 5 WHERE obs_id = 1",
        "DELETE FROM obs WHERE obs_id = 2",
        "INSERT INTO obs (obs_id) VALUES (3)",
        "INSERT INTO obs (obs_id, value_text) VALUES (4, 'x')",  # all that is wanted: a whole row
        "SET SESSION binlog_row_image = NOBLOB",
        "UPDATE obs SET void_reason = 10 WHERE obs_id = 5",
    )
    assert [(item.op, item.keys) for item in of(IncompleteRow, items)] == [
        ("u", ({"obs_id": 1},)),
        ("u", ({"obs_id": 1}, {"obs_id": 5})),
        ("d", ({"obs_id": 2},)),
        ("c", ({"obs_id": 3},)),
        ("u", ({"obs_id": 5},)),
    ]
    assert [row.after for row in of(RowChange, items)] == ['{"obs_id":4,"value_text":"x"}']


def test_partial_json_stops(mysql: Tap) -> None:
    mysql.execute(
        "ALTER TABLE obs ADD COLUMN j JSON",
        """INSERT INTO obs VALUES (1, 1, '', '{"a": "long enough to be cut"}')""",
    )
    start = mysql.end()
    mysql.execute(
        "SET SESSION binlog_row_value_options = PARTIAL_JSON",
        "UPDATE obs SET j = JSON_SET(j, '$.a', 'x')",
    )
    with pytest.raises(Fatal, match="partial JSON"):
        mysql.read(start)


def test_a_column_that_cannot_be_decoded_stops_only_when_it_is_wanted(mariadb: Tap) -> None:
    mariadb.execute(
        "ALTER TABLE obs ADD COLUMN void_note TEXT CHARACTER SET gbk, ADD COLUMN u UUID"
    )
    assert numbers(
        mariadb.changes("INSERT INTO obs VALUES (1, 1, 'x', REPEAT('y', 500), UUID())")
    ) == [1]
    mariadb.execute("ALTER TABLE obs ADD COLUMN comments TEXT CHARACTER SET gbk")
    start = mariadb.end()
    mariadb.execute("INSERT INTO obs (obs_id, comments) VALUES (2, 'z')")
    with pytest.raises(Fatal, match="column comments cannot be decoded: type 252, gbk"):
        mariadb.read(start)


def test_a_start_inside_a_transaction_stops(tap: Tap) -> None:
    rows = of(
        RowChange,
        tap.changes(
            "INSERT INTO obs VALUES (1, 1, REPEAT('x', 9000)), (2, 1, REPEAT('y', 9000)),"
            f" {insert(3)[23:]}"
        ),
    )
    assert rows[0].at != rows[1].at  # two ROWS events, one TABLE_MAP
    # MariaDB 11.8 gives no positions within a transaction. They are counted, without the events
    # that it does not send, so that none begins there: a gap, which is as good.
    with pytest.raises(Fatal, match=r"without their TABLE_MAP|error 1236"):
        tap.read(rows[0].at)
    first, _ = of(
        RowChange, tap.changes("BEGIN", "DELETE FROM obs WHERE obs_id = 1", insert(1), "COMMIT")
    )
    with pytest.raises(
        Fatal, match=r"begun inside a transaction|error 1236"
    ):  # in front of the second TABLE_MAP
        tap.read(first.at)


def test_rows_lie_between_their_transactions_start_and_end(tap: Tap) -> None:
    """Also where the server gives no positions within a transaction (MariaDB from 11.4 on)."""
    start = tap.end()
    tap.execute(insert(1))
    between = tap.end()
    tap.execute("BEGIN", insert(2), insert(3), "DELETE FROM obs WHERE obs_id = 1", "COMMIT")
    items = tap.read(start)
    first, *rows = of(RowChange, items)
    places = [row.at.order for row in rows]
    assert start.order < first.at.order < between.order
    assert places == sorted(set(places))
    assert between.order < places[0]
    assert places[-1] < tap.end().order


@pytest.mark.long
def test_a_large_transaction_that_becomes_a_file_of_its_own(own: Callable[..., Server]) -> None:
    """MariaDB from 11.7 on takes the cache of a large transaction as the next binlog file."""
    tap = prepared(own(KINDS["mariadb-11.8"], flags=["--binlog-large-commit-threshold=10M"]))
    start = tap.end()
    tap.execute(insert(1))
    statements = [f"INSERT INTO obs VALUES ({n}, 1, REPEAT('x', 60000))" for n in range(2, 300)]
    tap.execute("BEGIN", *statements, "COMMIT")
    files = tap.execute("SHOW BINARY LOGS")
    assert files[-1][1] > 10 << 20, "the transaction has a file of its own"
    assert files[-2][1] < 1 << 20
    tap.execute(insert(300))

    items = tap.read(start)
    assert numbers(items) == list(range(1, 301))
    assert [item.clean for item in of(NextFile, items)] == [True]
    commits = of(Commit, items)
    assert [len(numbers(tap.read(commit.at))) for commit in commits] == [299, 1, 0]
    by_gtid = [len(numbers(tap.read(None, gtid_set=commit.gtid_set))) for commit in commits]
    assert by_gtid == [299, 1, 0]


# --- files, and servers that go


def test_a_clean_restart_and_a_crash_are_told_apart(own_tap: Callable[..., Tap]) -> None:
    tap = own_tap()
    start = tap.end()
    tap.execute(insert(1))
    tap.server.restart()
    tap.execute(insert(2))
    tap.server.kill()
    tap.server.start()
    tap.execute(insert(3), "FLUSH BINARY LOGS", insert(4))
    items = tap.read(start)
    assert numbers(items) == [1, 2, 3, 4]
    assert [rotated.clean for rotated in of(NextFile, items)] == [True, False, True]
    assert [rotated.at.pos for rotated in of(NextFile, items)] == [4, 4, 4]


def test_a_position_that_is_gone_is_a_gap(own_tap: Callable[..., Tap]) -> None:
    tap = own_tap()
    start = tap.end()
    tap.execute(insert(1), "FLUSH BINARY LOGS", insert(2))
    end = tap.end()
    purge(tap)
    for gone in (start, Position(end.file, end.pos + 10_000), Position("binlog.000999", 4)):
        with pytest.raises(Gap):
            poll_on(tap.stream(gone), 10)


def test_a_position_inside_an_event_is_a_gap(tap: Tap, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in another binlog that goes by the name of the one that was read. The servers call that
    max_allowed_packet.
    """
    said: list[str] = []
    error_of = packets.error_of
    monkeypatch.setattr(
        packets, "error_of", lambda code, text: said.append(text) or error_of(code, text)
    )
    start = tap.end()
    tap.execute(insert(1))
    for inside in range(1, 30):
        stream = tap.stream(start._replace(pos=start.pos + inside))
        with pytest.raises(
            (Gap, DamagedEvent)
        ):  # what happens to look like an event has a wrong checksum
            poll_on(stream, 10)
    assert [text for text in said if "max_allowed_packet" in text]
    assert len(said) > 20


def test_no_event_is_larger_than_the_server_sends(tap: Tap) -> None:
    """Its own max_allowed_packet does not hold for who reads the binlog."""
    ((before,),) = tap.server.execute("SELECT @@global.max_allowed_packet")
    tap.execute("ALTER TABLE obs MODIFY value_text LONGTEXT")
    start = tap.end()
    tap.server.execute("SET GLOBAL max_allowed_packet = 67108864")
    try:
        tap.execute("INSERT INTO obs VALUES (1, 1, REPEAT('x', 20000000))")
        tap.server.execute("SET GLOBAL max_allowed_packet = 1048576")
        [row] = of(RowChange, tap.read(start))
    finally:
        tap.server.execute(f"SET GLOBAL max_allowed_packet = {before}")
    assert len(row.after) > 20_000_000


def purge(tap: Tap) -> None:
    """All files but the last. The server keeps a file for as long as its own recovery needs it."""
    for _ in range(100):
        tap.server.execute(f"PURGE BINARY LOGS TO '{tap.end().file}'")
        if len(tap.server.execute("SHOW BINARY LOGS")) == 1:
            return
        time.sleep(0.1)
    pytest.fail("the server does not purge")


def test_a_gtid_set_that_is_purged_or_unknown_is_a_gap(own_tap: Callable[..., Tap]) -> None:
    tap = own_tap()
    tap.execute(insert(1))
    known = tap.gtid_set()
    tap.execute(insert(2), "FLUSH BINARY LOGS", insert(3))
    purge(tap)
    head, _, last = known.rpartition("-")
    for gone in (known, f"{head}-{int(last) + 1000}"):
        with pytest.raises(Gap):
            poll_on(tap.stream(None, gtid_set=gone), 10)


def test_an_idle_server_is_alive_and_a_frozen_one_is_noticed(own_tap: Callable[..., Tap]) -> None:
    tap = own_tap()
    stream = tap.stream(tap.end(), heartbeat_s=0.2, read_timeout_s=1)
    began = time.monotonic()
    alive = of(Idle, [item for _ in range(8) for item in stream.poll(0.2)])
    assert time.monotonic() - began > 1  # heartbeats kept it up for longer than the read timeout
    assert alive
    assert alive[-1].at == tap.end()
    tap.server.pause()
    try:
        began = time.monotonic()
        with pytest.raises(Retry, match="sent nothing"):
            poll_on(stream, 30)
        assert time.monotonic() - began < 10
    finally:
        tap.server.resume()
        stream.close()
    with pytest.raises(Retry, match="closed"):
        stream.poll(0)


def test_a_killed_connection_and_a_stopped_server_are_retries(own_tap: Callable[..., Tap]) -> None:
    tap = own_tap()
    start = tap.end()
    for end_it in (lambda: kill_dump(tap), tap.server.stop):
        stream = tap.stream(start, read_timeout_s=5)
        stream.poll(0.5)
        end_it()
        with pytest.raises(Retry):
            poll_on(stream, 10)
    tap.server.start()


def poll_on(stream: BinlogStream, for_s: float) -> None:
    began = time.monotonic()
    while time.monotonic() - began < for_s:
        stream.poll(0.1)


def kill_dump(tap: Tap) -> None:
    dumps = [row[0] for row in tap.server.execute("SHOW PROCESSLIST") if "Dump" in row[4]]
    assert len(dumps) == 1
    tap.server.execute(f"KILL {dumps[0]}")


def test_a_second_reader_of_the_same_id_ends_the_first_with_a_retry(
    own_tap: Callable[..., Tap],
) -> None:
    tap = own_tap()
    first = tap.stream(tap.end())
    first.poll(0.5)
    second = tap.stream(tap.end())
    with pytest.raises(Retry):
        poll_on(first, 10)
    second.close()


def test_a_damaged_event_is_never_decoded(own_tap: Callable[..., Tap]) -> None:
    tap = own_tap()
    start = tap.end()
    tap.execute("INSERT INTO obs VALUES (1, 1, 'MARKER')")
    [file] = tap.server.folder.rglob(start.file)
    data = file.read_bytes()
    assert data.count(b"MARKER") >= 1
    file.write_bytes(data.replace(b"MARKER", b"MURKER"))
    with pytest.raises((Retry, Gap)):
        tap.read(start)


def test_wrong_password_is_named_without_the_servers_text(own_tap: Callable[..., Tap]) -> None:
    tap = own_tap()
    tap.server.execute(
        "CREATE USER 'reader'@'%' IDENTIFIED BY 'right'",
        "GRANT SELECT ON openmrs.* TO 'reader'@'%'",
    )
    start = tap.end()
    for password in ("wrong", "right"):  # the second may connect, but has no replication grant
        options: dict[str, Any] = {"user": "reader", "password": password}
        with pytest.raises(Fatal, match="access denied") as caught:
            tap.read(
                start, columns={}, connect=lambda options=options: tap.server.connect(**options)
            )
        assert "reader" not in str(caught.value)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_positions_past_4_gib(own_tap: Callable[..., Tap]) -> None:
    """One transaction larger than 4 GiB, since a file is not changed inside one."""
    tap = own_tap(flags=["--max-allowed-packet=1G"])
    tap.execute("CREATE TABLE big (id INT AUTO_INCREMENT PRIMARY KEY, b LONGBLOB)")
    start = tap.end()
    blobs = ["INSERT INTO big (b) VALUES (REPEAT('x', 480000000))"] * 9
    tap.execute("BEGIN", insert(1), *blobs, insert(2), "COMMIT", insert(3))
    items = tap.read(start)
    one, two, three = of(RowChange, items)
    assert one.at.pos < 10_000
    assert two.at.pos > 1 << 32
    commit = next(item for item in of(Commit, items) if item.gtid == two.gtid)
    # MariaDB 11.8 says no positions in so large a transaction. They are counted then, without the
    # statements' texts (Annotate_rows), which it doesn't send.
    assert two.at.pos < commit.at.pos < two.at.pos + 1_000
    # MariaDB 11.8 begins a file before it, too.
    *_, rotated = of(NextFile, items)
    assert three.at.file == rotated.at.file
    assert of(RowChange, tap.read(commit.at)) == [three]
    sizes = {row[0]: int(row[1]) for row in tap.server.execute("SHOW BINARY LOGS")}
    assert commit.at.pos < sizes[commit.at.file] < commit.at.pos + 100
