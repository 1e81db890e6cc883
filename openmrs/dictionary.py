"""Reads a hospital's dictionary: all of its concepts, and which of them its obs ask."""

from collections.abc import Iterator

from openmrs.load_budget import FETCHED, WaitingPace
from openmrs.lookup_queries import concepts
from openmrs.read import ANY_POSITION, Source
from passport.facts import Concept
from passport.settings import Hospital

PAGE = 1_000  # concepts in one read; a dictionary has some 50,000
TABLES_OF_A_CONCEPT = 4  # its own row, names, mappings and numbers


def all_concepts(source: Source, hospital: Hospital, pace: WaitingPace) -> Iterator[Concept]:
    """Yield the concepts by concept_id, retired ones too: obs that name one are still there.

    Each page is a read of its own, so that nobody waits for it. Raises Retry, NotReady and Fatal.
    """
    last_id = 0
    while True:
        with source.read_at(ANY_POSITION) as read:
            rows = read.rows(
                "SELECT concept_id FROM concept WHERE concept_id > %s ORDER BY concept_id LIMIT %s",
                (last_id, PAGE),
            )
            ids = [row["concept_id"] for row in rows]
            by_id = concepts(read, ids, hospital.locales) if ids else {}
        pace.spend(len(ids) * TABLES_OF_A_CONCEPT * FETCHED)
        for concept_id in ids:
            yield by_id[concept_id]
        if len(ids) < PAGE:
            return
        last_id = ids[-1]


def asked_concepts(source: Source) -> set[int]:
    """Return the concept_id of each question of obs.

    OpenMRS has an index of obs.concept_id, of which the server looks at one entry a concept.
    Raises Retry, NotReady and Fatal.
    """
    with source.read_at(ANY_POSITION) as read:
        rows = read.rows("SELECT DISTINCT concept_id FROM obs")
    return {row["concept_id"] for row in rows}
