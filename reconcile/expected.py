"""What the Passport must hold of some persons, by what the hospital says: all of it read at one
snapshot.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from bson import ObjectId

from consumers.enrich.obs import check
from consumers.lookups import Asked, Lookups
from destinations.mongo import mirror
from destinations.mongo.document import Document
from destinations.mongo.placeholder_accounts import Authors
from destinations.mongo.projection.mapping import MappingRules
from destinations.mongo.projection.obs import projected
from openmrs.key_ranges import rows_of_persons
from openmrs.read import ConsistentRead
from passport.errors import Reject
from passport.facts import Person


@dataclass(slots=True)
class Expected:
    """`patients`: hex of patients._id by person_id of whoever is matched; `rows`: mirror documents
    by _id.
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
        """`tombstones`: what the mirror keeps of purged rows; the first version of a live row may
        be among them.
        """
        documents: dict[int, list[Document]] = defaultdict(list)
        for document in [
            *(one for one in tombstones if one["_id"] not in self.rows),
            *self.rows.values(),
        ]:
            documents[document["personId"]].append(document)
        authors.look_up(one["author"] for one in self.rows.values())
        records: dict[ObjectId, Document] = {}
        for person_id, patient in self.patients.items():
            found = projected(
                documents[person_id], rules, hospital, name, patient, authors.created_by
            )
            records |= {one.id: one.document for one in found}
        return records


def read(
    reading: ConsistentRead,
    lookups: Lookups,
    person_ids: Collection[int],
    registered: Callable[[Iterable[Person]], dict[str, str]],
) -> Expected:
    """`registered`: patients._id by person key. Rows that can't be carried are left out: they are
    parked.
    """
    persons = lookups.persons_in(reading, person_ids, fresh=True)
    known = registered(persons.values())
    expected = Expected(
        persons, {one.person_id: known[one.key] for one in persons.values() if one.key in known}
    )
    asked: list[Asked] = []
    for row in rows_of_persons(reading, sorted(expected.patients)):
        try:
            check(row)
            asked.append((row, "", False, "person"))
        except Reject:
            continue
    for observation in lookups.observations_in(reading, asked):
        try:
            document = mirror.document(observation)
        except Reject:
            continue
        expected.rows[document["_id"]] = document
    return expected
