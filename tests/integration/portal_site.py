"""A Passport with a few people in it, and the portal that serves it on a port of its own."""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import bcrypt
import httpx
import jwt
from bson import ObjectId
from pymongo import ASCENDING, DESCENDING, MongoClient
from pymongo.database import Database
from pymongo.monitoring import CommandListener

from dev.hospital.registration import documents
from passport.settings import Hospital, MySQL, Operators, Portal
from portal.app import create
from portal.server import listening, serve
from tests.servers import fresh_name

Document = dict[str, Any]
Mongo = Database[Document]

SECRET = "the Passport's JWT_SECRET, of the tests alone: long enough for HS512, too"
PASSWORD = "a good password"
HASHED = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
OPERATORS_PASSWORD = "an operator's password"
HOSPITAL = Hospital(
    name="Kigali University Hospital",
    partition=0,
    timezone="Africa/Kigali",
    national_id_type="6f4ac1d2-7c35-4f0b-9c1e-2b8f0a1d1001",
    mysql=MySQL(host="127.0.0.1", user="nobody"),
)
ANNA, BORIS = "1199080012345678", "1198570098765432"
SECRET_OF_BORIS = "Secret of Boris"
AUTHOR = ObjectId("0" * 23 + "a")
_FIELDS = {
    "condition": lambda title, value: {
        "name": "PROBLEM LIST",
        "details": title,
        "diagnosis": title,
    },
    "medication": lambda title, value: {
        "name": "Medication orders",
        "details": title,
        "medicationName": title,
    },
    "test": lambda title, value: {
        "name": title,
        "testName": title,
        "details": value,
        "result": value,
    },
    "visit": lambda title, value: {"name": "Reason for visit", "details": title, "reason": title},
}


def user_id(national_id: str) -> ObjectId:
    found: ObjectId = documents(national_id)[0]["_id"]
    return found


def patient_id(national_id: str) -> str:
    return str(documents(national_id)[1]["_id"])


def register(db: Mongo, *national_ids: str) -> None:
    """Insert active users, whose password is PASSWORD, and patients."""
    for national_id in national_ids:
        user, patient = documents(national_id)
        db.users.replace_one({"_id": user["_id"]}, user | {"password": HASHED}, upsert=True)
        db.patients.replace_one({"_id": patient["_id"]}, patient, upsert=True)
        link = {"hospital": "kigali", "patientId": str(patient["_id"]), "state": "ok"}
        db.people.replace_one({"_id": f"kigali/{national_id}"}, link, upsert=True)


def record(
    patient: str, type_: str, title: str, when: str, value: str = "", **more: Any
) -> Document:
    """Return a record of the mongo sink. `more` goes into data, `origin` into openmrsData."""
    origin = {"hospitalId": "kigali", "locationName": "Outpatient Clinic", **more.pop("origin", {})}
    at = datetime.fromisoformat(when).replace(tzinfo=UTC)
    data = {
        "date": when,
        "doctor": "Dr. Jane Smith",
        "hospital": HOSPITAL.name,
        **_FIELDS[type_](title, value),
        **more,
    }
    stamps = {"createdAt": at, "updatedAt": at, "syncDate": at}
    who = {"patientId": patient, "createdBy": str(AUTHOR), "editableBy": []}
    return {
        "_id": ObjectId(),
        "type": type_,
        "data": data,
        "openmrsData": origin,
        "rev": 1,
        **who,
        **stamps,
    }


def void(db: Mongo, key: ObjectId) -> None:
    """Hide a record as the mongo sink does."""
    gone = {
        "patientId": "",
        "data": {},
        "openmrsData": {"hospitalId": "kigali"},
        "removedAt": datetime.now(UTC),
    }
    db.medicalrecords.update_one({"_id": key}, {"$set": gone, "$inc": {"rev": 1}})


def annas() -> list[Document]:
    """Return a visit with something of each type, and a test that was made four times."""
    anna, visit, day = patient_id(ANNA), {"encounterUuid": "e-1"}, "2025-11-06T10"
    prescription = {
        "dosage": "2 tablets",
        "frequency": "Twice daily",
        "startDate": f"{day}:40:00",
        "origin": visit,
    }
    smear = {"testStatus": "Abnormal", "origin": {"interpretation": "ABNORMAL", **visit}}
    return [
        record(
            anna, "condition", "Malaria", f"{day}:30:00", status="Confirmed diagnosis", origin=visit
        ),
        record(anna, "visit", "Fever since three days", f"{day}:10:00", origin=visit),
        record(anna, "medication", "Artemether 20 mg", f"{day}:40:00", **prescription),
        record(anna, "test", "Malarial smear", f"{day}:20:00", "Positive", **smear),
        *(haemoglobin(anna, *one) for one in HAEMOGLOBIN),
    ]


