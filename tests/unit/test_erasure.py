"""Which dead letters are about somebody, though they may not be parsed."""

import pytest

from destinations.mongo.erasure import Traces
from passport.kafka import Record

UUID = "c0ffee00-1234-5678-9abc-def012345678"
TRACES = Traces("kigali", frozenset({42}), {7: UUID})


@pytest.mark.parametrize(
    ("key", "hospital", "value", "concerned"),
    [
        ("passport/0/5", "kigali", b'{"kind":"row","after":{"obs_id":1,"person_id":42,', True),
        ("passport/0/5", "kigali", b'{"before":{"person_id":42},"after":{"person_id":43}}', True),
        (
            "passport/0/5",
            "kigali",
            b'{"kind":"notice","keys":[{"patient_id":41},{"patient_id":42}]}',
            True,
        ),
        ("passport/0/5", "kigali", b'{"person_id":420}', False),
        ("passport/0/5", "kigali", b'{"person_id": ' + b"9" * 5_000 + b"}", False),
        ("passport/0/5", "kigali", b'{"person_id" : "42"}', True),
        ("passport/0/5", "kigali", b'{"person_id":[42]}', True),
        ("passport/0/5", "kigali", b'{"person_id":42.0}', True),
        ("passport/0/5", "huye", b'{"person_id":42}', False),
        ("passport/0/5", "", b"cut off, " + UUID.encode(), True),
        ("passport/kigali/7", "kigali", b"", True),
        ("passport/kigali/7", "kigali", None, False),
        ("passport/kigali/77", "kigali", b"", False),
        ("passport/huye/7", "huye", b"", False),
    ],
)
def test_a_letter_is_known_by_person_observation_or_key(
    key: str, hospital: str, value: bytes | None, concerned: bool
) -> None:
    headers = [("_dlq.hospital", hospital.encode())] if value is not None else []
    assert TRACES.concern(Record(0, 1, key.encode(), value, headers)) is concerned
