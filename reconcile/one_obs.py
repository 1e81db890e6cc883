"""Reads the person of one obs at the hospital, as enrichment does, to say what the obs means."""

from contextlib import closing

from consumers.lookups import Lookups
from destinations.mongo.document import Document
from openmrs.key_ranges import rows_with_keys
from openmrs.read import ANY_POSITION, Source
from openmrs.tables import OBS
from passport.errors import Fatal
from passport.settings import Settings
from reconcile.expected import expected_rows

CACHE_ENTRIES = 10_000
CACHE_TTL_S = 600.0


def rows_of_its_person(settings: Settings, hospital_id: str, obs_id: int) -> list[Document]:
    """Return all rows of the person whose obs it is, as documents of the mirror.

    All, because rows that stand in other groups may belong to it. Raises Fatal if there is no such
    obs, and Retry and NotReady.
    """
    hospital = settings.hospital(hospital_id)
    with closing(Source(hospital_id, hospital.mysql)) as source:
        lookups = Lookups(hospital_id, hospital, source, entries=CACHE_ENTRIES, ttl_s=CACHE_TTL_S)
        with source.read_at(ANY_POSITION) as read:
            rows = rows_with_keys(read, OBS, [obs_id])
            if not rows:
                raise Fatal(
                    f"{hospital_id} has no obs {obs_id}",
                    hint="the obs_id of the hospital's table obs; records have it as"
                    " openmrsData.obsId",
                )
            return list(expected_rows(read, lookups, [rows[0]["person_id"]]).values())
