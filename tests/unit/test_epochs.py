"""Properties of versions, epochs and saved positions, whatever is drawn."""

from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from cdc.binlog import gtids
from cdc.checkpoint import Checkpoint, Mark
from cdc.positions import BY_GTID, Saved, Snapshot, highest_epoch
from passport.event import ENVELOPE, EventSource, HeartbeatEvent, encode_event
from passport.kafka import Record
from passport.version import Position, next_epoch, parse, read_version, row_version
from tests.positions_topic import highest

epochs = st.integers(0, 10**10 - 1)
positions = st.builds(
    lambda number, pos: Position(f"binlog.{number:06d}", pos),
    st.integers(0, 10**10 - 1),
    st.integers(0, 10**16 - 1),
)
snapshots = st.builds(
    Snapshot,
    st.integers(1, 5),
    st.sampled_from(["running", "done"]),
    st.none() | st.integers(-(2**31), 2**31),
)
saveds = st.builds(
    Saved,
    hospital=st.just("kigali"),
    partition=st.just(0),
    server=st.sampled_from(["mariadb-1", "mariadb-2"]),
    format_ts=st.integers(0, 2**32),
    epoch=epochs,
    position=positions,
    gtid_set=st.sampled_from(["", "0-1-1"]),
    snapshot=snapshots,
)


@given(epochs, positions, epochs, positions, st.integers(0, 10**8 - 1), st.integers(0, 10**8 - 1))
def test_versions_sort_as_text_like_their_parts(
    epoch: int, at: Position, other_epoch: int, other: Position, row: int, other_row: int
) -> None:
    one, two = row_version(epoch, at, row), row_version(other_epoch, other, other_row)
    assert (one < two) == ((epoch, at.order, row) < (other_epoch, other.order, other_row))
    assert parse(one) == (epoch, *at.order, row)


@given(epochs, positions, st.integers(1, 10**8 - 1))
def test_a_read_is_after_all_that_it_contains_and_before_what_follows(
    epoch: int, at: Position, row: int
) -> None:
    assert (
        row_version(epoch, at._replace(pos=at.pos - 1 if at.pos else 0), row)
        < read_version(epoch, at)
        or not at.pos
    )
    assert read_version(epoch, at) < row_version(epoch, at, row)


@given(
    st.lists(st.tuples(st.integers(-600, 600), st.booleans()), max_size=40), st.integers(1, 10**5)
)
def test_epochs_only_grow_whatever_is_lost_and_whatever_the_clock_says(
    starts: list[tuple[int, bool]], step: int
) -> None:
    """Each start: how wrong its clock is, and whether the positions are lost; the topic's last
    records never are.
    """
    now, known, published = 1_700_000_000, 0, 0
    begun: list[int] = []
    for skew, lost in starts:
        now += step
        known = next_epoch(published if lost else known, now + skew)
        begun.append(known)
        values = [_record(published), b"not a record", _record(known)]
        published = highest_epoch(Record(0, 0, None, value, ()) for value in values)
    assert all(earlier < later for earlier, later in pairwise(begun))


def _record(epoch: int) -> bytes:
    version = read_version(epoch, Position("binlog.000001", 4))
    source = EventSource(
        "kigali", "UTC", "openmrs", "", "binlog.000001", 4, 0, "", "mariadb-1", 0, version, "binlog"
    )
    return encode_event(HeartbeatEvent(v=ENVELOPE, source=source, ts_ms=0))


def test_without_records_there_is_no_epoch() -> None:
    assert highest_epoch([]) == 0


@given(st.lists(saveds, min_size=1, max_size=8), st.randoms())
def test_the_highest_does_not_depend_on_the_order_of_the_records(
    found: list[Saved], rng: object
) -> None:
    best = highest(found)
    assert best is not None
    assert all(best.rank >= saved.rank for saved in found)
    shuffled = list(found)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    again = highest(shuffled)
    assert again is not None
    assert again.rank == best.rank


@given(saveds, positions)
def test_a_position_on_the_new_server_is_further_than_the_promise_to_go_on_by_gtid(
    saved: Saved, at: Position
) -> None:
    promised = replace(saved, position=Position("binlog.000000", BY_GTID))
    reached = replace(promised, position=at._replace(pos=max(4, at.pos)))
    assert promised.by_gtid
    assert not reached.by_gtid
    assert highest([reached, promised]) == reached


@given(saveds)
def test_it_is_read_as_it_was_written(saved: Saved) -> None:
    assert Saved.parse(saved.encode()) == saved


@given(st.lists(st.one_of(st.just("row"), st.just("end"), st.integers(1, 4)), max_size=80))
def test_what_is_saved_is_a_transactions_end_with_everything_before_it_acknowledged(
    steps: list[str | int],
) -> None:
    """A row is sent, a transaction ends, or so many more records are acknowledged."""
    checkpoint = Checkpoint.at(_mark(0))
    sent = acked = 0
    ends = {0: 0}  # position: records that were sent up to it
    for at, step in enumerate(steps, 1):
        if step == "row":
            sent += 1
        elif step == "end":
            ends[at] = sent
            checkpoint.commit(sent, _mark(at))
        else:
            acked = min(sent, acked + int(step))
        reached = checkpoint.acked(acked).at.pos
        assert reached in ends
        assert ends[reached] <= acked
        assert reached == max(end for end, needs in ends.items() if needs <= acked)
        assert checkpoint.settled == (acked >= ends[max(ends)])


def _mark(pos: int) -> Mark:
    return Mark(Position("binlog.000001", pos), "", 1, {})


states = st.dictionaries(
    st.tuples(st.integers(0, 2), st.integers(1, 3)), st.integers(1, 9), max_size=6
)


@given(
    states,
    st.dictionaries(st.integers(0, 2), st.tuples(st.integers(1, 3), st.integers(1, 9)), max_size=3),
)
def test_a_mariadb_has_what_each_domain_reached(
    state: dict[tuple[int, int], int], asked: dict[int, tuple[int, int]]
) -> None:
    written = ",".join(f"{domain}-{server}-{seq}" for (domain, server), seq in state.items())
    wanted = ",".join(f"{domain}-{server}-{seq}" for domain, (server, seq) in asked.items())
    expected = all(state.get((domain, server), 0) >= seq for domain, (server, seq) in asked.items())
    assert gtids.contains(written, wanted) == expected
