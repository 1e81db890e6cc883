"""What the Passport shows of one person's rows; docs/reference/records.md, sentence by sentence."""

from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import pytest
from bson import ObjectId
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from destinations.mongo import mirror
from destinations.mongo import record_update as changes
from destinations.mongo.placeholder_accounts import display_name, unknown_password
from destinations.mongo.projection import obs as obs_projection
from meaning.rules import load, parse
from passport.errors import Reject
from passport.facts import Author, Observation, Value
from tests import observations as make
from tests.observations import HOSPITAL, obs

Document = dict[str, Any]
MAPPING = load()
PATIENT = "a" * 24


def shown(rows: Sequence[Observation], mapping: Any = MAPPING) -> list[Document]:
    """The records of `rows`, by obs_id of their anchors."""
    found = obs_projection.projected(
        [mirror.document(row) for row in rows],
        rules=mapping,
        hospital_id=HOSPITAL,
        hospital_name="Kigali Hospital",
        patient_id=PATIENT,
        created_by=lambda author: f"user of {author['key']}",
    )
    return sorted(
        (one.document for one in found), key=lambda record: int(record["openmrsData"]["obsId"])
    )


def anchors(rows: Sequence[Observation]) -> list[int]:
    return [record["openmrsData"]["obsId"] for record in shown(rows)]


def unmapped(rows: Sequence[Observation]) -> list[int]:
    return sorted(
        row["obsId"]
        for row in obs_projection.unmapped([mirror.document(row) for row in rows], MAPPING)
    )


def header(obs_id: int = 3, **more: Any) -> Observation:
    return obs(obs_id, 10, make.VISIT_DIAGNOSES, make.NO_VALUE, **more)


def malaria(obs_id: int = 4, group: int | None = 3, **more: Any) -> Observation:
    return obs(obs_id, 10, make.DIAGNOSIS, make.coded(make.MALARIA), obs_group_id=group, **more)


def certainty(obs_id: int = 5, group: int | None = 3, **more: Any) -> Observation:
    return obs(obs_id, 10, make.CERTAINTY, make.coded(make.CONFIRMED), obs_group_id=group, **more)


def test_every_field_of_a_test() -> None:
    [record] = shown(
        [obs(1, 10, interpretation="CRITICALLY_HIGH", comments="at rest", status="AMENDED")]
    )
    assert record == {
        "patientId": PATIENT,
        "type": "test",
        "data": {
            "name": "Pulse",
            "details": "72",
            "date": "2025-11-06T10:31:00",
            "doctor": "Jane Smith",
            "hospital": "Kigali Hospital",
            "notes": "at rest",
            "testName": "Pulse",
            "testDate": "2025-11-06T10:31:00",
            "result": "72 beats/min",
            "testStatus": "Critical",
            "status": "AMENDED",
        },
        "createdBy": "user of provider-jane",
        "openmrsData": {
            "obsId": 1,
            "conceptId": 5,
            "personId": 1,
            "obsDatetime": datetime(2025, 11, 6, 8, 31, tzinfo=UTC),
            "dateCreated": datetime(2025, 11, 6, 8, 31, tzinfo=UTC),
            "creatorName": "Jane Smith",
            "locationName": "Outpatient Clinic",
            "encounterUuid": "encounter-7",
            "providerUuid": "provider-jane",
            "valueType": "numeric",
            "hospitalId": HOSPITAL,
            "obsUuid": "obs-1",
            "status": "AMENDED",
            "interpretation": "CRITICALLY_HIGH",
            "authorSource": "encounter_provider",
        },
    }


def test_every_field_of_a_diagnosis() -> None:
    rank = obs(6, 10, make.RANK, make.coded(make.concept(22, "Primary")), obs_group_id=3)
    [record] = shown([header(), malaria(comments="by smear"), certainty(), rank])
    assert record["type"] == "condition"
    assert record["data"] == {
        "name": "Visit Diagnoses",
        "details": "Malaria",
        "date": "2025-11-06T10:33:00",
        "doctor": "Jane Smith",
        "hospital": "Kigali Hospital",
        "notes": "by smear",
        "procedure": "Synced from OpenMRS - Jane Smith",
        "diagnosis": "Malaria",
        "diagnosed": "2025-11-06T10:33:00",
        "diagnosedDate": "2025-11-06T10:33:00",
        "diagnosedBy": "Jane Smith",
        "status": "Confirmed",
        "description": "Primary",
    }
    assert record["openmrsData"]["memberUuids"] == ["obs-4", "obs-5", "obs-6"]
    assert record["openmrsData"]["valueType"] == "coded"


