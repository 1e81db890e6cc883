"""What others have put into the Passport or into the dead letters stops nobody (B18)."""

from collections.abc import Callable
from pathlib import Path

import pytest

from consumers import dead_letters
from destinations.mongo.erasure import Traces
from passport.kafka import Record
from tests import observations as make
from tests.integration.consuming import settings
from tests.integration.passport_database import Passport
from tests.observations import obs


@pytest.mark.parametrize("odd_id", ["not-an-object-id", 7])
def test_b18_a_patient_whose_id_is_no_object_id_is_nobody(
    passport: Passport,
    odd_id: object,
) -> None:
    """Nobody is linked to it, and who was linked to it by an earlier release no longer is."""
    passport.db.patients.insert_one(make.patient() | {"_id": odd_id})
    sink = passport.sink()
    assert sink.write([obs(1, 10)]).unmatched == 1
    assert passport.db.people.find_one()["patientId"] is None  # type: ignore[index]
    assert passport.shown() == []

    patient_id = passport.register("1199080012345679")
    other = make.person(at=10, person_id=8, national_id="1199080012345679")
    sink.write([obs(2, 10, who=other)])
    assert len(passport.shown(patient_id)) == 1
    passport.db.people.update_many({"patientId": patient_id}, {"$set": {"patientId": str(odd_id)}})
    passport.db.medicalrecords.update_many(
        {"patientId": patient_id}, {"$set": {"patientId": str(odd_id)}}
    )
    passport.db.patients.delete_one({"nationalId": "1199080012345679"})
    later = make.person(at=20, person_id=8, national_id="1199080012345679")
    assert sink.write([obs(2, 20, who=later)]).unmatched == 1
    assert passport.shown() == []
    # What follows the test wants only documents that the Passport itself could have made.
    entry = passport.db.auditlogs.delete_one({"patient": str(odd_id), "action": "delete"})
    assert entry.deleted_count == 1
    passport.db.patients.delete_one({"_id": odd_id})


def test_b18_a_letter_of_any_kind_stops_no_erasure(
    kafka_bootstrap: str, create_topic: Callable[..., str], tmp_path: Path
) -> None:
    """Anybody may have parked 5,000 digits, headers of anything, or a number as a text."""
    given = settings({}, kafka_bootstrap, tmp_path / "out")
    create_topic(given.kafka.dead_letters_topic)
    person, nobody = b'{"person_id":"42"}', b'{"person_id": ' + b"9" * 5_000 + b"}"
    letters = dead_letters.DeadLetters(given.kafka, "file")
    for offset, value in enumerate((nobody, person, b'{"person_id":43}')):
        letters.park(Record(0, offset, b"kigali", value, ()), "malformed", "kigali")
    letters.close()
    writer = dead_letters.DeadLetterWriter(given.kafka)
    numbers = "_dlq.errors.original.partition", "_dlq.errors.original.offset", "_dlq.parked_ms"
    odd_headers = [(name, b"9" * 5_000) for name in numbers] + [("_dlq.hospital", b"\xff")]
    writer.write(b"odd", b"\xff", odd_headers)
    writer.close()

    traces = Traces("kigali", frozenset({42}), {})
    assert len(dead_letters.listed(given)) == 4
    assert dead_letters.erase(given, traces.concern, dry_run=False) == 1
    assert [letter.id for letter in dead_letters.listed(given)] == [
        "file/0/0",
        "file/0/2",
        "odd",
    ]
