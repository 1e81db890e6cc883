"""Acceptance rows 24 to 45: whose an obs is, what it says and who said it. Two hospitals, the real
roles, and the oracle after each row."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from random import Random
from threading import Thread
from typing import Any

import pytest
from bson import ObjectId

from dev import hospital as generator
from dev.hospital import corrections, patients, people
from dev.hospital.people import dashed, spaced
from tests import passport_shapes
from tests.e2e.roles import Role
from tests.e2e.stage import Hospital, Stage, opened
from tests.e2e.topic import applied, end_of, events, obs_of
from tests.e2e.ward import Ward, equal, eventually, new_id

Document = dict[str, Any]


@dataclass
class Set:
    stage: Stage
    kigali: Ward
    huye: Ward
    consumer: Role


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Set]:
    """The same users, providers and concepts by number at both; Huye speaks French, and its zone
    has summer time.
    """
    kind = generator.NATIONAL_ID_TYPE
    kigali = Hospital("kigali", 0, kind, provider_roles=("Clinician",))
    huye = Hospital("huye", 1, kind, locales=("fr", "en"), timezone="Europe/Brussels")
    with opened(tmp_path_factory.mktemp("meaning"), kigali, huye) as stage:
        for hospital in (kigali, huye):
            with hospital.connect() as connection:
                generator.create(connection, seed=61, patients=8, visits=1)
                able = [digits for _, digits in generator.registrable(connection)]
        generator.passport_patients(stage.db, able[::2])
        stage.grant()
        stage.readers()
        consumer = stage.role("consume", "--destination", "passport")
        eventually(lambda: stage.db["progress"].count_documents({}) == 2, "both hospitals came", 40)
        yield Set(stage, Ward(stage, "kigali"), Ward(stage, "huye"), consumer)


# --- whose it is


def test_row_24_the_type_of_the_national_id_is_chosen_by_uuid(scene: Set) -> None:
    """`Old National ID card number` fits LIKE '%National%ID%'; what is in it belongs to somebody
    else.
    """
    ward, digits = scene.kigali, new_id()
    ward.register(digits)
    person = ward.patient("")
    [(other,)] = ward.sql(
        "SELECT patient_identifier_type_id FROM patient_identifier_type WHERE uuid = %s",
        people.OLD_ID_TYPE,
    )
    with ward.work() as work:
        row = {
            "patient_id": person,
            "identifier": digits,
            "identifier_type": other,
            "preferred": 1,
            "location_id": 1,
        }
        work.insert("patient_identifier", {**row, **work.created()})
    ward.obs(person)
    eventually(lambda: ward.state(person) == "none", "the obs came")
    assert ward.records(person) == []
    equal(scene.stage)


def test_row_25_preferred_and_not_voided_identifiers_count_and_two_are_none(scene: Set) -> None:
    ward, digits = scene.kigali, [new_id() for _ in range(4)]
    registered = [ward.register(one) for one in digits]
    person = ward.patient(digits[0])
    ward.identify(person, digits[1], preferred=False)
    obs = ward.obs(person)
    assert ward.shown(obs)["patientId"] == registered[0]
    ward.run(f"UPDATE patient_identifier SET preferred = 0 WHERE patient_id = {person}")
    ward.hidden(obs)
    eventually(lambda: ward.state(person) == "ambiguous", "two ids, none preferred")
    ward.run(f"UPDATE patient_identifier SET voided = 1 WHERE identifier = '{digits[0]}'")
    assert ward.shown(obs)["patientId"] == registered[1]
    twin = ward.patient(digits[1], registered=False)
    ward.obs(twin)
    ward.hidden(obs)
    assert ward.records(twin) == []
    equal(scene.stage)
    ward.run(f"UPDATE patient_identifier SET voided = 1 WHERE patient_id = {twin}")
    ward.shown(obs)
    equal(scene.stage)


def test_row_26_spaces_and_dashes_match_and_bad_ids_are_listed(scene: Set) -> None:
    ward = scene.kigali
    first, second = new_id(), new_id()
    written = [ward.patient(spaced(first)), ward.patient(dashed(second))]
    bad = [
        ward.patient(one, registered=False) for one in ("1199080", "RW/1234", "12345678901234567")
    ]
    for person in (*written, *bad):
        ward.obs(person)
    for person in written:
        eventually(lambda person=person: ward.records(person), "written otherwise, the same")
    for person in bad:
        eventually(lambda person=person: ward.state(person) == "invalid", "a bad id")
    listed = json.loads(scene.stage.run("unmatched", "list", "--json").stdout)
    assert {one["person_id"] for one in listed if one["state"] == "invalid"} >= set(bad)
    equal(scene.stage)


def test_b5_letters_make_an_identifier_invalid(scene: Set) -> None:
    """A baby without a card is written down with its mother's number. The mother is in the Passport
    and comes to this hospital, too.
    """
    ward, number = scene.kigali, new_id()
    mother = ward.patient(number)
    babies = [
        ward.patient(f"{before}{number}{behind}", registered=False)
        for before, behind in (("B/O ", ""), ("bo", ""), ("", " B"), ("", "+"), ("", "é"))
    ]
    cries = [ward.obs(baby, value_numeric=133) for baby in babies]
    pulse = ward.obs(mother)
    for baby in babies:
        eventually(lambda baby=baby: ward.state(baby) == "invalid", "letters are no national id")
    assert ward.shown(pulse)["openmrsData"]["personId"] == mother
    assert [ward.record(cry) for cry in cries] == [None] * len(cries)
    equal(scene.stage)
    # What only separates digits changes nothing.
    ward.run(
        f"UPDATE patient_identifier SET identifier = ' {number[:1]}/{number[1:5]}.{number[5:]} '"
        f" WHERE patient_id = {mother}"
    )
    again = ward.obs(mother)
    ward.shown(again)
    equal(scene.stage)


def test_b5_what_openmrs_would_refuse_is_no_national_id(scene: Set) -> None:
    """The type's format rules out a telephone number, its validator a mistyped digit."""
    ward = scene.kigali
    telephone, good, mistyped = "0788123456", "1199080012345675", "1199080012345678"
    persons = {number: ward.patient(number) for number in (telephone, good, mistyped)}
    for person in persons.values():
        ward.obs(person)
    for number, person in persons.items():
        eventually(lambda person=person: ward.records(person), f"without a format, {number} passes")

    def demand(java_format: str, validator: str) -> None:
        ward.run(
            f"UPDATE patient_identifier_type SET format = '{java_format}',"
            f" validator = '{validator}' WHERE uuid = '{people.NATIONAL_ID_TYPE}'"
        )
        for person in persons.values():
            ward.obs(person)

    demand(r"[0-9]{16}", "")
    eventually(lambda: ward.state(persons[telephone]) == "invalid", "a telephone number")
    equal(scene.stage)
    assert ward.records(persons[telephone]) == []
    assert ward.records(persons[mistyped]) != []
    # Of the ids that others have here, one in ten passes. Both hospitals have the same uuids,
    # so that the oracle can't be asked here.
    demand("", "org.openmrs.patient.impl.LuhnIdentifierValidator")
    eventually(lambda: ward.state(persons[mistyped]) == "invalid", "a wrong check digit")
    eventually(lambda: not ward.records(persons[mistyped]), "its records are gone")
    assert ward.records(persons[good]) != []
    assert ward.records(persons[mistyped]) == []
    demand("", "")
    eventually(lambda: ward.records(persons[telephone]), "the demand is gone")
    equal(scene.stage)


