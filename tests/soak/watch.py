"""A look at what patients see, every 100 ms, while everything is broken."""

import random
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

from bson import ObjectId
from pymongo.errors import PyMongoError

from tests.e2e.stage import Stage
from tests.soak import ownership

EVERY_S = 0.1
CHANGES_A_LOOK = 2_000
PATIENTS_A_LOOK = 30
SOME = 5  # patients who are looked at although nothing of theirs has changed

Shown = tuple[str, str, str]


class Watch(threading.Thread):
    """Looks at each record that has changed, and at its whole patient, as of one moment.

    - No obs is in two records of a patient.
    - No record shows an obs to somebody whose it never was: `end` knows, from the hospitals.
    - The version of no row falls.

    `wrong` has what it saw. `looked` counts patients.
    """

    def __init__(self, stage: Stage) -> None:
        super().__init__(daemon=True)
        self._stage = stage
        self._stop_asked = threading.Event()
        self._highest: dict[str, str] = {}
        self._shown: set[Shown] = set()  # hospital, patient, uuid
        self._patients: set[str] = set()
        self._due: set[str] = set()  # patients of whom something has changed since the last look
        self.wrong: list[str] = []
        self.looked = 0
        self.missed = 0  # looks while MongoDB was broken

    def run(self) -> None:
        while not self._stop_asked.is_set():
            try:
                with self._stage.db["medicalrecords"].watch(max_await_time_ms=50) as changes:
                    while not self._stop_asked.wait(EVERY_S):
                        self._look(changes)
            except PyMongoError:
                self.missed += 1
                self._stop_asked.wait(EVERY_S)

    def _look(self, changes: Any) -> None:
        changed: set[ObjectId] = set()
        while len(changed) < CHANGES_A_LOOK and (change := changes.try_next()) is not None:
            if "documentKey" in change:
                changed.add(change["documentKey"]["_id"])
        with self._stage.client.start_session(snapshot=True) as moment:
            self._look_at_patients(list(changed), moment)
        self._look_at_versions()

    def _look_at_patients(self, changed: list[ObjectId], moment: Any) -> None:
        records = self._stage.db["medicalrecords"]
        of_whom = records.find({"_id": {"$in": changed}}, {"patientId": 1}, session=moment)
        self._due |= {document["patientId"] for document in of_whom} - {""}
        self._patients |= self._due
        first = sorted(self._due)[:PATIENTS_A_LOOK]
        self._due.difference_update(first)
        others = random.sample(sorted(self._patients), min(SOME, len(self._patients)))
        wanted = sorted({*first, *others})
        query = {"patientId": {"$in": wanted}}
        fields = {
            "patientId": 1,
            "openmrsData.hospitalId": 1,
            "openmrsData.obsUuid": 1,
            "openmrsData.memberUuids": 1,
        }
        seen: Counter[Shown] = Counter()
        for document in records.find(query, fields, session=moment):
            openmrs = document["openmrsData"]
            for uuid in {openmrs["obsUuid"], *openmrs.get("memberUuids", ())}:
                seen[openmrs["hospitalId"], document["patientId"], uuid] += 1
        self.looked += len(wanted)
        self._shown.update(seen)
        for (hospital, patient, uuid), times in seen.items():
            if times > 1:
                self.wrong.append(f"obs {uuid} of {hospital}: {times} times at patient {patient}")

    def _look_at_versions(self) -> None:
        """O4: the version of no document falls."""
        observations = self._stage.db["observations"]
        newest = observations.find({}, {"version": 1}).sort("version", -1).limit(100)
        keys = random.sample(list(self._highest), min(100, len(self._highest)))
        some = observations.find({"_id": {"$in": keys}}, {"version": 1})
        for document in [*newest, *some]:
            key, version = document["_id"], document["version"]
            if version < self._highest.get(key, ""):
                self.wrong.append(f"observations {key}: its version fell")
            self._highest[key] = max(version, self._highest.get(key, ""))

    def end(self) -> list[str]:
        """Return all that was wrong. What was never theirs is asked of the hospitals' history."""
        self._stop_asked.set()
        self.join(60)
        assert self.looked > 0
        return [*self.wrong, *self._never_theirs()]

    def _never_theirs(self) -> list[str]:
        theirs = {
            key: ownership.ever_theirs(hospital) for key, hospital in self._stage.hospitals.items()
        }
        return never_theirs(self._shown, theirs, self._national_ids())

    def _national_ids(self) -> dict[str, str]:
        patients = self._stage.db["patients"].find({}, {"nationalId": 1})
        return {str(patient["_id"]): str(patient["nationalId"]) for patient in patients}


def never_theirs(
    shown: set[Shown],
    theirs: Mapping[str, set[tuple[str, str]]],
    national_ids: Mapping[str, str],
) -> list[str]:
    """Return what was shown to somebody although it never belonged to their national id."""
    return [
        f"obs {uuid} of {hospital}: shown to patient {patient}, whose it never was"
        for hospital, patient, uuid in sorted(shown)
        if (uuid, national_ids.get(patient, "")) not in theirs[hospital]
    ]
