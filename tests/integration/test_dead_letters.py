"""Dead letters: listed, shown without a patient's data unless asked for, and tried again."""

from collections.abc import Callable
from pathlib import Path

import pytest
from kafka import KafkaProducer

from consumers import dead_letters
from passport import sink as sinks
from passport.errors import Fatal
from passport.event import ENVELOPE, EventSource, RowEvent, Transaction, encode_event
from passport.kafka import Record
from passport.settings import Settings
from passport.sink import Sink
from passport.version import Version
from tests.integration.consuming import Server, consume, delivered, hospital, read, settings
from tests.topic_reader import read_topic

SECRET = "1199080099999999"


@pytest.fixture
def given(own_mariadb: Callable[..., Server], kafka_bootstrap: str, tmp_path: Path) -> Settings:
    """A hospital whose topic is applied; obs 3 has changed since, unseen by any event."""
    server = own_mariadb()
    hospital(server, patients=3)
    made = settings({"kigali": server}, kafka_bootstrap, tmp_path / "out")
    read(made)
    consume(made)
    server.execute(
        "USE openmrs",
        "SET sql_log_bin = 0",
        "UPDATE obs SET comments = 'unseen' WHERE obs_id = 3",
        "UPDATE location SET name = CONCAT(name, ' unseen')",
    )
    return made


HEADERS = [
    ("ce_type", b"row"),
    ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
]


def send(given: Settings, *values: bytes) -> None:
    producer = KafkaProducer(bootstrap_servers=given.kafka.bootstrap)
    for value in values:
        producer.send(given.kafka.topic, value=value, partition=0, headers=HEADERS).get(10)
    producer.close()


def event(**fields: object) -> RowEvent:
    version = str(Version(1, 1, 4, 1))
    source = EventSource(
        "kigali", "UTC", "openmrs", "obs", "b.000001", 4, 1, "", "s", 1, version, "binlog"
    )
    return RowEvent(
        v=ENVELOPE,
        op="u",
        before=None,
        after={"obs_id": 3, "comments": SECRET, **fields},
        source=source,
        transaction=Transaction(id="t", last=True),
        ts_ms=1,
    )


def sink(given: Settings) -> Callable[[str], Sink]:
    return lambda name: sinks.connect(name, given)


def test_a_row_is_read_again_at_its_hospital(given: Settings, tmp_path: Path) -> None:
    send(given, encode_event(event()))
    consume(given)
    (letter,) = dead_letters.listed(given)
    assert (letter.reason, letter.kind, letter.hospital, letter.destination) == (
        "malformed",
        "row",
        "kigali",
        "file",
    )
    assert delivered(tmp_path / "out").rows["kigali", 3]["row"]["comments"] != "unseen"
    assert dead_letters.retry(given, [letter.id], sink(given)) == [
        dead_letters.Retried(letter.id, settled=True)
    ]
    found = delivered(tmp_path / "out").rows["kigali", 3]
    assert (found["row"]["comments"], found["origin"], found["deleted"]) == (
        "unseen",
        "reread",
        False,
    )
    assert found["place"]["name"].endswith("unseen")
    assert dead_letters.listed(given) == []
    assert dead_letters.retry(given, None, sink(given)) == []


def test_a_row_that_is_gone_is_deleted(given: Settings, tmp_path: Path) -> None:
    row = delivered(tmp_path / "out").rows["kigali", 3]["row"] | {"obs_id": 999_999}
    letters = dead_letters.DeadLetters(given.kafka, "file")
    letters.park_row(event(**row), "too_large", 0)
    letters.close()
    (letter,) = dead_letters.listed(given)
    assert letter.id == "file/kigali/999999"
    assert [one.settled for one in dead_letters.retry(given, None, sink(given))] == [True]
    assert delivered(tmp_path / "out").rows["kigali", 999_999]["deleted"] is True


def test_what_cannot_be_read_stays(given: Settings) -> None:
    later_release = encode_event(event()).replace(b'{"v":1,', b'{"v":2,')
    send(given, b"{" + SECRET.encode())
    consume(given)
    # Releases before this one parked what is of a later one.
    letters = dead_letters.DeadLetters(given.kafka, "file")
    letters.park(Record(0, 1, b"kigali", later_release, ()), "unknown_version", "kigali")
    letters.close()
    tried = dead_letters.retry(given, None, sink(given))
    assert [(one.settled, one.reason) for one in tried] == [
        (False, "malformed"),
        (False, "unknown_version"),
    ]
    assert len(dead_letters.listed(given)) == 2
    assert dead_letters.listed(given, hospital="butare") == []
    assert dead_letters.listed(given, destination="mongo") == []


def test_content_is_shown_on_demand_only(given: Settings) -> None:
    send(given, encode_event(event()))
    consume(given)
    (letter,) = dead_letters.listed(given)
    hidden, shown = (
        dead_letters.show(given, letter.id),
        dead_letters.show(given, letter.id, reveal=True),
    )
    assert (hidden.value, hidden.kind) == (None, "row")
    assert shown.value is not None
    assert SECRET in shown.value
    assert hidden.size == len(shown.value)
    with pytest.raises(Fatal, match="no dead letter 'x'"):
        dead_letters.show(given, "x")


def test_headers_say_where_and_why_and_nothing_of_a_patient(given: Settings) -> None:
    send(given, encode_event(event()))
    consume(given)
    (record,) = read_topic(given.kafka.bootstrap, given.kafka.dead_letters_topic)
    headers = dict(record.headers)
    assert headers["_dlq.errors.original.topic"] == given.kafka.topic.encode()
    assert headers["_dlq.errors.original.partition"] == b"0"
    assert headers["_dlq.errors.disposition"] == b"PARKED"
    assert headers.items() >= dict(HEADERS).items(), (
        "what is parked can still be found in its trace"
    )
    assert int(headers["_dlq.errors.original.offset"]) > 0
    assert SECRET.encode() not in b"".join(headers.values()) + record.key