def test_row_27_a_name_matches_nobody(scene: Set) -> None:
    ward = scene.kigali
    known = ward.patient(named="Espérance")
    ward.shown(ward.obs(known))
    namesake = ward.patient("", named="Espérance")
    ward.obs(namesake)
    eventually(lambda: ward.state(namesake) == "none", "the obs came")
    assert len(ward.records(known)) == 1
    assert ward.records(namesake) == []
    equal(scene.stage)


def test_row_28_obs_of_who_is_no_patient_are_attached_to_nobody(scene: Set) -> None:
    """A father's blood group, in his child's encounter."""
    ward, child = scene.kigali, scene.kigali.patient()
    with ward.work() as work:
        father = work.insert("person", {"gender": "M", **work.created()})
    encounter = ward.encounter(child)
    ward.shown(ward.obs(child, encounter_id=encounter))
    ward.obs(father, encounter_id=encounter)
    eventually(lambda: ward.state(father) == "not_patient", "the obs came")
    assert len(ward.records(child)) == 1
    assert (
        scene.stage.db["observations"].count_documents({"hospital": "kigali", "personId": father})
        == 0
    )
    equal(scene.stage)


HOSTILE = 160


def test_hostile_identities_show_nobody_a_record_of_somebody_else(scene: Set) -> None:
    """Ids shared, swapped, voided, restored and merged at random, at both hospitals, of people who
    each have obs. Every record that was ever shown, if only for a moment, was shown to a patient
    whose id its person held."""
    rng, wards = Random(17), (scene.kigali, scene.huye)
    ids = [new_id() for _ in range(6)]
    numbers = {scene.kigali.register(one): one for one in ids[:5]}
    cast: dict[Ward, list[int]] = {ward: [] for ward in wards}
    held: set[tuple[str, int, str]] = set()
    seen: list[tuple[str, int, str]] = []
    with scene.stage.db["medicalrecords"].watch(full_document="updateLookup") as stream:
        for ward in wards:
            for _ in range(6):
                person = ward.patient("")
                cast[ward].append(person)
                ward.obs(person)
                ward.diagnosis(person)
            for person, digits in zip(
                cast[ward][:3], ids, strict=False
            ):  # shown before it begins, whatever is to come
                ward.identify(person, digits)
                held.add((ward.key, person, digits))
                eventually(partial(ward.records, person), "who has an id is shown")
        for _ in range(HOSTILE):
            hostile(rng, rng.choice(wards), cast, ids, held)
        equal(scene.stage, 60)
        while (event := stream.try_next()) is not None:
            put = (event.get("updateDescription") or {}).get("updatedFields") or {}
            document = (event.get("fullDocument") or {}) | put
            told = document.get("openmrsData") or {}
            if document.get("patientId") in numbers and "personId" in told:
                seen.append((told["hospitalId"], told["personId"], numbers[document["patientId"]]))
    assert len(set(seen)) >= 6, "records were shown"
    assert [one for one in seen if one not in held] == []