def test_every_field_of_a_medication() -> None:
    duration = make.concept(31, "Duration", "CIEL:159368", units="days")
    start = make.concept(32, "Start", "CIEL:163526", datatype="Date")
    construct = obs(1, 10, make.PRESCRIPTION, make.NO_VALUE)
    members = [
        obs(2, 10, make.DRUG_ORDER, Value("drug", "Artemether 20 mg"), obs_group_id=1),
        obs(3, 10, make.DOSAGE, make.number(1.5), obs_group_id=1),
        obs(4, 10, duration, make.number(3), obs_group_id=1),
        obs(5, 10, start, Value("date", "2025-11-07"), obs_group_id=1),
    ]
    [record] = shown([construct, *members])
    own = ("medicationName", "details", "dosage", "description", "startDate", "prescribedBy")
    values = (
        "Artemether 20 mg",
        "Artemether 20 mg",
        "1.5 mg",
        "3 days",
        "2025-11-07",
        "Jane Smith",
    )
    assert tuple(record["data"][name] for name in own) == values
    assert not {"frequency", "endDate", "medicationStatus", "notes"} & record["data"].keys()
    [alone] = shown([obs(2, 10, make.DRUG_ORDER, Value("drug", "Artemether 20 mg"))])
    assert alone["data"]["startDate"] == alone["data"]["date"]


def test_every_field_of_a_visit() -> None:
    [record] = shown([obs(1, 10, make.CHIEF_COMPLAINT, make.text("cough"))])
    own = ("date", "visitDate", "reason", "details")
    assert [record["data"][name] for name in own] == [
        "2025-11-06T10:15:00",
        "2025-11-06T10:15:00",
        "cough",
        "cough",
    ]
    [without] = shown(
        [replace(obs(1, 10, make.CHIEF_COMPLAINT, make.text("cough")), encounter=None)]
    )
    assert without["data"]["visitDate"] == "2025-11-06T10:31:00"


@pytest.mark.parametrize(
    ("interpretation", "status"),
    [
        (None, None),
        ("NORMAL", "Normal"),
        ("CRITICALLY_LOW", "Critical"),
        ("CRITICALLY_ABNORMAL", "Critical"),
        ("LOW", "Abnormal"),
        ("NEGATIVE", None),
        ("SUSCEPTIBLE", None),
        ("DIRECTIONAL_UP", None),
    ],
)
def test_the_status_of_a_test(interpretation: str | None, status: str | None) -> None:
    assert shown([obs(1, 10, interpretation=interpretation)])[0]["data"].get("testStatus") == status


@pytest.mark.parametrize(
    ("kind", "type_"),
    [
        ("numeric", "numeric"),
        ("coded", "coded"),
        ("drug", "coded"),
        ("boolean", "coded"),
        ("date", "text"),
        ("complex", "text"),
    ],
)
def test_value_types(kind: Any, type_: str) -> None:
    assert shown([obs(1, 10, value=Value(kind, "x"))])[0]["openmrsData"]["valueType"] == type_


def test_the_id_is_that_of_the_first_version() -> None:
    versions = [
        obs(1, 10, voided=True),
        obs(2, 11, voided=True, previous_version=1),
        obs(3, 12, previous_version=2),
    ]
    key = ObjectId(sha256(b"kigali/obs-1").digest()[:12])
    for kept in (versions, [replace(versions[0], deleted=True), *versions[1:]]):
        found = obs_projection.projected(
            [mirror.document(row) for row in kept], MAPPING, HOSPITAL, "K", PATIENT, str
        )
        assert [(one.id, one.created) for one in found] == [
            (key, datetime(2025, 11, 6, 8, 31, tzinfo=UTC))
        ]
    archived = obs_projection.projected(
        [mirror.document(versions[2])], MAPPING, HOSPITAL, "K", PATIENT, str
    )
    assert archived[0].id == ObjectId(sha256(b"kigali/obs-3").digest()[:12])


