"""Compares `people` with `patients`, a page of each at a time, and marks whom the stream missed."""

from bson import ObjectId
from pymongo.collection import Collection

from destinations.mongo.client import Mongo
from destinations.mongo.document import Document
from destinations.mongo.people import ask_for, hash_of_patient, named_patient

PAGE = 1_000  # documents of each collection that are looked at together
_PERSON = {
    "hospital": 1,
    "personId": 1,
    "idHash": 1,
    "patientId": 1,
    "candidateId": 1,
    "ended": 1,
}
_FIRST_PATIENT = ObjectId("0" * 24)
_FIRST_PERSON = ""


class Sweep:
    """Goes round and round through both collections, by ``_id``.

    `patients` and `people` are the ``_id``s up to which it has looked. The client's errors are not
    translated.
    """

    def __init__(self, database: Mongo, link_key: bytes) -> None:
        self._db = database
        self._key = link_key
        self.patients = _FIRST_PATIENT
        self.people = _FIRST_PERSON

    def begin_round(self) -> None:
        self.patients = _FIRST_PATIENT
        self.people = _FIRST_PERSON

    def look(self) -> bool:
        """Look at the next page of both. Return whether the last round ended with the one before.

        Raises Retry, NotReady or Fatal where somebody can't be marked.
        """
        patients = self._next_page(self._db.patients, self.patients, {"nationalId": 1})
        people = self._next_page(self._db.people, self.people, _PERSON)
        if not patients and not people:
            self.begin_round()
            return True
        if patients:
            self._mark(self._missed(patients), "read")
            self.patients = patients[-1]["_id"]
        if people:
            self._mark(self._outdated(people), "read")
            self._mark(self._left_over(people), "remove")
            self.people = people[-1]["_id"]
        return False

    def _next_page(
        self, collection: Collection[Document], after: ObjectId | str, fields: Document
    ) -> list[Document]:
        cursor = collection.find({"_id": {"$gt": after}}, fields, batch_size=PAGE)
        return list(cursor.sort("_id").limit(PAGE))

    def _mark(self, keys: list[str], pending: str) -> None:
        if keys:
            ask_for(self._db, keys, pending)

    def _missed(self, patients: list[Document]) -> list[str]:
        """Return people whose id is one of these patients', and who are linked to another.

        Among them is whoever had an id that was nobody's.
        """
        owners: dict[str, str] = {}
        for patient in patients:
            id_hash = hash_of_patient(self._key, patient)
            if id_hash is not None:
                owners[id_hash] = str(patient["_id"])
        query = {"idHash": {"$in": list(owners)}}
        fields = {"idHash": 1, "patientId": 1, "candidateId": 1}
        holders = self._db.people.find(query, fields)
        return [
            person["_id"] for person in holders if named_patient(person) != owners[person["idHash"]]
        ]

    def _outdated(self, people: list[Document]) -> list[str]:
        """Return those whose patient is gone or has another id.

        Those are among them whose link waits for an operator.
        """
        linked = [(person, patient) for person in people if (patient := named_patient(person))]
        ids = [ObjectId(patient) for _, patient in linked if ObjectId.is_valid(patient)]
        hashes: dict[str, str | None] = {}
        for document in self._db.patients.find({"_id": {"$in": ids}}, {"nationalId": 1}):
            hashes[str(document["_id"])] = hash_of_patient(self._key, document)
        return [
            person["_id"] for person, patient in linked if hashes.get(patient) != person["idHash"]
        ]

    def _left_over(self, people: list[Document]) -> list[str]:
        """Return those who have rows though their link has ended.

        The rows are of a writer that had not seen the end of the link, and died before it did.
        """
        ended: dict[str, list[int]] = {}
        for person in people:
            if person.get("ended"):
                ended.setdefault(person["hospital"], []).append(person["personId"])
        keys: list[str] = []
        for hospital, person_ids in ended.items():
            query = {"hospital": hospital, "personId": {"$in": person_ids}}
            with_rows = self._db.observations.distinct("personId", query)
            keys += [f"{hospital}/{person_id}" for person_id in with_rows]
        return keys