def hostile(
    rng: Random, ward: Ward, cast: dict[Ward, list[int]], ids: list[str], held: set[Any]
) -> None:
    """One transaction; `held` gets who holds which id after it."""
    person, other = rng.sample(cast[ward], 2)
    own = f"patient_id = {person} AND identifier_type = {ward.known.national_id}"
    digits, seed = rng.choice(ids), rng.randrange(99)
    what = rng.choice(
        ("give", "give", "take", "back", "swap", "obs", "void", "unvoid", "move", "move", "merge")
    )
    if what == "give":
        ward.identify(person, rng.choice((digits, spaced(digits))), preferred=rng.random() < 0.5)
    elif what == "obs":
        ward.obs(person, value_numeric=rng.randrange(50, 120))
    elif what == "merge":
        with suppress(ValueError):  # one of them is voided
            ward.do(patients.merge, person, other)
    else:
        no_patient = (
            "(SELECT MAX(person_id) FROM person WHERE person_id NOT IN (SELECT patient_id"
            " FROM patient))"
        )
        ward.run(
            {
                "take": f"UPDATE patient_identifier SET voided = 1 WHERE {own}"
                f" ORDER BY RAND({seed}) LIMIT 1",
                "back": f"UPDATE patient_identifier SET voided = 0 WHERE {own}",
                "swap": "UPDATE patient_identifier SET patient_id = "
                f"IF(patient_id = {person}, {other}, {person})"
                f" WHERE patient_id IN ({person}, {other})",
                "void": f"UPDATE patient SET voided = 1 WHERE patient_id = {person}",
                "unvoid": f"UPDATE patient SET voided = 0 WHERE patient_id = {person}",
                # A merge in place, as 1.x does: the row's own person changes.
                "move": f"UPDATE obs SET person_id = {rng.choice((str(other), no_patient))}"
                f" WHERE person_id = {person} AND value_numeric > 0 LIMIT 1",
            }[what]
        )
    sql = (
        "SELECT patient_id, REGEXP_REPLACE(identifier, '[^0-9]', '')"
        " FROM patient_identifier WHERE voided = 0"
    )
    held |= {(ward.key, patient, one) for patient, one in ward.sql(sql)}