def test_a_row_with_a_live_successor_is_not_shown() -> None:
    assert anchors([obs(1, 10), obs(2, 10, previous_version=1)]) == [2]
    assert anchors([obs(1, 10), obs(2, 10, previous_version=1, voided=True)]) == [1]
    assert anchors([obs(1, 10), obs(2, 10, previous_version=1, deleted=True)]) == [1]
    assert unmapped([header(), certainty(), certainty(6, previous_version=5)]) == [6]


def test_of_two_successors_the_higher_shows() -> None:
    assert anchors(
        [obs(1, 10, voided=True), obs(3, 10, previous_version=1), obs(2, 10, previous_version=1)]
    ) == [3]


def test_rows_that_name_each_other_end() -> None:
    groups = [obs(1, 10, obs_group_id=2), obs(2, 10, obs_group_id=1), obs(3, 10, obs_group_id=3)]
    assert anchors(groups) == [1, 2, 3]
    versions = [
        obs(1, 10, previous_version=2),
        obs(2, 10, previous_version=1),
        obs(3, 10, previous_version=2),
    ]
    assert anchors(versions) == [3]


def test_a_long_chain_of_edits() -> None:
    chain = [
        obs(1, 10),
        *(obs(number, 10, previous_version=number - 1) for number in range(2, 3_001)),
    ]
    assert anchors(chain) == [3_000]


def test_a_header_alone_is_nothing() -> None:
    assert anchors([header()]) == []
    assert unmapped([header()]) == []


def test_parts_of_a_header_without_a_value_are_unmapped() -> None:
    assert anchors([header(), certainty()]) == []
    assert unmapped([header(), certainty()]) == [5]
    assert unmapped([header(), certainty(), malaria(voided=True)]) == [5]


def test_a_member_that_fits_nothing_stands_alone() -> None:
    pulse = obs(6, 10, obs_group_id=3)
    assert anchors([header(), malaria(), pulse]) == [3, 6]
    assert "description" not in shown([header(), malaria(), pulse])[1]["data"]


def test_members_of_a_voided_header_stand_alone() -> None:
    assert anchors([header(voided=True), malaria()]) == [4]


def test_several_diagnoses_of_a_group_are_several_records() -> None:
    second = obs(6, 10, make.DIAGNOSIS, make.text("fever"), obs_group_id=3)
    records = shown([second, malaria(), header(), certainty(7), certainty(5)])
    assert [record["data"]["diagnosis"] for record in records] == ["Malaria", "fever"]
    assert [record["data"]["status"] for record in records] == ["Confirmed", "Confirmed"]
    assert [record["openmrsData"]["obsId"] for record in records] == [3, 6]
    assert [record["openmrsData"]["memberUuids"] for record in records] == [
        ["obs-4", "obs-5"],
        ["obs-6", "obs-7"],
    ]


def test_two_drugs_of_a_prescription_are_two_medications() -> None:
    """The first is the group's record, and stays it when it is edited."""
    construct = obs(1, 10, make.PRESCRIPTION, make.NO_VALUE)
    first = obs(2, 10, make.DRUG_ORDER, Value("drug", "Artemether"), obs_group_id=1)
    members = [
        obs(3, 10, make.DOSAGE, make.number(1.5), obs_group_id=1),
        obs(4, 10, make.DRUG_ORDER, Value("drug", "Paracetamol"), obs_group_id=1),
        obs(5, 10, make.DOSAGE, make.number(500), obs_group_id=1),
    ]
    edited = obs(
        6,
        11,
        make.DRUG_ORDER,
        Value("drug", "Artemether"),
        obs_group_id=1,
        previous_version=2,
    )
    for rows in (
        [construct, first, *members],
        [construct, replace(first, row={**first.row, "voided": 1}), *members, edited],
    ):
        told = {
            record["openmrsData"]["obsId"]: (
                record["data"]["medicationName"],
                record["data"]["dosage"],
            )
            for record in shown(rows)
        }
        assert told == {1: ("Artemether", "1.5 mg"), 4: ("Paracetamol", "500 mg")}


def test_a_second_dose_is_not_that_of_the_first_drug() -> None:
    rows = [
        obs(1, 10, make.PRESCRIPTION, make.NO_VALUE),
        obs(2, 10, make.DRUG_ORDER, Value("drug", "Artemether"), obs_group_id=1),
        obs(3, 10, make.DRUG_ORDER, Value("drug", "Paracetamol"), obs_group_id=1),
        obs(4, 10, make.DOSAGE, make.number(500), obs_group_id=1),
    ]
    assert [record["data"].get("dosage") for record in shown(rows)] == [None, "500 mg"]


