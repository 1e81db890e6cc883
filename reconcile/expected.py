"""Says what the Passport must hold of some persons, as the hospital has them."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bson import ObjectId

from consumers.lookups import Lookups, RowToEnrich
from destinations.mongo import mirror
from destinations.mongo.document import Document
from destinations.mongo.placeholder_accounts import Authors
from destinations.mongo.projection.obs import projected
from meaning.rules import MappingRules
from openmrs.key_ranges import rows_of_persons
from openmrs.read import ConsistentRead
from openmrs.tables import OBS
from passport.errors import Reject
from passport.event import check_row
from passport.facts import Person


@dataclass(slots=True)
class Expected:
    """The documents that must be there of some persons.

    `patients` has the hex of patients._id by person_id, of everybody who is matched. `rows` has the
    documents of the mirror by _id.
    """

    persons: dict[int, Person]
    patients: dict[int, str]
    rows: dict[str, Document] = field(default_factory=dict)

    def records(
        self,
        tombstones: Iterable[Document],
        rules: MappingRules,
        hospital: str,
        name: str,
        authors: Authors,
    ) -> dict[ObjectId, Document]:
        """Return the records that these rows make, by _id.

        `tombstones` are what the mirror keeps of purged rows: the first version of a row that is
        still there may be among them.
        """
        documents: dict[int, list[Document]] = defaultdict(list)
        for tombstone in tombstones:
            if tombstone["_id"] not in self.rows:
                documents[tombstone["personId"]].append(tombstone)
        for row in self.rows.values():
            documents[row["personId"]].append(row)

        authors.look_up(row["author"] for row in self.rows.values())
        records: dict[ObjectId, Document] = {}
        for person_id, patient in self.patients.items():
            for record in projected(
                documents[person_id], rules, hospital, name, patient, authors.created_by
            ):
                records[record.id] = record.document
        return records


def matched_patients(links: Mapping[int, Document]) -> dict[int, str]:
    """Return the hex of patients._id by person_id, of everybody whom these links match."""
    return {person_id: link["patientId"] for person_id, link in links.items() if link["patientId"]}


def expected_rows(
    read: ConsistentRead, lookups: Lookups, person_ids: Sequence[int]
) -> dict[str, Document]:
    """Return the mirror's documents that must be there of these matched persons, by _id.

    Rows that can't be carried are left out, since a consumer parks them as dead letters.
    """
    rows: list[RowToEnrich] = []
    for row in rows_of_persons(read, OBS, person_ids):
        try:
            check_row(row)
        except Reject:
            continue
        rows.append(RowToEnrich(row, "", False, "person"))
    documents: dict[str, Document] = {}
    for observation in lookups.observations_in(read, rows):
        try:
            document = mirror.document(observation)
        except Reject:
            continue
        documents[document["_id"]] = document
    return documents