def test_who_registers_late_has_their_records_in_five_seconds(scene: Set) -> None:
    ward, digits = scene.kigali, new_id()
    person = ward.patient(digits, registered=False)
    for _ in range(5):
        ward.obs(person)
    eventually(lambda: ward.state(person) == "ok", "the obs came")
    assert (
        scene.stage.db["observations"].count_documents({"hospital": "kigali", "personId": person})
        == 0
    )
    ward.register(digits)
    eventually(lambda: len(ward.records(person)) == 5, "records after registration", 5)


# --- who said it, and where


def test_row_29_the_author_is_the_encounters_provider_then_the_orderer_then_the_creator(
    scene: Set,
) -> None:
    ward, person = scene.kigali, scene.kigali.patient()
    assistant, clinician, orderer = ward.known.providers[:3]
    roles = dict(ward.sql("SELECT name, encounter_role_id FROM encounter_role"))
    encounter, without = ward.encounter(person), ward.encounter(person)
    with ward.work() as work:
        for provider, role in ((assistant, "Assistant"), (clinician, "Clinician")):
            row = {
                "encounter_id": encounter,
                "provider_id": provider,
                "encounter_role_id": roles[role],
            }
            work.insert("encounter_provider", {**row, **work.created()})
        order = {
            "order_type_id": 1,
            "concept_id": ward.concept("1019"),
            "orderer": orderer,
            "encounter_id": without,
        }
        order |= {
            "patient_id": person,
            "order_number": f"ORD-{without}",
            "order_action": "NEW",
            "care_setting": 1,
        }
        number = work.insert("orders", {**order, "date_activated": work.now, **work.created()})
    signed = [
        ward.shown(ward.obs(person, encounter_id=encounter, order_id=number))["openmrsData"],
        ward.shown(ward.obs(person, encounter_id=without, order_id=number))["openmrsData"],
        ward.shown(ward.obs(person, encounter_id=without, creator=1))["openmrsData"],
    ]
    assert [one["authorSource"] for one in signed] == ["encounter_provider", "orderer", "creator"]
    uuids = dict(ward.sql("SELECT provider_id, uuid FROM provider"))
    assert [one.get("providerUuid") for one in signed[:2]] == [uuids[clinician], uuids[orderer]]
    equal(scene.stage)
    ward.run(f"UPDATE encounter_provider SET voided = 1 WHERE encounter_id = {encounter}")
    eventually(
        lambda: (
            {one["openmrsData"]["authorSource"] for one in ward.records(person)}
            == {"orderer", "creator"}
        ),
        "the orderer signs once no provider does",
    )
    equal(scene.stage)


def test_row_30_a_doctor_is_the_providers_uuid_within_a_hospital(scene: Set) -> None:
    """Users and providers have the same numbers, and here the same uuids, at both hospitals."""
    signed = []
    for ward in (scene.kigali, scene.huye):
        record = ward.shown(ward.obs(ward.patient(), creator=6))
        assert (
            record["openmrsData"]["providerUuid"]
            == ward.sql("SELECT uuid FROM provider WHERE person_id = 6")[0][0]
        )
        signed.append(record["createdBy"])
    assert signed[0] != signed[1]
    doctors = list(
        scene.stage.db["doctors"].find({"user": {"$in": [ObjectId(one) for one in signed]}})
    )
    assert len({one["hospital"] for one in doctors}) == 2
    assert not [
        one for one in scene.stage.db["doctors"].find() if "PROVIDER_" in one["licenseNumber"]
    ]


def test_row_31_a_name_that_is_not_preferred_is_a_name(scene: Set) -> None:
    ward = scene.kigali
    assert ward.sql("SELECT MAX(preferred) FROM person_name WHERE person_id = 4") == [(0,)]
    record = ward.shown(ward.obs(ward.patient(), creator=4))
    assert record["data"]["doctor"] == "Josée Nyirahabimana"
    equal(scene.stage)


