"""Somebody leaves the Passport and is erased: no collection holds anything of them, others'
documents are as before.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bson
import pytest
from bson import ObjectId
from kafka import KafkaAdminClient, TopicPartition
from pymongo import MongoClient

from destinations.mongo.people import hashed
from dev import hospital as generator
from dev.hospital import corrections, patients
from tests.e2e.roles import REPOSITORY, command, environment
from tests.e2e.stage import BOOKKEEPING, LINK_KEY, Hospital, Stage, opened
from tests.e2e.topic import TOPIC, applied, raw, send
from tests.e2e.ward import Ward, eventually, new_id

LETTERS = "openmrs.changes.dead-letters"
NUMBER, DAY = 98765.4321, datetime(1911, 3, 7, 4, 5, 6, tzinfo=UTC)
TEXTS = (
    "zxtextzx",
    "zxcommentzx",
    "zxcomplexzx",
    "zxmodifiedzx",
    "zxdoctorzx",
    "zxletterzx",
    "zxlaterzx",
)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    hospitals = [
        Hospital(key, number, generator.NATIONAL_ID_TYPE)
        for number, key in enumerate(("kigali", "huye"))
    ]
    with opened(tmp_path, *hospitals) as stage:
        for number, hospital in enumerate(hospitals):
            stage.fill(
                hospital,
                every=2,
                seed=71 + number,
                patients=8,
                visits=2,
                obs_id_start=1 + number * 500,
            )
        stage.grant()
        stage.readers()
        stage.role("consume", "--destination", "passport")
        yield stage


@dataclass
class Needles:
    """What must not be found: parts of texts, and values as they are."""

    texts: set[str] = field(default_factory=set)
    values: set[Any] = field(default_factory=set)

    def within(self, thing: Any, place: str = "") -> Iterator[str]:
        """Where they are in a document, keys included."""
        if isinstance(thing, dict):
            for name, value in thing.items():
                yield from self.within(name, f"{place}.{name} (name)")
                yield from self.within(value, f"{place}.{name}")
        elif isinstance(thing, list):
            for one in thing:
                yield from self.within(one, f"{place}[]")
        elif isinstance(thing, str | bytes | ObjectId):
            text = (thing if isinstance(thing, bytes) else str(thing).encode()).lower()
            if any(needle.lower().encode() in text for needle in self.texts):
                yield place
        elif thing in self.values:
            yield place


def everywhere(stage: Stage, needles: Needles) -> list[str]:
    """In every collection of every database, but for the oplog, which runs out by itself."""
    found = []
    for name in stage.client.list_database_names():
        for collection in stage.client[name].list_collection_names():
            if collection != "oplog.rs":
                for document in stage.client[name][collection].find():
                    found += [f"{name}.{collection}{place}" for place in needles.within(document)]
    return found


def documents(stage: Stage) -> dict[str, bytes]:
    """Byte by byte, but for what moves by itself."""
    with MongoClient(stage.mongo.url, document_class=bson.raw_bson.RawBSONDocument) as client:
        database = client[stage.db.name]
        names = [one for one in database.list_collection_names() if one not in BOOKKEEPING]
        return {f"{name}/{one['_id']}": one.raw for name in names for one in database[name].find()}


def letters(stage: Stage) -> list[Any]:
    """All that can be read of the topic of dead letters."""
    return raw(stage, 0, topic=LETTERS)


def erase(stage: Stage, written: str, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(stage.config, "erase", *words),
        cwd=REPOSITORY,
        env=environment(),
        capture_output=True,
        text=True,
        input=written,
        timeout=120,
        check=False,
    )


def parked(stage: Stage, ward: Ward, obs: int, text: str) -> None:
    """A row event of this obs, of an envelope that nobody knows."""
    partition = ward.hospital.partition
    known = next(one for one in raw(stage, partition) if f'"obs_id":{obs},'.encode() in one.value)
    value = known.value.replace(b'{"v":1,', b'{"v":0,')
    value = re.sub(rb'"comments":(null|"[^"]*")', f'"comments":"{text}"'.encode(), value)
    assert text.encode() in value
    before = len(letters(stage))
    send(
        stage,
        [SimpleNamespace(value=value, key=known.key, headers=known.headers, partition=partition)],
    )
    eventually(lambda: len(letters(stage)) > before, "it is parked")


def uuids(ward: Ward, person: int) -> set[str]:
    ward.connection.rollback()
    return {one for (one,) in ward.sql("SELECT uuid FROM obs WHERE person_id = %s", person)}


def test_a_person_is_erased(stage: Stage) -> None:
    kigali, huye, national_id = Ward(stage, "kigali"), Ward(stage, "huye"), new_id()
    person, there = kigali.patient(national_id, named="Zxnamezx"), huye.patient(national_id)
    account = ObjectId(kigali.register(national_id))
    other = kigali.patient()
    edited, purged = filled(kigali, person)
    beside = kigali.obs(other)
    kigali.shown(beside)
    conflicting(kigali, edited)
    joined = kigali.patient()  # with an account of their own: of one who was registered twice
    theirs = kigali.obs(joined, value_numeric=61)
    kigali.shown(theirs)
    kigali.do(patients.merge, person, joined)
    kigali.shown(kigali.newest(theirs))
    moved, winner = huye.obs(there), huye.patient()  # and the other way round
    huye.shown(moved)
    huye.do(patients.merge, winner, there)
    huye.shown(huye.newest(moved))
    parked(stage, kigali, beside, "stays")
    parked(stage, kigali, edited, "zxletterzx")
    number = national_id
    needles = Needles(
        {*TEXTS, "zxnamezx", number, str(account), hashed(LINK_KEY.encode(), number)}, {NUMBER, DAY}
    )
    needles.texts |= uuids(kigali, person) | uuids(huye, there)
    shown = {
        str(one["_id"]) for one in stage.db["medicalrecords"].find({"patientId": str(account)})
    }
    [(uuid,)] = kigali.sql("SELECT uuid FROM obs WHERE obs_id = %s", purged)
    needles.texts |= (
        shown
        | {uuid}
        | {
            str(one[0])
            for one in kigali.sql("SELECT uuid FROM person WHERE person_id = %s", person)
        }
    )
    assert len(shown) > 8
    kigali.do(corrections.purge, purged)
    kigali.hidden(purged)
    hits = everywhere(stage, needles)
    collections = {"people", "observations", "medicalrecords", "auditlogs", "patients"}
    assert {one.split(".")[1] for one in hits} >= collections, (
        "the search finds them where they are"
    )
    assert any(list(needles.within(one.value)) for one in letters(stage))

    refused = erase(stage, national_id)
    assert refused.returncode == 1
    assert "delete the account in the Passport" in refused.stderr
    leave(stage, account, national_id)
    before = documents(stage)
    assert everywhere(stage, needles), "hashes, tombstones and the trail are left"
    counted, again = (
        erase(stage, f"{national_id[:1]}-{national_id[1:]}\n", "--dry-run", "--json"),
        documents(stage),
    )
    assert again == before
    done = erase(stage, national_id, "--json")
    assert (done.returncode, done.stdout) == (0, counted.stdout), done.stderr
    after, counts = documents(stage), json.loads(done.stdout)
    assert everywhere(stage, needles) == []
    assert all(before[key] == text for key, text in after.items()), (
        "others' documents are byte for byte the same"
    )
    assert counts["dead letters"] == 1
    assert counts["people"] == 2
    assert counts["records"] > 8
    assert len(before) - len(after) == sum(counts.values()) - 1
    left = letters(stage)
    assert not any(list(needles.within(one.value)) for one in left)
    assert [b"stays" in one.value for one in left] == [True], "the other's letter is there"
    assert stage.run("verify").returncode == 0
    shortened(stage)

    kigali.do(corrections.edit, kigali.newest(edited))
    kigali.run(f"UPDATE obs SET comments = 'zxlaterzx' WHERE obs_id = {kigali.newest(edited)}")
    applied(stage, "kigali")
    needles.texts |= uuids(kigali, person)
    assert everywhere(stage, needles) == ["passport.people.idHash"], (
        "as of everybody who is not registered"
    )
    assert stage.run("verify").returncode == 0
    said = "".join(
        [
            *(role.said() for role in stage.roles),
            done.stdout,
            done.stderr,
            refused.stderr,
            counted.stderr,
        ]
    )
    assert list(needles.within(said)) == []
    kigali.register(national_id)
    kigali.shown(kigali.newest(edited))
    stage.wait_equal(90)
    assert "gap" not in "".join(role.said() for role in stage.roles)
    refusals(stage)


def refusals(stage: Stage) -> None:
    """By exit code, and what to do; no number that was typed is said again."""
    assert erase(stage, new_id()).stdout == "nothing to do\n"
    wrong = erase(stage, "123456789")
    assert (wrong.returncode, "10 to 16 digits" in wrong.stderr, "123456789" in wrong.stderr) == (
        2,
        True,
        False,
    )
    stage.hospitals["huye"].sql.kill()
    away = erase(stage, new_id())
    assert away.returncode == 3
    assert "hospital huye" in away.stderr


def shortened(stage: Stage) -> None:
    """The topic of changes, to what is still to be applied: as kafka-delete-records.sh does."""
    at = {}
    for key, hospital in stage.hospitals.items():
        applied(stage, key)
        at[TopicPartition(TOPIC, hospital.partition)] = (
            stage.db["progress"].find_one({"_id": key}) or {}
        )["offset"]
    admin = KafkaAdminClient(bootstrap_servers=stage.kafka.url)
    admin.delete_records({place: int(offset) for place, offset in at.items()})
    admin.close()


def filled(ward: Ward, person: int) -> tuple[int, int]:
    """Values of every datatype; two of the obs."""
    visit = ward.encounter(person)
    text = ward.obs(person, value_text="zxtextzx", comments="zxcommentzx", encounter_id=visit)
    rows = [
        text,
        ward.obs(person, value_numeric=NUMBER),
        ward.obs(person, value_numeric=5, value_modifier="<"),
        ward.obs(person, value_datetime=DAY.replace(tzinfo=None)),
        ward.obs(person, value_complex="zxcomplexzx|file.png"),
        ward.obs(person, value_coded=ward.concept("116128")),
        ward.obs(person, value_drug=min(one for (one,) in ward.sql("SELECT drug_id FROM drug"))),
        ward.obs(person, value_text="zxmodifiedzx"),
        ward.diagnosis(person)[0],
    ]
    for obs in rows:
        ward.shown(obs)
    ward.do(corrections.void, rows[2])
    ward.hidden(rows[2])
    return text, rows[7]


def conflicting(ward: Ward, obs: int) -> None:
    """A doctor edits the record, then the hospital the obs."""
    records = ward.stage.db["medicalrecords"]
    key = ward.shown(obs)["_id"]
    edit = {"data.notes": "zxdoctorzx", "lastEditedAt": datetime.now(UTC) + timedelta(seconds=1)}
    records.update_one({"_id": key}, {"$set": edit})
    ward.run(f"UPDATE obs SET value_text = 'zxtextzx, corrected' WHERE obs_id = {obs}")
    eventually(
        lambda: records.find_one({"_id": key, "openmrsData.pending": {"$exists": True}}),
        "a conflict",
    )


def leave(stage: Stage, account: ObjectId, national_id: str) -> None:
    """As the Passport does; until the consumers have seen it."""
    [found] = stage.db["patients"].find({"_id": account})
    stage.db["patients"].delete_one({"_id": account})
    stage.db["users"].delete_one({"_id": found["user"]})
    of = {"idHash": hashed(LINK_KEY.encode(), national_id)}
    undone = {"$or": [{"patientId": {"$ne": None}}, {"pending": {"$exists": True}}]}
    eventually(lambda: not stage.db["people"].count_documents(of | undone), "the link has ended")
    eventually(
        lambda: not stage.db["medicalrecords"].count_documents({"patientId": str(account)}),
        "records are empty",
    )
