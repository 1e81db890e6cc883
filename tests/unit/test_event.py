"""The envelope: what is documented is what is written, and what is written is read back."""

import json
import re
from pathlib import Path

import pytest

from passport.errors import Reject
from passport.event import (
    NewerEnvelope,
    RowEnvelope,
    encode_event,
    parse_checked_event,
    parse_event,
)

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "events.md").read_text(encoding="utf-8")
EXAMPLES = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]


def compact(body: object) -> bytes:
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def test_the_page_has_every_kind() -> None:
    assert [example["kind"] for example in EXAMPLES] == ["row", "notice", "chunk", "heartbeat"]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: str(example["kind"]))
def test_a_record_is_read_as_an_event_of_its_kind(example: dict[str, object]) -> None:
    event = parse_event(compact(example))
    assert event.kind == example["kind"]
    assert type(event).__struct_config__.tag == example["kind"]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: str(example["kind"]))
def test_documented_events_are_read_and_written_as_they_stand(example: object) -> None:
    assert encode_event(parse_event(compact(example))) == compact(example)


def test_the_fast_way_writes_the_same_bytes() -> None:
    event = parse_event(compact(EXAMPLES[0]))
    source = event.source
    envelope = RowEnvelope(
        hospital=source.hospital,
        timezone=source.timezone,
        db=source.db,
        table=source.table,
        server=source.server,
        origin=source.origin,
    )
    envelope.at(
        file=source.file,
        pos=source.pos,
        gtid=source.gtid,
        ts_ms=source.ts_ms,
        prefix=source.version[:-8],
        transaction=str(event.transaction.id),
    )
    before, after = compact(event.before).decode(), compact(event.after).decode()
    written = envelope("u", before, after, source.row, event.transaction.last, event.ts_ms)
    assert written == encode_event(event)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "malformed"),
        (b"", "malformed"),
        (b"{", "malformed"),
        (b"[1]", "malformed"),
        (b"\xff\xfe", "malformed"),
        (b'{"v":2}', "unknown_version"),
        (compact(EXAMPLES[3] | {"v": 2}), "unknown_version"),
        (compact(EXAMPLES[3] | {"v": 0}), "unknown_version"),
        (compact(EXAMPLES[3] | {"v": "canary"}), "unknown_version"),
        (compact(EXAMPLES[3] | {"v": 10**30}), "unknown_version"),
        (compact({name: part for name, part in EXAMPLES[3].items() if name != "v"}), "malformed"),
        (b"[" * 100_000, "malformed"),
        (compact(EXAMPLES[0] | {"op": "x"}), "malformed"),
        (compact(EXAMPLES[0] | {"kind": "other"}), "malformed"),
        (compact(EXAMPLES[0] | {"after": {"obs_id": "canary"}}), "malformed"),
        (compact(EXAMPLES[0] | {"source": {"hospital": "canary"}}), "malformed"),
        (compact(EXAMPLES[1] | {"keys": 7}), "malformed"),
        (compact(EXAMPLES[2] | {"keys": ["canary"]}), "malformed"),
        (compact({name: part for name, part in EXAMPLES[2].items() if name != "to"}), "malformed"),
        (
            compact({name: part for name, part in EXAMPLES[0].items() if name != "before"}),
            "malformed",
        ),
        (
            compact(EXAMPLES[3] | {"source": EXAMPLES[3]["source"] | {"version": "canary"}}),
            "malformed",
        ),
    ],
)
def test_what_is_no_event_is_rejected_without_being_quoted(
    value: bytes | None, reason: str
) -> None:
    with pytest.raises(Reject) as raised:
        parse_event(value)
    assert raised.value.reason == reason
    assert "canary" not in str(raised.value)


@pytest.mark.parametrize(
    ("version", "is_later"), [(2, True), (999, True), (1000, False), (0, False), (True, False)]
)
def test_b21_an_event_of_a_later_release_is_told_from_garbage(version: int, is_later: bool) -> None:
    """Whatever such a release changes, it says its version and its hospital."""
    later = {"v": version, "kind": "new", "source": {"hospital": "kigali", "more": []}}
    with pytest.raises(Reject) as raised:
        parse_event(compact(later))
    assert isinstance(raised.value, NewerEnvelope) is is_later


def test_b14_the_columns_of_a_row_are_checked_where_it_is_worked_on() -> None:
    row = dict(EXAMPLES[0]["after"])
    checked = parse_checked_event(compact(EXAMPLES[0]))
    assert checked.row == parse_event(compact(EXAMPLES[0])).row == row
    for column in row:
        wrong = compact(EXAMPLES[0] | {"after": row | {column: ["canary"]}})
        if column != "obs_id":
            parse_event(wrong)
        with pytest.raises(Reject) as raised:
            parse_checked_event(wrong)
        assert raised.value.reason == "malformed"
        assert "canary" not in str(raised.value)