def test_row_32_names_follow_the_hospitals_locales_and_the_chosen_name(scene: Set) -> None:
    for ward, words in (
        (scene.kigali, ("Malaria", "PROBLEM LIST")),
        (scene.huye, ("Paludisme", "LISTE DE PROBLÈMES")),
    ):
        person, answer = ward.patient(), ward.concept("116128")
        with ward.work() as work:
            synonym = {
                "concept_id": answer,
                "name": "Ague",
                "locale": "en",
                "locale_preferred": 0,
                "voided": 0,
            }
            chosen = work.insert("concept_name", {**synonym, **work.created()})
        obs = ward.obs(person, "1284", value_coded=answer, value_coded_name_id=chosen)
        assert ward.shown(obs)["data"]["details"] == "Ague"
        with ward.work() as work:  # an edit loses the chosen name
            row = work.row(obs)
            newer = work.amend([row], lambda _: {"comments": "again"}, "edited")[obs]
        data = ward.shown(newer)["data"]
        assert (data["details"], data["name"]) == words
        ward.run(f"UPDATE concept_name SET voided = 1 WHERE concept_name_id = {chosen}")
        equal(scene.stage)


# --- what it says

SAYS: dict[str, tuple[str, Document, str]] = {
    "numeric with units": ("5088", {"value_numeric": 36.6}, "36.6 DEG C"),
    "a modifier": ("21", {"value_numeric": 5, "value_modifier": "<"}, "<5 g/dL"),
    "coded": ("32", {"value_coded": "703"}, "Positive"),
    "drug": (
        "1282",
        {"value_coded": "70116", "value_drug": "paracetamol"},
        "Paracetamol 500mg tablet",
    ),
    "text": ("160531", {"value_text": "Toux, fièvre ✓"}, "Toux, fièvre ✓"),
    "date": ("5096", {"value_datetime": "2025-04-01 00:00:00"}, "2025-04-01"),
    "boolean": ("832", {"value_coded": "true"}, "True"),
    "complex": ("attachment", {"value_complex": "scan.png|m3ks"}, "scan.png"),
}


def test_row_33_every_datatype_says_what_was_written(scene: Set) -> None:
    """What makes no record here (when a specimen was taken) says it in the mirror.

    tests/unit/test_enrich.py has time and 1.x.
    """
    ward, person = scene.kigali, scene.kigali.patient()
    for what, (concept, value, words) in SAYS.items():
        columns = dict(value)
        if "value_coded" in columns:
            columns["value_coded"] = ward.concept(columns["value_coded"])
        if "value_drug" in columns:
            columns["value_drug"] = ward.known.dictionary.drugs[columns["value_drug"]]
        data = ward.shown(ward.obs(person, concept, **columns))["data"]
        assert data.get("result", data["details"]) == words, what
    taken = ward.obs(person, "collected", value_datetime="2025-03-04 09:30:00")
    mirror = scene.stage.db["observations"]
    eventually(lambda: mirror.find_one({"_id": f"kigali/{taken}"}), "the row is in the mirror")
    value = mirror.find_one({"_id": f"kigali/{taken}"})["value"]  # type: ignore[index]
    assert (value["kind"], value["text"]) == ("datetime", "2025-03-04 09:30:00")
    equal(scene.stage)


def test_hours_that_come_twice_or_never_have_one_instant(scene: Set) -> None:
    """Of the hour that autumn repeats the first; in the one that spring leaves out, the offset
    before it.
    """
    ward, person = scene.huye, scene.huye.patient()
    for written, at in (
        ("2025-10-26 02:30:00", datetime(2025, 10, 26, 0, 30, tzinfo=UTC)),
        ("2025-03-30 02:30:00", datetime(2025, 3, 30, 1, 30, tzinfo=UTC)),
    ):
        record = ward.shown(ward.obs(person, obs_datetime=written, date_created=written))
        assert record["data"]["date"] == written.replace(" ", "T"), "as it was written"
        assert record["openmrsData"]["obsDatetime"] == record["createdAt"] == at
    equal(scene.stage)


