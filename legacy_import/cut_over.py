"""The cut-over: what the legacy sync wrote before becomes ours, or goes.

Its records and doctors are found again at the hospitals (`findings.py`, `matching.py`), adopted
(`adopting.py`) and removed (`removing.py`). Running a step again does what is left of it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from bson import ObjectId

from destinations.mongo import auditlogs
from destinations.mongo.client import Mongo
from destinations.mongo.placeholder_accounts import Authors
from destinations.mongo.record_update import Action, Change
from legacy_import.adopting import adopt_doctor, adopt_record
from legacy_import.findings import Fate, LegacyFinder, LegacyFinding
from legacy_import.removing import remove_doctor, remove_record, remove_status
from openmrs.read import Source
from passport.settings import Settings


class LegacyImport:
    """The cut-over of all that the legacy sync wrote.

    Use it as a context manager: it connects to the hospitals. Its methods raise NotReady when a
    hospital is away, since without all of them nothing is certain, and Retry or Fatal.
    """

    def __init__(self, database: Mongo, settings: Settings) -> None:
        self._db = database
        self._settings = settings
        self._sources: dict[str, Source] = {}
        self._authors: dict[str, Authors] = {}
        for hospital_id, hospital in settings.hospitals.items():
            self._sources[hospital_id] = Source(hospital_id, hospital.mysql)
            self._authors[hospital_id] = Authors(database, hospital_id, hospital)
        passport_hospitals = {
            hospital_id: authors.hospital for hospital_id, authors in self._authors.items()
        }
        self._finder = LegacyFinder(database, settings, self._sources, passport_hospitals)

    def __enter__(self) -> "LegacyImport":
        return self

    def __exit__(self, *_: object) -> None:
        for source in self._sources.values():
            source.close()

    def findings(self) -> Iterator[LegacyFinding]:
        """Yield what is there, and what would become of it."""
        return self._finder.findings()

    def adopt(self) -> dict[str, int]:
        """Do what `findings` says, but for the undecided.

        Returns how many there were of each, as ``{"record adopted": 3, "doctor removed": 1}``.
        """
        return self._act(
            finding for finding in self.findings() if finding.fate is not Fate.UNDECIDED
        )

    def remove(self, ids: Sequence[str] | None) -> dict[str, int]:
        """Remove the undecided, or those of them with these ids. Returns how many, as `adopt`."""
        return self._act(
            finding
            for finding in self.findings()
            if finding.fate is Fate.UNDECIDED and (ids is None or finding.id in ids)
        )

    def _act(self, findings: Iterable[LegacyFinding]) -> dict[str, int]:
        done: Counter[str] = Counter()
        for finding in findings:
            is_adopted = finding.fate is Fate.ADOPTED
            if finding.kind == "record":
                if is_adopted:
                    adopt_record(self._db, finding)
                # An adopted record is ours under another _id by now: the old one goes too.
                self._write_audit_entry(finding)
                remove_record(self._db, finding.document)
            elif finding.kind == "doctor":
                if is_adopted:
                    adopt_doctor(self._db, finding)
                else:
                    remove_doctor(self._db, finding.document)
            else:
                remove_status(self._db, finding.document)
            done[f"{finding.kind} {'adopted' if is_adopted else 'removed'}"] += 1
        return dict(done)

    def _write_audit_entry(self, finding: LegacyFinding) -> None:
        """Write the entry before the change, as everywhere; none where nobody's record it was."""
        patient = finding.document["patientId"]
        if finding.hospital is None or not ObjectId.is_valid(patient):
            return
        authors = self._authors[finding.hospital]
        authors.ensure_hospital()
        action: Action = "update" if finding.fate is Fate.ADOPTED else "delete"
        change = Change(finding.document["_id"], action, patient, rev=0, seen=None, write={})
        name = self._settings.hospitals[finding.hospital].name
        auditlogs.write(self._db, [change], authors.system, name, datetime.now(UTC))
