"""The facts that every destination gets: an Observation is one obs row with all that it means.

Its parts are as the hospital had them at the observation's version.
"""

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
Sex = Literal["female", "male"]
RangeSource = Literal["obs", "concept"]
InterpretationSource = Literal["obs", "range"]


class Person(msgspec.Struct, frozen=True):
    """The person that an obs is about, as the hospital knows them at `version`.

    `national_id` consists of 10 to 16 digits. Only a person in state ``ok`` has one. The other
    states say why there is none:

    - ``none``: the person has no live identifier of the configured type.
    - ``invalid``: the identifier doesn't have 10 to 16 digits.
    - ``ambiguous``: another live patient of this hospital holds the same id, or this patient holds
      two, of which none or several are preferred.
    - ``not_patient``: the person is no patient.
    - ``voided``: the person or the patient is voided.

    `birth_year` is None if it isn't known. An estimated one is made of an age that somebody was
    told. `sex` is None if it is neither of the two, or not known.
    """

    hospital: str
    person_id: int
    uuid: str | None
    state: PersonState
    national_id: str | None
    version: str
    birth_year: int | None = None
    is_birth_estimated: bool = False
    sex: Sex | None = None

    @property
    def key(self) -> str:
        """The person among those of all hospitals, as in ``kigali/7``."""
        return f"{self.hospital}/{self.person_id}"


# Pairs (locale, name), such as ``("fr", "Paludisme")``, each locale once, in the order in which the
# settings have them.
Names = tuple[tuple[str, str], ...]


class ReferenceRange(msgspec.Struct, frozen=True):
    """The bounds that a number of a patient is compared with; None where there is no such bound.

    From `low_normal` to `high_normal` a number is usual. At a critical bound, and beyond it, it is
    critical. OpenMRS takes no number beyond an absolute bound. `source` is ``obs`` for the range
    that OpenMRS applied to this very obs (since 2.7), by age and sex, and ``concept`` for that of
    its question, which is the same for everybody.
    """

    low_absolute: float | None
    low_critical: float | None
    low_normal: float | None
    high_normal: float | None
    high_critical: float | None
    high_absolute: float | None
    source: RangeSource


class Interpretation(msgspec.Struct, frozen=True):
    """What a value means, in the words of OpenMRS' Obs.Interpretation, such as ``CRITICALLY_LOW``.

    `source` is ``obs`` if the hospital states it, and ``range`` if it is computed of the number and
    its reference range.
    """

    code: str
    source: InterpretationSource


class Concept(msgspec.Struct, frozen=True):
    """A concept of the hospital's dictionary.

    `name` is chosen by the hospital's chain of locales. `mappings` are sorted texts of the form
    ``SOURCE:code``, such as ``CIEL:5089``. `names` has the concept's name in each locale that is
    kept and that it has one in. `reference_range` is that of a Numeric concept.
    """

    concept_id: int
    uuid: str
    name: str
    datatype: str
    concept_class: str
    units: str | None
    mappings: tuple[str, ...]
    names: Names = ()
    reference_range: ReferenceRange | None = None


class Value(msgspec.Struct, frozen=True):
    """The value of an obs.

    `text` is the value as a person reads it, without units. `number` and `modifier` (such as ``<``)
    belong to a numeric value, and `at` to a date, time or datetime. `concept` is the answer of a
    coded or boolean value, and the concept of a drug. `names` says `text` in each locale that is
    kept and has a word for it. `reference_range` is the one that applies to a number.
    """

    kind: ValueKind
    text: str
    number: float | None = None
    modifier: str | None = None
    concept: Concept | None = None
    at: datetime | None = None
    names: Names = ()
    reference_range: ReferenceRange | None = None
    interpretation: Interpretation | None = None


class Author(msgspec.Struct, frozen=True):
    """The person who stated an obs; `source` says how they were found.

    `key` identifies them within the hospital: the uuid of a provider, or ``user/<uuid>``.
    """

    name: str
    source: AuthorSource
    key: str | None


class Place(msgspec.Struct, frozen=True):
    """A location of the hospital."""

    location_id: int
    uuid: str
    name: str


class Encounter(msgspec.Struct, frozen=True):
    """The encounter in which an obs was made, and the visit that it belongs to, if there is one.

    `written` is encounter_datetime as the hospital wrote it, in its wall time. `at` is the same as
    an aware UTC datetime; None if the wall time doesn't exist.
    """

    encounter_id: int
    uuid: str
    type: str
    written: str
    at: datetime | None
    visit_uuid: str | None = None
    visit_type: str | None = None


class FirstVersion(msgspec.Struct, frozen=True):
    """The first version of an obs that the hospital has merged from one patient into another.

    A merge copies each obs to the winner and voids the loser's. `uuid` and `created` are those of
    the first version. `rows` are the obs_ids of all earlier versions, and `persons` the person_ids
    of those who have been merged.
    """

    uuid: str
    created: datetime | None
    rows: tuple[int, ...]
    persons: tuple[int, ...]


class Observation(msgspec.Struct, frozen=True):
    """One obs row with all that it refers to.

    `row` has the columns of obs by name, and the times as the hospital wrote them. `at` and
    `created` are obs_datetime and date_created as aware UTC datetimes.

    `deleted` means that the row is gone (purged). Then `row` is its last known image, and of what
    it refers to only the person is there.

    `first` is only there if the row's previous version is of somebody else, whom the hospital has
    merged into this person.

    `origin` says why it comes: ``stream`` (an event of the topic), ``reread`` (something that it
    refers to was changed) or ``person`` (all rows of its person were read).
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
    first: FirstVersion | None = None

    @property
    def obs_id(self) -> int:
        """The key of the row within its hospital."""
        return int(self.row["obs_id"])

    @property
    def key(self) -> str:
        """The row among those of all hospitals, as in ``kigali/123``."""
        return f"{self.hospital}/{self.row['obs_id']}"

    @property
    def uuid(self) -> str:
        """OpenMRS's own uuid of the row."""
        return str(self.row["uuid"])

    @property
    def live(self) -> bool:
        """Is True if the row is there and isn't voided."""
        return not self.deleted and not self.row["voided"]
