"""Citizens, and how hospitals write their national ids.

It is pure, and a citizen is the same in every hospital.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from random import Random

from dev.hospital.dictionary import local_uuid

NATIONAL_ID_TYPE = "6f4ac1d2-7c35-4f0b-9c1e-2b8f0a1d1001"
OPENMRS_ID_TYPE = "05a29f94-c0ed-11e2-94be-8c13b969e334"
OLD_ID_TYPE = "8d79403a-c2cc-11de-8d13-0010c6dffd0f"

_FAMILY = """
Uwimana Mukamana Habimana Niyonzima Nshimiyimana Mukeshimana Ndayisaba Uwase Hakizimana Mugisha
Nkurunziza Bizimana Iradukunda Ingabire Kagabo Munyaneza Nsengiyumva Twagirayezu Umutoni Rukundo
Gasana Kayitesi Murekatete Ntaganda Sibomana Tuyisenge Umuhoza Zaninka Byiringiro Muhire
"""
_WOMEN = """
Claudine Jeanne Marie Immaculée Solange Vestine Diane Chantal Béatrice Espérance Aline Josiane
Yvonne Odette Francine Grâce Clarisse Denise Alphonsine Thérèse
"""
_MEN = """
Jean Emmanuel Eric Innocent Patrick Théogène Olivier Célestin Fabrice Damascène Claude Alexis
Vincent Gaspard Aimable Félicien Donatien Pascal Samuel Évariste
"""
FAMILY = _FAMILY.split()
WOMEN = _WOMEN.split()
MEN = _MEN.split()
FIRST_BIRTH = date(1938, 1, 1)
BIRTH_DAYS = 31_000  # after it


@dataclass(frozen=True, slots=True)
class Citizen:
    given: str
    family: str
    gender: str  # M or F
    born: date
    national_id: str  # 16 digits


def citizen(number: int) -> Citizen:
    """Return the citizen of this number: the same person, whichever hospital asks."""
    rng = Random(f"citizen {number}")
    gender = rng.choice("MF")
    born = FIRST_BIRTH + timedelta(days=rng.randrange(BIRTH_DAYS))
    given = rng.choice(WOMEN if gender == "F" else MEN)
    return Citizen(given, rng.choice(FAMILY), gender, born, national_id(born.year, gender, number))


def national_id(year: int, gender: str, serial: int) -> str:
    """Return sixteen digits in the Rwandan manner.

    They are 1, the year of birth, the sex (8 male, 7 female), seven digits of the serial number,
    the issue (0) and two check digits.
    """
    digits = f"1{year:04d}{8 if gender == 'M' else 7}{serial:07d}0"
    return f"{digits}{97 - int(digits) % 97:02d}"


def citizen_of(digits: str) -> Citizen | None:
    """Return the citizen who has a national id; None if it was given to nobody."""
    if len(digits) != 16:
        return None
    person = citizen(int(digits[6:13]))
    return person if person.national_id == digits else None


def year_and_gender(digits: str) -> tuple[int, str] | None:
    """Return the year of birth and the gender that a national id tells; None if it tells none."""
    match = re.fullmatch(r"1((?:19|20)\d\d)([78])\d{10}", digits)
    if match is None:
        return None
    return int(match[1]), "M" if match[2] == "8" else "F"


def spaced(digits: str) -> str:
    """Return a national id with spaces between its parts."""
    return re.sub(r"(.)(.{4})(.)(.{7})(.)(..)", r"\1 \2 \3 \4 \5 \6", digits)


def dashed(digits: str) -> str:
    """Return a national id with dashes between its parts."""
    return spaced(digits).replace(" ", "-")


@dataclass(frozen=True, slots=True)
class Identifier:
    type: str  # uuid of its patient_identifier_type
    value: str
    preferred: bool = True
    voided: bool = False


def identifiers(index: int, person: Citizen, sharer: Citizen) -> Iterator[Identifier]:
    """Yield what the hospital wrote down for its patient number `index`, with every oddity.

    The 11th patient has got the national id of the 10th, who is the `sharer`.
    """
    yield Identifier(OPENMRS_ID_TYPE, f"100{index:04d}", preferred=not _has_national_id(index))
    if index % 37 == 8:  # a typing error, voided
        yield Identifier(NATIONAL_ID_TYPE, national_id(1901, person.gender, index), voided=True)
    if not _has_national_id(index):
        return
    yield Identifier(NATIONAL_ID_TYPE, _written(index, sharer if index == 11 else person))
    if index % 31 == 6:  # an older card
        older = national_id(1902, person.gender, 5_000_000 + index)
        yield Identifier(NATIONAL_ID_TYPE, older, preferred=False)
    if index % 17 == 3:
        yield Identifier(OLD_ID_TYPE, f"RW/{index:05d}", preferred=False)


def _has_national_id(index: int) -> bool:
    return index % 23 != 4 and index % 41 != 9


def _written(index: int, person: Citizen) -> str:
    """Return the national id as this patient's was typed: whole, cut short, spaced or dashed."""
    digits = person.national_id
    if index % 29 == 5:
        return digits[:7] if index % 2 else f"PC{digits[:6]}"
    if index % 7 == 0:
        return spaced(digits)
    if index % 13 == 1:
        return dashed(digits)
    return digits


@dataclass(frozen=True, slots=True)
class Member:
    """A member of the staff. `provider` is the identifier of one who treats patients."""

    username: str
    given: str
    family: str
    provider: str = ""
    preferred_name: bool = True
    retired: bool = False


STAFF: tuple[Member, ...] = (
    Member("admin", "Super", "User"),
    Member("daemon", "Daemon", "User"),
    Member("clerk", "Agnès", "Mukandoli", preferred_name=False),
    Member("nurse", "Josée", "Nyirahabimana", "NUR-01", preferred_name=False),
    Member("nurse2", "Théophile", "Ntawukuriryayo", "NUR-02"),
    Member("doctor", "Alice", "Umurerwa", "DOC-01", preferred_name=False),
    Member("doctor2", "Christian", "Ndahiro", "DOC-02"),
    Member("doctor3", "Pierre", "Kamanzi", "DOC-03"),
    Member("labtech", "Ange", "Mutesi", "LAB-01"),
    Member("former", "Léonard", "Bagabo", "DOC-00", retired=True),
)

LOCATIONS = (
    "Outpatient Clinic",
    "Inpatient Ward",
    "Laboratory",
    "Emergency",
    "Maternity",
    "Pharmacy",
)
ENCOUNTER_TYPES: dict[str, str] = {
    "Visit Note": "d7151f82-c1f3-4152-a605-2f9ea7414a79",
    "Vitals": "67a71486-1a54-468f-ac3e-7091a9a79584",
    "Laboratory": local_uuid("encounter_type/Laboratory"),
    "Consultation": local_uuid("encounter_type/Consultation"),
}
ENCOUNTER_ROLES: dict[str, str] = {
    "Unknown": "a0b03050-c99b-11e0-9572-0800200c9a66",
    "Clinician": "240b26f9-dd88-4172-823d-4a8bfeb7841f",
    "Assistant": local_uuid("encounter_role/Assistant"),
}
