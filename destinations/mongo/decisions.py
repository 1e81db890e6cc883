"""Lets an operator decide on links whose hospital and Passport contradict each other.

A decision holds for one national id and one patient. It is kept with the person's document, told in
`auditlogs`, and followed when the person is read next, within seconds.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from bson import ObjectId
from pymongo import InsertOne

from destinations.mongo import auditlogs
from destinations.mongo.client import Mongo, bulk, translate_errors
from destinations.mongo.contradictions import Verdict
from destinations.mongo.document import Document
from destinations.mongo.people import named_patient
from destinations.mongo.placeholder_accounts import Authors
from passport.errors import Fatal, Retry
from passport.settings import Hospital


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A person whom hospital and Passport describe differently, or of whom somebody has decided.

    `contradicts` names what differs, without the values. `verdict` is "" as long as nobody has
    decided. `patient_id` is the hex of ``patients._id``.
    """

    hospital: str
    person_id: int
    state: str
    contradicts: tuple[str, ...]
    verdict: str
    decided_by: str
    patient_id: str | None

    @property
    def is_linked(self) -> bool:
        return self.state == "ok" and self.patient_id is not None


def listed(database: Mongo, hospital_id: str) -> Iterator[Contradiction]:
    """Yield them by person_id. Raises Retry, NotReady or Fatal."""
    query = {
        "hospital": hospital_id,
        "$or": [{"contradicts": {"$exists": True}}, {"decision": {"$exists": True}}],
    }
    with translate_errors():
        for document in database.people.find(query).sort("personId", 1):
            yield _contradiction(document)


def one(database: Mongo, hospital_id: str, person_id: int) -> Contradiction:
    """Return one of them. Raises Fatal if the person has no patient to be linked with."""
    return _contradiction(_read(database, hospital_id, person_id))


def decide(
    database: Mongo,
    hospital_id: str,
    hospital: Hospital,
    person_id: int,
    verdict: Verdict | None,
    operator: str,
) -> None:
    """Link a person with the patient who has their national id, or refuse that.

    None takes the decision back. Raises Fatal if there is nothing to decide, Retry when the
    person's document has just changed.
    """
    document = _read(database, hospital_id, person_id)
    patient = named_patient(document)
    now = datetime.now(UTC)
    _audit(database, hospital_id, hospital, document, verdict, operator, now)
    update: Document = {
        # The person is read whole then, and the decision is followed.
        "$set": {"pending": document.get("pending", "read")},
        "$inc": {"rev": 1},
    }
    if verdict is None:
        update["$unset"] = {"decision": ""}
    else:
        update["$set"]["decision"] = {
            "verdict": verdict,
            "patientId": patient,
            "idHash": document["idHash"],
            "by": operator,
            "at": now,
        }
    seen = {"_id": document["_id"], "rev": document["rev"]}
    with translate_errors():
        if not database.people.update_one(seen, update).matched_count:
            raise Retry(f"the link of {document['_id']} has just been changed")


def _audit(
    database: Mongo,
    hospital_id: str,
    hospital: Hospital,
    document: Document,
    verdict: Verdict | None,
    operator: str,
    now: datetime,
) -> None:
    """Tell it before it is done: what was told twice would have one _id."""
    decided = f"decided: {verdict}" if verdict is not None else "the decision taken back"
    details = f"Link of {document['_id']} to this patient, {decided}, by {operator}"
    key = auditlogs.entry_id(document["_id"], document["rev"])
    user = Authors(database, hospital_id, hospital).system
    patient = ObjectId(named_patient(document))
    entry = auditlogs.shaped(key, user, patient, "update", details, now)
    bulk(database.auditlogs, [InsertOne(entry)])


def _read(database: Mongo, hospital_id: str, person_id: int) -> Document:
    key = f"{hospital_id}/{person_id}"
    with translate_errors():
        document = database.people.find_one({"_id": key})
    if document is None or not named_patient(document):
        raise Fatal(
            f"no patient of the Passport has the national id of {key}: there is nothing to decide",
            hint="passport unmatched contradictions",
        )
    return document


def _contradiction(document: Document) -> Contradiction:
    decision = document.get("decision") or {}
    return Contradiction(
        hospital=document["hospital"],
        person_id=document["personId"],
        state=document["state"],
        contradicts=tuple(document.get("contradicts") or ()),
        verdict=decision.get("verdict", ""),
        decided_by=decision.get("by", ""),
        patient_id=named_patient(document),
    )


def passport_says(database: Mongo, contradiction: Contradiction) -> Document:
    """Return the Passport's date of birth and gender of the patient: private values."""
    query = {"_id": ObjectId(contradiction.patient_id)}
    with translate_errors():
        patient = database.patients.find_one(query, {"dateOfBirth": 1, "gender": 1}) or {}
    return {"dateOfBirth": patient.get("dateOfBirth"), "gender": patient.get("gender")}