def test_a_blood_pressure_is_one_record() -> None:
    at = {"obs_datetime": "2025-11-06T10:31:00"}
    rows = [
        obs(1, 10, make.SYSTOLIC, make.number(137.7), **at),
        obs(2, 10, make.DIASTOLIC, make.number(92.9), **at),
    ]
    [record] = shown(rows)
    assert (record["data"]["testName"], record["data"]["result"], record["data"]["details"]) == (
        "Blood pressure",
        "137.7/92.9 mmHg",
        "137.7/92.9",
    )
    assert record["openmrsData"]["memberUuids"] == ["obs-1", "obs-2"]
    documents = [mirror.document(row) for row in rows]
    assert documents[0]["related"] == documents[1]["related"] == [documents[0]["moment"]]
    group = obs(3, 10, make.UNKNOWN, make.NO_VALUE)
    grouped = [replace(row, row={**row.row, "obs_group_id": 3}) for row in rows]
    assert [one["data"]["result"] for one in shown([group, *grouped])] == ["137.7/92.9 mmHg"]


@pytest.mark.parametrize(
    "other",
    [
        {"obs_datetime": "2025-11-06T10:32:00"},
        {"encounter_id": 8},
        {"voided": True},
    ],
)
def test_numbers_that_were_not_measured_together_are_no_pressure(other: dict[str, Any]) -> None:
    at = {"obs_datetime": "2025-11-06T10:31:00"}
    upper = obs(1, 10, make.SYSTOLIC, make.number(137.7), **at)
    lower = obs(2, 10, make.DIASTOLIC, make.number(92.9), **at | other)
    assert "Systolic" in [record["data"]["testName"] for record in shown([upper, lower])]


def test_of_two_readings_nobody_knows_which_belong_together() -> None:
    at = {"obs_datetime": "2025-11-06T10:31:00"}
    rows = [obs(key, 10, make.SYSTOLIC, make.number(140 - key), **at) for key in (1, 2)]
    rows.append(obs(3, 10, make.DIASTOLIC, make.number(90), **at))
    assert anchors(rows) == [1, 2, 3]


def test_an_allergy_cannot_be_read_as_an_illness() -> None:
    rows = [
        obs(1, 10, make.ALLERGY, make.NO_VALUE),
        obs(
            2,
            10,
            make.ALLERGEN,
            make.coded(make.concept(40, "Penicillin", cls="Drug")),
            obs_group_id=1,
        ),
        obs(
            3,
            10,
            make.REACTION,
            make.coded(make.concept(41, "Hives", cls="Diagnosis")),
            obs_group_id=1,
        ),
    ]
    [record] = shown(rows)
    assert (record["type"], record["data"]["name"], record["data"]["diagnosis"]) == (
        "condition",
        "Allergy",
        "Allergy: Penicillin",
    )
    assert record["data"]["description"] == "Reaction: Hives"
    assert record["openmrsData"]["kind"] == "allergy"
    [none] = shown([obs(1, 10, make.ALLERGEN, make.coded(make.NONE))])
    assert none["data"]["diagnosis"] == "No known allergies"
    assert none["openmrsData"]["state"] == "none_known"


def test_a_vaccination_is_a_visit_of_its_day() -> None:
    rows = [
        obs(1, 10, make.IMMUNIZATION, make.NO_VALUE),
        obs(2, 10, make.VACCINE, make.coded(make.concept(42, "BCG", cls="Drug")), obs_group_id=1),
        obs(3, 10, make.VACCINATED_ON, Value("date", "2024-02-03"), obs_group_id=1),
        obs(4, 10, make.DOSE_NUMBER, make.number(2), obs_group_id=1),
    ]
    [record] = shown(rows)
    assert (record["type"], record["data"]["reason"], record["data"]["visitDate"]) == (
        "visit",
        "Vaccination: BCG",
        "2024-02-03",
    )
    assert record["data"]["description"] == "Dose number: 2"