def test_row_34_a_diagnosis_is_one_condition_whatever_comes_first(scene: Set) -> None:
    ward, person = scene.kigali, scene.kigali.patient()
    header, diagnosis, certainty, _ = ward.diagnosis(person)
    record = ward.shown(
        header, status="Presumed diagnosis", description="Primary", diagnosis="Malaria"
    )
    assert (record["type"], len(ward.records(person))) == ("condition", 1)
    with ward.work() as work:
        row = work.row(certainty)
        work.amend([row], lambda _: {"value_coded": ward.concept("159392")}, "confirmed")
    ward.shown(header, status="Confirmed diagnosis")
    ward.do(corrections.void, diagnosis)
    ward.hidden(header)
    ward.do(corrections.unvoid, diagnosis)
    assert ward.shown(header)["_id"] == record["_id"]
    # Members first, in transactions of their own; the header then takes them in.
    ward.run("SET SESSION foreign_key_checks = 0")
    late = ward.obs(
        person, "1284", value_coded=ward.concept("117399"), obs_id=9_100_002, obs_group_id=9_100_001
    )
    ward.obs(
        person,
        "159394",
        value_coded=ward.concept("159392"),
        obs_id=9_100_003,
        obs_group_id=9_100_001,
    )
    ward.shown(late)
    with ward.work() as work:
        top = {"obs_id": 9_100_001, "person_id": person, "concept_id": ward.concept("159947")}
        work.insert_obs({**work.created(), **top, "obs_datetime": "2025-03-04 10:05:00"})
    ward.shown(9_100_001, diagnosis="Hypertension", status="Confirmed diagnosis")
    ward.hidden(late)
    ward.run("SET SESSION foreign_key_checks = 1")
    equal(scene.stage)


COUNTED = ("encounter_diagnosis", "conditions", "allergy")


def test_row_36_what_is_kept_outside_obs_is_reported(scene: Set) -> None:
    """Each table with what it holds, once its account may count it; until then that it may hold
    something.
    """
    ward, person = scene.kigali, scene.kigali.patient()
    encounter, answer = ward.encounter(person), ward.concept("116128")
    assert {outside(scene)[table] for table in COUNTED} == {
        (None, "may have rows, which are not carried yet")
    }
    granted = scene.stage.granted(ward.hospital)
    ward.hospital.sql.execute(
        *(line.removeprefix("-- ") for line in granted if line.startswith("-- GRANT"))
    )
    ward.run("DELETE FROM conditions")
    assert outside(scene)["conditions"] == (True, "no rows")
    with ward.work() as work:
        of = {"patient_id": person, **work.created()}
        work.insert("conditions", {**of, "condition_coded": answer, "clinical_status": "ACTIVE"})
        work.insert("allergy", {**of, "coded_allergen": answer, "allergen_type": "DRUG"})
        diagnosis = {
            "encounter_id": encounter,
            "diagnosis_coded": answer,
            "certainty": "CONFIRMED",
            "dx_rank": 1,
        }
        work.insert("encounter_diagnosis", {**of, **diagnosis})
        order = {
            "order_type_id": 1,
            "concept_id": answer,
            "orderer": ward.known.providers[0],
            "care_setting": 1,
        }
        order |= {
            "encounter_id": encounter,
            "order_number": f"ORD-{encounter}",
            "order_action": "NEW",
        }
        work.insert("orders", {**of, **order, "date_activated": work.now})
    counts = {
        table: ward.sql(f"SELECT COUNT(*) FROM {table}")[0][0] for table in (*COUNTED, "orders")
    }
    assert outside(scene) == {
        table: (None, f"{count} rows, not carried yet") for table, count in counts.items()
    }


def outside(scene: Set) -> dict[str, tuple[Any, str]]:
    """What `check` says of each table that is not carried."""
    found = json.loads(scene.stage.run("check", "--hospital", "kigali", "--json").stdout)
    begins = "kigali: not carried: "
    told = [one for one in found if one["name"].startswith(begins)]
    return {
        one["name"].removeprefix(begins): (one["ok"], one["detail"].partition(":")[0])
        for one in told
    }


