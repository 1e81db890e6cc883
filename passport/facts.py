"""Observation: one obs row with all that it means. What every destination gets."""

from datetime import datetime
from typing import Literal

import msgspec

from passport.event import Row

PersonState = Literal["ok", "none", "invalid", "ambiguous", "not_patient", "voided"]
ValueKind = Literal[
    "numeric", "coded", "drug", "boolean", "text", "date", "time", "datetime", "complex", "none"
]
AuthorSource = Literal["encounter_provider", "orderer", "creator", "none"]
ObservationOrigin = Literal["stream", "reread", "person"]


class Person(msgspec.Struct, frozen=True):
    """Whom an obs is about, as the hospital knows them at `version`.

    `national_id`: digits only, 10 to 16 of them, and only in state ``ok``. States: ``none`` (no
    live identifier of the configured type), ``invalid`` (not 10-16 digits), ``ambiguous`` (another
    live patient of this hospital holds the same id, or this one holds two and none or several are
    preferred), ``not_patient``, ``voided``.
    """

    hospital: str
    person_id: int
    uuid: str | None
    state: PersonState
    national_id: str | None
    version: str

    @property
    def key(self) -> str:
        return f"{self.hospital}/{self.person_id}"


class Concept(msgspec.Struct, frozen=True):
    """`name` by the hospital's locale chain; `mappings` as ``SOURCE:code``, sorted."""

    concept_id: int
    uuid: str
    name: str
    datatype: str
    concept_class: str
    units: str | None
    mappings: tuple[str, ...]


class Value(msgspec.Struct, frozen=True):
    """`text`: how a person reads it (no units); `concept` is the answer's, for coded and boolean
    values.
    """

    kind: ValueKind
    text: str
    number: float | None = None
    modifier: str | None = None
    concept: Concept | None = None
    at: datetime | None = None


class Author(msgspec.Struct, frozen=True):
    """Who stated it: `key` identifies the provider (its uuid, or ``user/<uuid>``) within the
    hospital.
    """

    name: str
    source: AuthorSource
    key: str | None


class Place(msgspec.Struct, frozen=True):
    location_id: int
    uuid: str
    name: str


class Encounter(msgspec.Struct, frozen=True):
    """`at` is the instant of encounter_datetime, `written` the same as written; `visit_*`: the
    visit it belongs to.
    """

    encounter_id: int
    uuid: str
    type: str
    written: str
    at: datetime | None
    visit_uuid: str | None = None
    visit_type: str | None = None


class Observation(msgspec.Struct, frozen=True):
    """One obs row, enriched. Instants are aware UTC datetimes; `row` has the times as written.

    `deleted`: the row is gone (purged): `row` is then its last known image and the enrichment is
    left out. `origin`: ``stream`` (an event of the topic), ``reread`` (after a notice) or
    ``person`` (a person read whole).
    """

    hospital: str
    version: str
    row: Row
    deleted: bool
    person: Person
    concept: Concept | None
    value: Value
    author: Author
    place: Place | None
    encounter: Encounter | None
    at: datetime | None
    created: datetime | None
    origin: ObservationOrigin = "stream"

    @property
    def obs_id(self) -> int:
        return int(self.row["obs_id"])

    @property
    def key(self) -> str:
        """Of the row, over all hospitals: ``kigali/123``."""
        return f"{self.hospital}/{self.row['obs_id']}"

    @property
    def uuid(self) -> str:
        return str(self.row["uuid"])

    @property
    def live(self) -> bool:
        return not self.deleted and not self.row["voided"]