def test_a_specimens_time_is_told_with_its_results() -> None:
    taken = make.concept(43, "Specimen collected at", cls="Test", datatype="Datetime")
    rows = [
        obs(1, 10, make.PANEL, make.NO_VALUE),
        obs(2, 10, obs_group_id=1),
        obs(3, 10, taken, Value("datetime", "2025-11-06 14:05:00"), obs_group_id=1),
    ]
    [record] = shown(rows)
    assert record["data"]["description"] == (
        "Blood count; Specimen collected at: 2025-11-06 14:05:00"
    )
    assert record["openmrsData"]["memberUuids"] == ["obs-2", "obs-3"]


def test_what_is_over_is_shown_as_past() -> None:
    [record] = shown([obs(1, 10, make.PAST_HISTORY, make.coded(make.MALARIA))])
    assert (record["data"]["diagnosis"], record["data"]["status"]) == ("Malaria", "Past")
    earlier = obs(1, 10, make.EARLIER_DRUGS, make.coded(make.concept(44, "Nevirapine", cls="Drug")))
    found = projection(earlier)
    assert found.document["data"]["status"] == "Past"
    inserted = changes.change(None, found, (), HOSPITAL, datetime(2026, 1, 1, tzinfo=UTC))
    assert inserted is not None
    assert inserted.write["data"]["medicationStatus"] == "Past"


def test_what_is_asked_by_its_name_is_shown_by_it() -> None:
    asthma = make.concept(45, "Asthma", "CIEL:121375", cls="Diagnosis", datatype="Boolean")
    [record] = shown([obs(1, 10, asthma, Value("boolean", "Yes"))])
    assert record["data"]["diagnosis"] == record["data"]["details"] == "Asthma"
    assert shown([obs(1, 10, asthma, Value("boolean", "No"))]) == []


def test_a_header_in_a_group_keeps_its_own() -> None:
    inner = header(6, obs_group_id=3)
    rows = [header(), malaria(), inner, malaria(7, 6), certainty(8, 6)]
    assert [record["openmrsData"]["memberUuids"] for record in shown(rows)] == [
        ["obs-4"],
        ["obs-7", "obs-8"],
    ]


def test_members_are_reached_through_other_rows() -> None:
    between = obs(6, 10, make.UNKNOWN, make.NO_VALUE, obs_group_id=3)
    assert anchors([header(), between, malaria(4, 6)]) == [3]
    assert anchors(
        [header(), replace(between, row={**between.row, "voided": 1}), malaria(4, 6)]
    ) == [4]


def test_a_panel_is_named_by_its_tests() -> None:
    rows = [obs(1, 10, make.PANEL, make.NO_VALUE), obs(2, 10, obs_group_id=1)]
    assert shown(rows)[0]["data"]["description"] == "Blood count"
    assert (
        "description"
        not in shown([obs(1, 10, make.UNKNOWN, make.NO_VALUE), obs(2, 10, obs_group_id=1)])[0][
            "data"
        ]
    )


def test_what_no_rule_knows_is_shown_as_what_it_is() -> None:
    rows = [obs(1, 10, make.UNKNOWN, make.text("blue")), obs(2, 10, make.UNKNOWN, make.NO_VALUE)]
    [record] = shown(rows)
    own = ("testName", "result", "description")
    assert [record["data"][name] for name in own] == ["Favourite colour", "blue", "Other notes"]
    assert (record["type"], record["openmrsData"]["kind"]) == ("test", "note")
    assert unmapped(rows) == [1], "and it is counted"
    assert shown(rows, parse({"version": 2, "other_notes": False}, MAPPING)) == []


def test_a_header_without_an_author_is_signed_by_its_first_member() -> None:
    other = Author("Paul", "creator", "user/paul")
    [record] = shown([header(author=make.NOBODY), malaria(author=other)])
    assert (record["createdBy"], record["data"]["doctor"]) == ("user of user/paul", "Paul")
    assert "providerUuid" not in record["openmrsData"]
    [nobodys] = shown([obs(1, 10, author=make.NOBODY)])
    assert (nobodys["createdBy"], nobodys["data"]["doctor"]) == ("user of None", "OpenMRS")
    assert nobodys["openmrsData"]["authorSource"] == "none"


def test_a_group_of_tests_states_units() -> None:
    group = {
        "name": "g",
        "type": "test",
        "header": {"names": ["Blood count"]},
        "value": {"names": ["Pulse"]},
    }
    mapping = parse({"version": 1, "groups": [group]})
    rows = [
        obs(1, 10, make.PANEL, make.NO_VALUE),
        obs(2, 10, obs_group_id=1),
        obs(3, 10, obs_group_id=1),
    ]
    [record] = shown(rows, mapping)
    assert (record["data"]["details"], record["data"]["result"]) == (
        "72; 72",
        "72 beats/min; 72 beats/min",
    )