def test_row_37_status_interpretation_and_comments_are_carried(scene: Set) -> None:
    ward, person = scene.kigali, scene.kigali.patient()
    said = {
        "status": "PRELIMINARY",
        "interpretation": "CRITICALLY_HIGH",
        "comments": "called the ward",
    }
    obs = ward.obs(person, "21", value_numeric=3.2, **said)
    record = ward.shown(obs)
    data, openmrs = record["data"], record["openmrsData"]
    assert (data["status"], data["testStatus"], data["notes"]) == (
        "PRELIMINARY",
        "Critical",
        "called the ward",
    )
    assert (openmrs["status"], openmrs["interpretation"]) == ("PRELIMINARY", "CRITICALLY_HIGH")
    with ward.work() as work:
        row = work.row(obs)
        newer = work.amend(
            [row], lambda _: {"status": "AMENDED", "interpretation": "NORMAL"}, "again"
        )[obs]
    assert ward.shown(newer, status="AMENDED", testStatus="Normal")["_id"] == record["_id"]
    assert "testStatus" not in ward.shown(ward.obs(person))["data"], "nothing was said of it"
    equal(scene.stage)


def test_row_38_the_place_is_the_obs_own_then_the_encounters_then_the_visits(scene: Set) -> None:
    ward, person = scene.kigali, scene.kigali.patient()
    places = ward.known.locations[:3]
    with ward.work() as work:
        stamp = {
            "visit_type_id": ward.known.visit_types[0],
            "date_started": "2025-03-04 08:00:00",
            **work.created(),
        }
        visit = work.insert("visit", {"patient_id": person, "location_id": places[2], **stamp})
    somewhere, nowhere = (
        ward.encounter(person, location_id=places[1]),
        ward.encounter(person, location_id=None, visit_id=visit),
    )
    chosen = [
        ward.obs(person, encounter_id=somewhere, location_id=places[0]),
        ward.obs(person, encounter_id=somewhere),
        ward.obs(person, encounter_id=nowhere),
    ]
    names = dict(ward.sql("SELECT location_id, name FROM location"))
    told = [ward.shown(obs)["openmrsData"]["locationName"] for obs in chosen]
    assert told == [names[place] for place in places]
    ward.run(f"UPDATE location SET name = 'Renamed ward' WHERE location_id = {places[2]}")
    eventually(
        lambda: ward.record(chosen[2])["openmrsData"]["locationName"] == "Renamed ward",  # type: ignore[index]
        "the visit's place has a new name",
    )
    equal(scene.stage)


def test_row_39_what_is_renamed_moved_and_corrected_reaches_what_is_stored(scene: Set) -> None:
    ward, digits = scene.kigali, new_id()
    person, patient = (
        ward.patient(digits),
        scene.stage.db["patients"].find_one({"nationalId": digits}),
    )
    assert patient is not None
    encounter = ward.encounter(person)
    obs = ward.obs(person, "729", encounter_id=encounter, creator=6, value_numeric=200)
    signed = ward.shown(obs)
    ward.run(
        "UPDATE concept_name SET name = 'Thrombocytes'"
        f" WHERE concept_id = {ward.concept('729')} AND locale LIKE 'en%'"
    )
    ward.shown(obs, testName="Thrombocytes")
    ward.run("UPDATE person_name SET family_name = 'Married' WHERE person_id = 6")
    ward.shown(obs, doctor=signed["data"]["doctor"].split(" ")[0] + " Married")
    ward.run(
        f"UPDATE concept_numeric SET units = '10^9/L' WHERE concept_id = {ward.concept('729')}"
    )
    ward.shown(obs, result="200 10^9/L")
    ward.run(
        f"UPDATE encounter SET location_id = {ward.known.locations[3]}"
        f" WHERE encounter_id = {encounter}"
    )
    [(name,)] = ward.sql(
        "SELECT name FROM location WHERE location_id = %s", ward.known.locations[3]
    )
    eventually(
        lambda: ward.record(obs)["openmrsData"]["locationName"] == name, "the encounter moved"
    )  # type: ignore[index]
    corrected = new_id()
    new = ward.register(corrected)
    ward.run(
        f"UPDATE patient_identifier SET identifier = '{corrected}' WHERE patient_id = {person}"
    )
    eventually(lambda: ward.record(obs)["patientId"] == new, "the record moved")  # type: ignore[index]
    assert ward.record(obs)["_id"] == signed["_id"]  # type: ignore[index]
    assert scene.stage.db["medicalrecords"].count_documents({"patientId": str(patient["_id"])}) == 0
    equal(scene.stage)


