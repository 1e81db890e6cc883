"""Compares year of birth and sex of everybody who is linked, whether or not anything changed.

A link is compared when its person is read. Those that were made before the comparison was turned on
may not be read for years.
"""

from collections import Counter
from contextlib import closing
from threading import Event

from openmrs.identity import Identities
from openmrs.load_budget import WaitingPace
from openmrs.load_share import LoadShare
from openmrs.read import ANY_POSITION, Source
from passport.settings import Settings
from reconcile.mongo_reader import MongoReader
from reconcile.persons import in_parts


def compare_everybody(settings: Settings, hospital_id: str, mongo: MongoReader) -> Counter[str]:
    """Return how many linked people contradict the Passport, by what differs, and `compared`.

    Whose document doesn't say so yet is read whole by the consumers. Raises Retry and Fatal of the
    hospital and of the destination.
    """
    hospital = settings.hospital(hospital_id)
    identities = Identities(hospital_id, hospital)
    counts: Counter[str] = Counter()
    with closing(Source(hospital_id, hospital.mysql)) as source:
        pace = WaitingPace(hospital.load_budget, Event(), share=LoadShare(source))
        for person_ids in in_parts(mongo.linked(hospital_id)):
            with source.read_at(ANY_POSITION) as read:
                persons = identities.read(read, person_ids, "")
            pace.spend(len(persons))
            expected_links = mongo.expected_links(persons.values())
            links = mongo.links([person.key for person in persons.values()])
            outdated = []
            for person_id, person in persons.items():
                contradicts = expected_links[person_id]["contradicts"]
                counts["compared"] += 1
                counts.update(contradicts or ())
                if links.get(person.key, {}).get("contradicts") != contradicts:
                    outdated.append(person.key)
            mongo.ask_for(outdated)
    return counts