STORY = [
    header(),
    malaria(),
    certainty(),
    obs(6, 10, previous_version=7),
    obs(7, 10, voided=True),
    obs(8, 10, make.PANEL, make.NO_VALUE),
    obs(9, 10, obs_group_id=8),
    obs(10, 10, make.UNKNOWN, make.text("blue"), obs_group_id=3),
    obs(11, 10, previous_version=9, obs_group_id=8),
]


@given(st.permutations(STORY))
def test_the_order_of_rows_does_not_matter(rows: list[Observation]) -> None:
    assert shown(rows) == shown(STORY)


@given(st.sets(st.sampled_from(range(len(STORY)))))
def test_every_live_value_is_in_one_record_or_unmapped(kept: set[int]) -> None:
    rows = [STORY[index] for index in sorted(kept)]
    told = [record["openmrsData"] for record in shown(rows)]
    members = [uuid for one in told for uuid in one.get("memberUuids", [one["obsUuid"]])]
    replaced = {row.row["previous_version"] for row in rows if row.live}
    live = [
        row for row in rows if row.live and row.obs_id not in replaced and row.value.kind != "none"
    ]
    assert len(members) == len(set(members))
    assert {*members, *(f"obs-{number}" for number in unmapped(rows))} == {row.uuid for row in live}


# --- mirror ---


def test_a_tombstone_has_no_values() -> None:
    gone = mirror.document(obs(1, 10, make.CHIEF_COMPLAINT, make.text("secret"), deleted=True))
    assert "secret" not in repr(gone)
    assert "obs-1" not in repr(gone)
    assert (
        mirror.tombstone(
            mirror.document(obs(1, 10, make.CHIEF_COMPLAINT, make.text("secret"))), gone["version"]
        )
        == gone
    )


def test_the_digest_tells_contents_apart_and_not_versions() -> None:
    one, later, other = obs(1, 10), obs(1, 20), obs(1, 10, value=make.number(73))
    digests = [mirror.document(row)["digest"] for row in (one, later, other)]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("value", "reason"), [("x" * 15_000_000, "too_large"), ("\udcff", "invalid")]
)
def test_what_bson_cannot_hold(value: str, reason: str) -> None:
    with pytest.raises(Reject) as rejected:
        mirror.document(obs(1, 10, make.CHIEF_COMPLAINT, make.text(value)))
    assert rejected.value.reason == reason


# --- changes ---


def projection(row: Observation) -> obs_projection.Projected:
    [found] = obs_projection.projected(
        [mirror.document(row)], MAPPING, HOSPITAL, "Kigali Hospital", PATIENT, lambda _: "b" * 24
    )
    return found


def test_nothing_to_do_is_no_change() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    new = projection(obs(1, 10))
    created = changes.change(None, new, (), HOSPITAL, now)
    assert created is not None
    stored = created.write
    assert changes.change(stored, new, (), HOSPITAL, now) is None
    assert (
        changes.change({**stored, "updatedAt": now, "editableBy": ["x"]}, new, (), HOSPITAL, now)
        is None
    )
    assert changes.change(None, None, (), HOSPITAL, now) is None


def test_what_the_hospital_does_not_say_any_more_is_unset() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    created = changes.change(None, projection(obs(1, 10, comments="at rest")), (), HOSPITAL, now)
    assert created is not None
    change = changes.change(created.write, projection(obs(1, 20)), (), HOSPITAL, now)
    assert change is not None
    assert change.write["$unset"] == {"data.notes": ""}
    assert change.seen == {"_id": created.id, "rev": 1, "lastEditedAt": None}


# --- placeholders ---


@pytest.mark.parametrize(
    ("name", "shown_as"),
    [("Jane  Smith", "Jane Smith"), ("J", "OpenMRS J"), ("", "OpenMRS"), ("x" * 80, "x" * 50)],
)
def test_display_names_fit_the_passports_schema(name: str, shown_as: str) -> None:
    assert display_name(name) == shown_as


def test_passwords_are_bcrypt_hashes_that_differ() -> None:
    first, second = unknown_password(), unknown_password()
    assert len(first) == 60
    assert first != second
