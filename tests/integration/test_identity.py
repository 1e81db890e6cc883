"""What a read says of the position that was asked for, and what waits until it can be read."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from dev.hospital import create
from dev.stack import MariaDB, MySQL
from openmrs.connection import end_of_binlog, identity
from openmrs.read import Elsewhere, Here, MayNotSeeError, Source, SourcePosition
from passport.errors import Retry
from passport.version import Position, Version
from tests.integration.test_reenrich import EPOCH, Ward
from tests.servers import Address

Server = MariaDB | MySQL
RIGHT = "REPLICATION CLIENT ON *.*"


def place(server: Address) -> SourcePosition:
    """Return where the server is now."""
    with server.connect() as connection:
        position = end_of_binlog(connection)
        assert position is not None
        return SourcePosition(position, "", identity(connection))


@pytest.fixture
def watched(flavour_database: Address) -> Iterator[Address]:
    """A hospital, and an account that may read it and see where its binlog ends."""
    with flavour_database.connect() as connection:
        create(connection, seed=1, patients=3)
    account = f"{flavour_database.database}"[:30]
    flavour_database.execute(
        f"CREATE USER '{account}'@'%' IDENTIFIED BY 'a-password'",
        f"GRANT SELECT ON `{flavour_database.database}`.* TO '{account}'@'%'",
        f"GRANT {RIGHT} TO '{account}'@'%'",
    )
    yield flavour_database
    flavour_database.execute(f"DROP USER '{account}'@'%'")


def account_of(server: Address) -> str:
    return f"'{str(server.database)[:30]}'@'%'"


def test_b4_three_answers_to_whether_a_position_is_visible(watched: Address) -> None:
    user = account_of(watched).split("'")[1]
    source = Source("kigali", watched.settings(user=user, password="a-password"))

    def asked(position: SourcePosition) -> Any:
        with source.read_at(position, patience_s=0.5) as read:
            return read.answer

    here = place(watched)
    assert isinstance(asked(here), Here)
    assert isinstance(asked(SourcePosition.end_of(here.server)), Here)
    assert isinstance(asked(here._replace(server="another")), Elsewhere)
    assert isinstance(asked(SourcePosition.end_of("another")), Elsewhere)
    not_yet = Position(here.position.file, here.position.pos + 1_000_000_000)
    ahead = here._replace(position=not_yet)
    assert isinstance(asked(ahead), Elsewhere), "the binlog was numbered anew"

    watched.execute(f"REVOKE {RIGHT} FROM {account_of(watched)}")
    source.close()  # a session keeps the rights that it was opened with
    with pytest.raises(MayNotSeeError) as refused:
        asked(ahead)
    assert isinstance(refused.value, Retry), "it heals by itself"
    grant = refused.value.hint.partition("--")[0]
    assert account_of(watched) in grant
    watched.execute(grant)
    assert isinstance(asked(ahead), Elsewhere)
    assert isinstance(asked(here), Here)
    source.close()


@pytest.fixture
def ward(mysql_database: Address) -> Iterator[Ward]:
    with mysql_database.connect() as connection:
        create(connection, seed=1, patients=3)
    ward = Ward(mysql_database)
    yield ward
    ward.lookups.close()


def test_b4_what_is_elsewhere_waits_for_the_stream_to_get_there(ward: Ward) -> None:
    """Several servers answer at one address, and this one isn't the reader's."""
    queue = ward.queue()
    change = ward.key_change("patient", 1)
    source = change.source
    elsewhere = SourcePosition(Position(source.file, source.pos), "", "another")
    ward.lookups.seen(source.version, source.server)
    queue.add_persons([1], 10, elsewhere)
    with pytest.raises(Retry, match="another server"):
        queue.read()
    assert (queue.pending_persons(), queue.held_offset()) == (1, 10), "nothing was dropped"

    # A reader that begins at this server begins an epoch. All that is committed is late enough.
    ward.lookups.seen(str(Version(EPOCH + 1, 1, 4, 0)), source.server)
    piece = queue.read()
    assert piece is not None
    assert [person.person_id for person, _ in piece.persons] == [1]
    queue.finish(piece)
    assert (queue.pending_persons(), queue.held_offset()) == (0, None)


def test_b16_a_property_of_openmrs_makes_nothing_be_read_again(ward: Ward) -> None:
    """OpenMRS changes them all the time. An earlier release published that, without a key."""

    def questions() -> int:
        with ward.lookups.source.connection().cursor() as cursor:
            cursor.execute("SHOW SESSION STATUS LIKE 'Questions'")
            ((_, count),) = cursor.fetchall()
        return int(count)

    change = ward.key_change("patient", 1)
    ward.lookups.seen(change.source.version, change.source.server)
    persons = ward.lookups.persons([1, 2, 3])
    queue = ward.queue()
    published = replace(change, keys=(), source=replace(change.source, table="global_property"))
    before = questions()
    ward.lookups.evict(published)
    queue.add_key_change(published, 10)
    assert queue.pending() == 0
    existing = [key for key, person in persons.items() if person.uuid is not None]
    assert ward.lookups.persons(existing) == {key: persons[key] for key in existing}
    assert questions() - before == 1, "this question"
    whole_table = replace(published, source=replace(change.source, table="location"))
    ward.lookups.evict(whole_table)
    ward.lookups.persons(existing)
    assert questions() - before > 2, "this question, and the persons"


def test_b4_a_polled_hospital_needs_no_right_to_see_a_binlog(
    own_mysql: Callable[..., Server],
) -> None:
    server = own_mysql()
    server.execute("CREATE DATABASE openmrs")
    with server.connect(database="openmrs") as connection:
        create(connection, seed=1, patients=3)
    server.execute(
        "CREATE USER poller@'%' IDENTIFIED BY 'a-password'", "GRANT SELECT ON openmrs.* TO poller"
    )
    address = Address("mysql", "127.0.0.1", server.port or 0, "poller", "a-password", "openmrs")
    ward = Ward(address)
    queue = ward.queue()
    queue.add_persons([1], 10, None)
    with pytest.raises(MayNotSeeError):
        queue.read()
    # The watchdog polls it, in an epoch of its own, whose versions have no position.
    ward.lookups.seen(str(Version(EPOCH + 1, 1, 0, 0)), "any")
    piece = queue.read()
    assert piece is not None
    assert piece.version == ward.lookups.newest
    ward.lookups.close()
