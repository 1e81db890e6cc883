"""At a hospital's server: nobody waits for us, the budget is that of all processes together, and
snapshots keep to the quiet hours.
"""

import threading
import time
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from cdc import backfill, reader
from cdc.polling import poll
from cli.status_report import collect
from dev import hospital as generator
from openmrs import load_budget
from openmrs.load_budget import Hours, PageSize
from openmrs.load_share import LoadShare
from openmrs.read import ANY_POSITION, Source
from passport import metrics
from passport.errors import TooSlow
from passport.settings import LoadBudget, Settings
from tests import stream
from tests.beside import beside
from tests.eventually import eventually
from tests.hospitals import assert_equal, hospital, reading, saved
from tests.integration.published import HOSPITAL, folded, read, settings_for
from tests.reader_process import catch_up, running
from tests.servers import Address

# An ALTER may wait so long for us.
AT_MOST_S = 1.0


def seconds_of_alter(address: Address, column: str) -> float:
    """Return how long it takes to add a column to obs."""
    began_at = time.monotonic()
    address.execute(f"ALTER TABLE obs ADD COLUMN {column} INT")
    return time.monotonic() - began_at


def test_a13_an_alter_does_not_wait_for_polling(
    flavour_database: Address, kafka_bootstrap: str, topic: str
) -> None:
    """Polling is held up by its budget for a quarter of a minute, and the ALTER comes then."""
    with flavour_database.connect() as connection:
        generator.create(connection, seed=3, patients=20, visits=2)
    slow = LoadBudget(rows_per_s=60, chunk_rows=50)
    settings = settings_for(
        flavour_database, kafka_bootstrap, topic, load_budget=slow, poll_interval_s=60
    )
    alone_s = seconds_of_alter(flavour_database, "a13_alone")

    def kinds() -> list[str]:
        return [event.kind for event in read(kafka_bootstrap, topic)]

    def polling(done: threading.Event) -> None:
        poll.run(HOSPITAL, settings, once=True, stop=done)

    with beside(polling):
        eventually(lambda: "row" in kinds(), "rows of obs are read")
        waited_s = seconds_of_alter(flavour_database, "a13") - alone_s
        assert "heartbeat" not in kinds(), "the run goes on"
        rows = kinds().count("row")
        eventually(lambda: kinds().count("row") > rows, "it reads on behind the ALTER")
    assert waited_s < AT_MOST_S

    quick = settings_for(flavour_database, kafka_bootstrap, topic)
    poll.run(HOSPITAL, quick, once=True, stop=threading.Event())
    assert folded(read(kafka_bootstrap, topic)) == stream.obs(flavour_database)


def test_a_query_that_takes_too_long_is_ended_by_the_server(flavour_database: Address) -> None:
    with flavour_database.connect() as connection:
        generator.create(connection, seed=3, patients=10, visits=1)
    source = Source(HOSPITAL, flavour_database.settings())
    endless = "SELECT SUM(a.obs_id % (b.obs_id + c.obs_id)) AS n FROM obs a, obs b, obs c, obs d"
    with pytest.raises(TooSlow), source.read_at(ANY_POSITION, longest_s=0.1) as slow:
        slow.rows(endless)
    with source.read_at(ANY_POSITION, longest_s=0.1) as quick:
        assert quick.rows("SELECT COUNT(*) AS n FROM obs")[0]["n"] > 0
        # The server works on nothing of ours any more.
        running = flavour_database.execute(
            "SELECT COUNT(*) FROM information_schema.processlist"
            f" WHERE info LIKE '%obs d' AND db = '{flavour_database.database}'"
        )
    assert running == ((0,),)
    source.close()