def test_row_40_the_events_own_image_decides_the_value(scene: Set) -> None:
    """The table says something else (written without the binlog) before the event is applied:
    nothing is read back.
    """
    ward, person = scene.kigali, scene.kigali.patient()
    ward.shown(ward.obs(person))
    applied(scene.stage, "kigali")  # a new person is read whole, which must not be left for later
    eventually(
        lambda: not scene.stage.db["people"].count_documents({"pending": {"$exists": True}}),
        "nobody waits",
    )
    assert scene.consumer.stop() == 0
    obs = ward.obs(person, value_numeric=61)
    unlogged(ward, f"UPDATE obs SET value_numeric = 99, voided = 1 WHERE obs_id = {obs}")
    scene.consumer.start()
    assert ward.shown(obs)["data"]["details"] == "61"
    unlogged(ward, f"UPDATE obs SET value_numeric = 61, voided = 0 WHERE obs_id = {obs}")
    equal(scene.stage)


def test_row_40_a_name_is_never_older_than_the_event_that_needed_it(scene: Set) -> None:
    """A server that waits for a replica (semi-synchronous, AFTER_SYNC) sends its binlog before the
    commit can be seen: the event is in the topic while its own name, changed with it, isn't visible
    yet."""
    stage, ward, person = scene.stage, scene.kigali, scene.kigali.patient()
    ward.shown(ward.obs(person, "678"))
    first, name, key = end_of(stage, 0), "Leucocytes", 9_400_001
    slow = ("timeout = 3000", "wait_point = 'AFTER_SYNC'", "enabled = ON")
    ward.hospital.sql.execute(*(f"SET GLOBAL rpl_semi_sync_master_{one}" for one in slow))
    names = f"UPDATE concept_name SET name = '{name}' WHERE concept_id = {ward.concept('678')}"
    obs = (
        "INSERT INTO obs (obs_id, person_id, concept_id, obs_datetime, value_numeric,"
        " creator, date_created, uuid)"
    )
    obs += f" VALUES ({key}, {person}, {ward.concept('678')}, NOW(), 7, 1, NOW(), UUID())"
    committing = Thread(target=ward.run, args=(names, obs))
    committing.start()
    try:
        eventually(
            lambda: any(obs_of(one) == key for one in events(stage, 0, first)),
            "the event is in the topic",
        )
        with ward.hospital.connect(autocommit=True) as other, other.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM obs WHERE obs_id = %s", (key,))
            assert cursor.fetchall() == ((0,),), "and its row is not visible"
        assert committing.is_alive()
        assert ward.shown(key)["data"]["testName"] == name, "as it was first shown"
    finally:
        committing.join()
        ward.hospital.sql.execute("SET GLOBAL rpl_semi_sync_master_enabled = OFF")
    equal(stage)


def unlogged(ward: Ward, statement: str) -> None:
    with ward.hospital.connect(autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("SET SESSION sql_log_bin = 0")
        cursor.execute(statement)


# --- the Passport's own shapes


def test_row_44_placeholders_cannot_sign_in(scene: Set) -> None:
    equal(scene.stage)
    ours = list(scene.stage.db["users"].find({"email": {"$regex": "^openmrs\\."}}))
    assert len(ours) > 4
    for user in ours:
        assert (user["isActive"], user["isEmailVerified"]) == (False, False)
        assert re.fullmatch(r"\$2b\$12\$[./A-Za-z0-9]{53}", user["password"]), (
            "a hash, made of nothing but chance"
        )
    assert (
        len({user["password"] for user in ours})
        == len({user["email"] for user in ours})
        == len(ours)
    )


def test_row_45_every_document_passes_the_passports_own_schemas(scene: Set) -> None:
    ward, obs = scene.kigali, scene.kigali.obs(scene.kigali.patient())
    ward.shown(obs)
    ward.do(corrections.edit, obs)
    ward.shown(newest := ward.newest(obs))
    ward.do(corrections.void, newest)
    ward.hidden(newest)
    equal(scene.stage)
    assert passport_shapes.check(scene.stage.db) > 50
    audited = scene.stage.db["auditlogs"].distinct("action")
    assert set(audited) == {"create", "update", "delete"}