HAEMOGLOBIN = (
    ("2025-03-06", 9.8, "CRITICALLY_LOW"),
    ("2025-05-06", 10.6, "LOW"),
    ("2025-08-06", 11.4, "NORMAL"),
    ("2025-11-06", 12.1, "NORMAL"),
)


def haemoglobin(patient: str, day: str, value: float, flag: str) -> Document:
    found = {"description": "Complete blood count", "origin": {"interpretation": flag}}
    return record(patient, "test", "Haemoglobin", f"{day}T09:15:00", f"{value} g/dL", **found)


def fill(db: Mongo) -> None:
    """Two patients. Anna has something of each kind, and a test that was made several times; Boris
    one secret.
    """
    db.medicalrecords.create_index(
        [("patientId", ASCENDING), ("data.date", DESCENDING), ("_id", DESCENDING)]
    )
    db.users.insert_one(
        {"_id": AUTHOR, "name": "Dr. Jane Smith", "role": "doctor", "isActive": False}
    )
    register(db, ANNA, BORIS)
    db.medicalrecords.insert_many(
        [*annas(), record(patient_id(BORIS), "condition", SECRET_OF_BORIS, "2025-10-01T08:00:00")]
    )
    db.progress.insert_one(
        {"_id": "kigali", "at_ms": datetime.now(UTC).timestamp() * 1000, "offset": 7, "version": ""}
    )


def token(
    national_id: str = ANNA, key: str = SECRET, algorithm: str = "HS256", **claims: Any
) -> str:
    """Return a token of the Passport. `claims` replace its own ones, or remove them if None."""
    whole = {
        "userId": str(user_id(national_id)),
        "exp": datetime.now(UTC) + timedelta(hours=1),
        **claims,
    }
    kept = {name: value for name, value in whole.items() if value is not None}
    return jwt.encode(kept, key, algorithm=algorithm)


def bearer(national_id: str = ANNA) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(national_id)}"}


@dataclass
class Site:
    """A running portal."""

    url: str
    db: Mongo
    app: Any
    rows: list[Document] = field(default_factory=list)

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, **options)

    def signed_in(self, national_id: str = ANNA, **headers: str) -> httpx.Client:
        """Return a browser without JavaScript that has signed in."""
        client = self.client(headers={"Accept": "text/html", **headers}, follow_redirects=True)
        answer = client.post("/sign-in", data={"identifier": national_id, "password": PASSWORD})
        assert answer.status_code == 200, answer.text
        return client


def settings(**changes: Any) -> Portal:
    hashed = bcrypt.hashpw(OPERATORS_PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    operators = Operators(password_hash=hashed, sample_s=1)
    return Portal(
        **{"jwt_secret": SECRET, "https": False, "port": 0, "operators": operators, **changes}
    )


@contextlib.contextmanager
def running(db: Mongo, rows: Sequence[Document] = (), **changes: Any) -> Iterator[Site]:
    """Run the portal on a real socket, in a thread."""
    wanted, numbers = settings(**changes), list(rows)
    app = create(wanted, {"kigali": HOSPITAL}, db, lambda: numbers)
    stop = threading.Event()
    with listening(wanted.host, wanted.port) as at:
        thread = threading.Thread(target=serve, args=(app, wanted, at, stop))
        thread.start()
        try:
            app.state.portal.live.up.wait(30)
            yield Site(f"http://127.0.0.1:{at.getsockname()[1]}", db, app, numbers)
        finally:
            stop.set()
            thread.join(20)
    assert not thread.is_alive(), "the portal did not end"


@contextlib.contextmanager
def opened(
    mongo_url: str, rows: Sequence[Document] = (), *listeners: CommandListener
) -> Iterator[Site]:
    """Open a Passport of its own and its portal. `listeners` hear what the portal alone sends."""
    name = fresh_name()
    with (
        MongoClient[Document](mongo_url, tz_aware=True) as client,
        MongoClient[Document](mongo_url, tz_aware=True, event_listeners=listeners) as portals,
    ):
        fill(client[name])
        with running(portals[name], rows) as found:
            yield Site(found.url, client[name], found.app, found.rows)
        client.drop_database(name)