def test_pages_shrink_at_a_server_that_ends_queries_and_everything_arrives(
    flavour_database: Address,
    kafka_bootstrap: str,
    topic: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: list[int] = []
    note_end = PageSize.ended

    def noted(size: PageSize) -> None:
        ended.append(size.rows)
        note_end(size)

    monkeypatch.setattr(PageSize, "ended", noted)
    monkeypatch.setattr(load_budget, "LONGEST_QUERY_S", 0.001)
    with flavour_database.connect() as connection:
        generator.create(connection, seed=3, patients=60, visits=3)
    settings = settings_for(flavour_database, kafka_bootstrap, topic)
    poll.run(HOSPITAL, settings, once=True, stop=threading.Event())
    assert ended, "the server has ended queries"
    assert folded(read(kafka_bootstrap, topic)) == stream.obs(flavour_database)


def test_a17_rows_that_are_read_again_keep_to_the_budget(
    own_mariadb: Any, kafka_bootstrap: str
) -> None:
    address = hospital(own_mariadb(flags=["--binlog-row-image=MINIMAL"]), patients=15)
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    address.execute("UPDATE obs SET comments = 'x'")
    rows = len(stream.obs(address))
    slow = with_budget(settings, rows_per_s=rows // 4)
    published = len(stream.records(settings))
    catch_up(slow)
    new = [event for event in stream.records(settings)[published:] if event.kind == "row"]
    assert len(new) == rows, "all of them were read again"
    sent_at = [event.ts_ms for event in new]
    # Four seconds' budget, of which the first page comes at once.
    assert max(sent_at) - min(sent_at) > 2_000
    assert_equal(settings, address)


def test_a17_a_reader_that_reads_rows_again_stops_at_once(
    own_mariadb: Any, kafka_bootstrap: str
) -> None:
    address = hospital(own_mariadb(flags=["--binlog-row-image=MINIMAL"]), patients=15)
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    before = saved(settings)
    address.execute("UPDATE obs SET comments = 'x'")
    published = len(stream.records(settings))
    slow = with_budget(settings, rows_per_s=1)
    stop = threading.Event()
    with beside(lambda _: reader.run(HOSPITAL, slow, until_caught_up=True, stop=stop)):
        eventually(lambda: len(stream.records(settings)) > published, "some were read again")
        stop.set()
    assert saved(settings).position == before.position, "the transaction comes again"
    catch_up(settings)
    assert_equal(settings, address)


def test_a17_the_jobs_of_a_hospital_share_one_budget(
    own_mariadb: Any, kafka_bootstrap: str
) -> None:
    """Two backfills together read no more than one alone may."""
    address = hospital(own_mariadb(), patients=15)
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    published = len(stream.records(settings))
    rate = 20
    slow = with_budget(settings, rows_per_s=rate, chunk_rows=20)
    read_rows: list[int] = []

    def bring(_: threading.Event) -> None:
        never = threading.Event()
        read_rows.append(
            backfill.run(HOSPITAL, slow, first=None, to=120, stop=never, progress=no_progress)
        )

    with beside(bring, bring):
        pass
    assert read_rows == [120, 120]
    sent_ms: dict[int, list[int]] = {}
    for event in stream.records(settings)[published:]:
        if event.kind == "row":
            sent_ms.setdefault(event.row["obs_id"], []).append(event.ts_ms)
    # Both are at work from when the later one sends its first row until the other sends its last.
    began_ms = max(sent_ms[min(sent_ms)])
    ended_ms = min(sent_ms[max(sent_ms)])
    sent = sum(began_ms < at_ms <= ended_ms for times in sent_ms.values() for at_ms in times)
    seconds = (ended_ms - began_ms) / 1000
    assert seconds > 3, "they were at work at once"
    # Within a second of the later one's start each knows of the other. Until then, and with the
    # pieces that were begun, some more is read. Without a share it would be twice the rate.
    assert sent < rate * (seconds + 4)


def test_a17_a_job_that_has_died_leaves_its_share_to_the_others(flavour_database: Address) -> None:
    with flavour_database.connect() as connection:
        generator.create(connection, seed=3, patients=2, visits=1)
    sources = [Source(HOSPITAL, flavour_database.settings()) for _ in range(3)]
    shares = [LoadShare(source) for source in sources]
    for share in shares:
        share.jobs()
    eventually(lambda: [share.jobs() for share in shares] == [3, 3, 3], "all know of each other")
    sources[0].close()
    eventually(lambda: [share.jobs() for share in shares[1:]] == [2, 2], "its lock is free")
    shares[1].leave()
    eventually(lambda: shares[2].jobs() == 1, "it has the whole budget")
    for source in sources:
        source.close()


def test_a_snapshot_waits_for_quiet_hours_and_the_stream_goes_on(
    own_mariadb: Any, kafka_bootstrap: str
) -> None:
    address = hospital(own_mariadb(), patients=5)
    settings = reading(address, kafka_bootstrap)
    zone = settings.hospitals[HOSPITAL].timezone
    now = datetime.now(ZoneInfo(zone))
    hours = f"{now + timedelta(hours=3):%H:%M}-{now + timedelta(hours=5):%H:%M}"
    assert Hours(hours, zone).closed_s() > 0
    busy = with_hours(settings, hours)
    waits = metrics.SNAPSHOT_WAITING.labels(HOSPITAL)
    with running(busy):
        eventually(lambda: waits._value.get() == 1, "the snapshot waits")
        address.execute("UPDATE obs SET comments = 'by day' WHERE obs_id = 1")
        eventually(lambda: list(stream.changes(stream.records(settings))), "the stream goes on")
        assert {event.kind for event in stream.records(settings)} <= {"row", "heartbeat"}
    assert saved(settings).snapshot.state == "running"  # type: ignore[union-attr]
    (row,) = collect(busy, NoProgress())
    assert row["state"] == "streaming, snapshot waits"
    now_open = with_hours(
        settings, f"{now - timedelta(hours=1):%H:%M}-{now + timedelta(hours=5):%H:%M}"
    )
    with running(now_open):
        eventually(lambda: saved(settings).snapshot.state == "done", "it reads now")  # type: ignore[union-attr]
        eventually(lambda: waits._value.get() == 0, "and waits no more")
    assert_equal(settings, address)


def test_who_waits_for_a_snapshots_end_does_not_wait_for_quiet_hours(
    own_mariadb: Any, kafka_bootstrap: str
) -> None:
    address = hospital(own_mariadb(), patients=3)
    settings = reading(address, kafka_bootstrap)
    now = datetime.now(ZoneInfo(settings.hospitals[HOSPITAL].timezone))
    hours = f"{now + timedelta(hours=3):%H:%M}-{now + timedelta(hours=5):%H:%M}"
    catch_up(with_hours(settings, hours))
    assert_equal(settings, address)


class NoProgress:
    """A destination that has nothing yet."""

    def progress(self, hospital: str) -> None:
        return None

    def counts(self, hospital: str) -> dict[str, Any]:
        return {}


def no_progress(rows: int, share: float) -> None:
    pass


def with_budget(settings: Settings, **changes: int) -> Settings:
    """Return the settings with another load budget."""
    budget = settings.hospitals[HOSPITAL].load_budget.model_copy(update=changes)
    return changed(settings, load_budget=budget)


def with_hours(settings: Settings, hours: str) -> Settings:
    return changed(settings, snapshot_hours=hours)


def changed(settings: Settings, **changes: Any) -> Settings:
    changed_hospital = settings.hospitals[HOSPITAL].model_copy(update=changes)
    return settings.model_copy(update={"hospitals": {HOSPITAL: changed_hospital}})
